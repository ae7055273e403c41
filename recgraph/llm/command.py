"""`recgraph llm serve`: the command; what is run is launch.py's, how it is kept running supervisor.py's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recgraph.errors import ModelMissing, RecgraphError, SettingsError, StoreError
from recgraph.options import store_option
from recgraph.terminal import say
from recgraph.tools.llm.places import INSTALL_LOCAL

if TYPE_CHECKING:
    from pathlib import Path

    from recgraph.llm.launch import VLLM, Launch
    from recgraph.settings import Settings
    from recgraph.tools.llm.adapter_sets import AdapterSet


@click.group()
def llm() -> None:
    """The language model behind a server of its own."""


@llm.command()
@click.option("--llm", "model", metavar="MODEL", help="base model: a folder or hub id  [default: SmolLM2-135M]")
@click.option("--adapter", "sets", metavar="SET", multiple=True, help="adapter sets, or none  [default: the store's]")
@click.option("--python", metavar="FILE", default="", help="the Python that has vLLM  [default: .venv-vllm, else this]")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="where it listens")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, metavar="N", help="its port")
@click.option(
    "--catalogue/--no-catalogue",
    default=None,
    help="hold answers to the store's ids where a client asks  [default: where they are more than 4,000]",
)
@click.option(
    "--merge/--no-merge",
    default=None,
    help="add a set's adapter `recommend` into the weights  [default: on a CPU, where adapters cost vLLM seconds]",
)
@store_option
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def serve(
    model: str | None,
    sets: tuple[str, ...],
    python: str,
    host: str,
    port: int,
    catalogue: bool | None,
    merge: bool | None,
    store: str | None,
    more: tuple[str, ...],
) -> None:
    """Start a vLLM server with adapters and keep it running.

    It is asked for a token every few seconds and started again where it does not give one. Ctrl-C or SIGTERM lets it
    finish what it answers, then ends it. Its key is RECGRAPH_LLM_API_KEY, in the environment alone.

    \b
    Behind -- come options of vLLM's own:
      recgraph llm serve --adapter none -- --max-model-len 4096
    """
    from recgraph.llm.launch import find_vllm, launch
    from recgraph.llm.supervisor import Supervisor
    from recgraph.settings import load_settings
    from recgraph.tools.llm.places import find_llm

    settings = load_settings(store=store, llm=model)
    vllm = find_vllm(python)
    say(f"vLLM {vllm.version} ({vllm.package}) in {vllm.python}")
    folder = find_llm(settings.llm, settings.cache_folder, say)
    adapters = _sets(sets, settings)
    model_folder, adapters, names = _merged(vllm, folder, adapters, settings, merge)
    started = launch(
        vllm,
        model_folder,
        adapters,
        cache=settings.cache_folder,
        host=host,
        port=port,
        key=settings.llm_api_key,
        names=names,
        more=more,
    )
    started = _holding(started, folder, settings, catalogue)
    log = settings.cache_folder / f"vllm-{port}.log"
    say(started.in_words())
    say(f"serves {', '.join((started.name, *started.adapters))}; its log is {log}")
    say(f"once ready: recgraph run --user U123 --llm-url {started.url}")
    Supervisor(started, log, say).run()
    say("ended")


def _merged(
    vllm: VLLM, model: Path, sets: list[AdapterSet], settings: Settings, wanted: bool | None
) -> tuple[Path, list[AdapterSet], tuple[str, ...]]:
    """What is served: the folder of a model, the sets whose adapters stay beside it, and the model's names. On a CPU a
    model with the adapter `recommend` of the one set in its weights, where that can be had."""
    from recgraph.llm.launch import number_format
    from recgraph.llm.merging import MERGES, merged, packed
    from recgraph.tools.llm.adapter_sets import Base

    apart: tuple[Path, list[AdapterSet], tuple[str, ...]] = (model, sets, ())
    if wanted is False or (wanted is None and not vllm.on_cpu):
        return apart
    if len(sets) != 1 or MERGES not in sets[0].adapters:
        if wanted:
            raise SettingsError(
                f"--merge takes one set with an adapter '{MERGES}'; here are "
                f"{', '.join(f'{one.name} ({chr(32).join(one.adapters)})' for one in sets) or 'none'}."
            )
        return apart
    if wanted is None and packed(model):
        say("adapters are served as such, which is slow on a CPU: they cannot be added into packed weights")
        return apart
    try:
        folder, served = merged(model, sets[0], number_format(vllm), settings.cache_folder, say)
    except ModuleNotFoundError as error:
        if wanted:
            raise SettingsError(f"--merge needs the Python package '{error.name}': {INSTALL_LOCAL}") from None
        say(f"adapters are served as such, which is slow on a CPU: adding one into the weights needs '{error.name}'")
        return apart
    others = [name for name in sets[0].adapters if name != MERGES]
    if others:
        say(f"without {', '.join(others)}, which stands beside other weights (--no-merge serves all, slowly on a CPU)")
    return folder, [], (f"{Base.of(model).name}-merged", served)


def _holding(started: Launch, model: Path, settings: Settings, wanted: bool | None) -> Launch:
    """The server that can hold answers to the ids of the store's catalogue; the same where it is too small to need it,
    or cannot be had and is not asked for."""
    from recgraph.llm.launch import holding
    from recgraph.store.db import Store
    from recgraph.tools.llm.forms import MAX_CHOICES

    if wanted is False:
        return started
    try:
        with Store.open(settings.store) as opened:
            ids = opened.catalogue().item_ids if wanted or opened.offered() > MAX_CHOICES else ()
        if not ids and not wanted:
            return started
        from recgraph.llm.catalogue import write_catalogue

        folder = write_catalogue(model, ids, settings.cache_folder)
        held = holding(started, folder, folder.name)
    except (RecgraphError, ImportError, ValueError) as error:
        if wanted:
            raise SettingsError(f"--catalogue cannot be had: {error}") from None
        say(f"answers are not held to the whole catalogue: {error}")
        return started
    say(f"holds answers to {len(ids):,} ids where a client asks ({folder.name})")
    return held


def _sets(asked: tuple[str, ...], settings: Settings) -> list[AdapterSet]:
    """The sets that are asked for; else the store's own, which may be missing."""
    from recgraph.store.db import Store
    from recgraph.tools.llm.adapter_sets import find_set

    if asked or settings.adapter:
        names = [name for name in asked or (settings.adapter,) if name != "none"]
        return [find_set(name, settings.store) for name in dict.fromkeys(names)]
    try:
        with Store.open(settings.store) as opened:
            wanted = opened.meta("adapter") or "none"
        return [] if wanted == "none" else [find_set(wanted, settings.store)]
    except (StoreError, ModelMissing) as error:
        say(f"no adapters: {error}")
        return []
