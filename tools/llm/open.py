"""Opening an LLM: the server at an address or the model in process, with the adapters of a set; and which set a store
takes by default.

Everything about places, adapters and models is asked of the other modules of this room, none of which knows this one.
How the two kinds of LLM are run is unknown here. Each of them needs packages that a deployment of the other kind goes
without (transformers and peft, or langchain-openai), so each is imported where it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgraph.errors import LLMError, ModelMissing
from recgraph.store.db import Store
from recgraph.tools.llm.adapter_sets import (
    Base,
    all_sets,
    check_fit,
    find_set,
    judging,
    labelled,
    served_names,
    served_weights,
    summarizes,
)
from recgraph.tools.llm.places import INSTALL_LOCAL, find_llm, given_llm
from recgraph.tools.llm.protocol import LLM

if TYPE_CHECKING:
    from recgraph.tools.llm.server import ServerLLM

NONE = "none"  # what a setting says to go without


def open_llm(
    model: str = "",
    url: str = "",
    api_key: str = "",
    adapters: Mapping[str, str] | None = None,
    cache: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> LLM:
    """The LLM to use: the server at `url` if one is given, else the model in process.

    `adapters` maps the names nodes ask for to LoRA folders (in process) or to served model names (server). `note` hears
    of work that takes more than a few seconds (the one conversion). Raises ModelMissing, and LLMUnavailable for a
    server that cannot be reached.
    """
    if url:
        return _open_server(url, model, api_key, adapters)
    folder = find_llm(model, cache, note)
    try:
        from recgraph.tools.llm.local import LocalLLM
    except ModuleNotFoundError as error:
        raise ModelMissing(f"The in-process LLM needs the Python package '{error.name}': {INSTALL_LOCAL}") from None
    return LocalLLM(folder, adapters=adapters)


def _open_server(url: str, model: str, api_key: str, adapters: Mapping[str, str] | None = None) -> ServerLLM:
    """ModelMissing where the client's package is not installed."""
    try:
        from recgraph.tools.llm.server import ServerLLM
    except ModuleNotFoundError as error:
        raise ModelMissing(
            f"The LLM server at {url} needs the Python package '{error.name}': pip install 'recgraph[vllm]'"
        ) from None
    return ServerLLM(url, model=given_llm(model), api_key=api_key, adapters=adapters)


# ── With the adapters of a set ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class InUse:
    """The adapters one recommender asks for. `names` maps a task to the LLM's name of its adapter, `weights` to the
    fingerprint of what answers ("" where a server does not tell); `label` names the set and its weights, "" for none;
    `notes` say what was done without; `summarizes`: its exam says that its summaries can be used; `judging`: what its
    Yes and No are worth in which shop (`adapter_sets.judging`). `later` is there where a server could not be asked: it
    gives what the server has as soon as that is known, until then None."""

    label: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    summarizes: bool = False
    judging: tuple[float, str] | None = None
    later: Callable[[], InUse | None] | None = None

    def odds_in(self, shop: str) -> float | None:
        """What Yes against No counts in a shop; None where nobody measured that there."""
        return self.judging[0] if self.judging and self.judging[1] == shop else None


def open_adapted(
    asked: str,
    default: str | None,
    store: str | Path,
    *,
    model: str = "",
    url: str = "",
    api_key: str = "",
    cache: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[LLM, InUse]:
    """The LLM as `open_llm` opens it, with the adapters `asked` for: a set's name or folder, "none", or "" for the
    store's `default`.

    A default that is not there or does not fit is no error: the base model answers and a note says so. One that was
    asked for and cannot be used raises ModelMissing, or LLMError where a server does not serve it.
    """
    wanted = asked or default or NONE
    if url:
        server = _open_server(url, model, api_key)
        return server, _served(server, wanted, must=bool(asked)) if wanted != NONE else InUse()
    base = find_llm(model, cache, note)
    found, used = None, InUse()
    if wanted != NONE:
        try:
            found = find_set(wanted, store)
            identity = Base.of(base)
            notes = {check_fit(found.name, folder, identity): None for folder in found.adapters.values()}
            said = tuple(f"adapter: {text}" for text in notes if text)
            exams = _exams(found.tasks)
            used = InUse(found.label, found.names, found.weights, said, **exams)
        except ModelMissing as error:
            if asked:
                raise
            found, used = None, InUse(notes=(f"adapter: untrained answers. {error}",))
    folders = {name: str(folder) for name, folder in found.adapters.items()} if found else None
    return open_llm(str(base), adapters=folders, cache=cache), used


def keep_default(
    store: Store, wanted: str, model: str = "", url: str = "", api_key: str = "", *, cache: Path | None = None
) -> str:
    """Makes a set the one that runs over this store take, "none" for no set. Returns what is kept: its name, else its
    folder.

    Raises ModelMissing where the set is not there or is not for the base model, LLMError where the server does not
    serve it. Writes meta.
    """
    kept = wanted
    if wanted != NONE and url:
        server = _open_server(url, model, api_key)
        server.connect()
        _served(server, wanted, must=True)
    elif wanted != NONE:
        found, base = find_set(wanted, store.path), Base.of(find_llm(model, cache))
        for folder in found.adapters.values():
            check_fit(found.name, folder, base)
        named = next((one for one in all_sets(store.path) if one.name == found.name), None)
        kept = found.name if named and named.folder.samefile(found.folder) else str(found.folder.absolute())
    with store.writing():
        store.set_meta("adapter", kept)
    return kept


def _served(server: ServerLLM, wanted: str, *, must: bool) -> InUse:
    """What a server serves of a set."""
    if not server.connected:
        note = f"adapter: the LLM server could not be asked for the set '{wanted}' yet; the base model answers."
        return InUse(notes=(note,), later=lambda: _served(server, wanted, must=False) if server.connected else None)
    names = served_names(wanted, server.adapters)
    if not names:
        reason = (
            f"The LLM server serves no adapter of the set '{wanted}'; it serves "
            f"{', '.join((server.name, *server.adapters))}. Start it with: recgraph llm serve --adapter {wanted} "
            "(docs/serving-llm.md), or go without: --adapter none."
        )
        if must:
            raise LLMError(reason)
        return InUse(notes=(f"adapter: untrained answers. {reason}",))
    weights = {task: served_weights(name, server.roots.get(name, "")) for task, name in names.items()}
    folders = {task: server.roots[name] for task, name in names.items() if name in server.roots}
    return InUse(labelled(Path(wanted).name, weights), names, weights, **_exams(folders))


def _exams(folders: Mapping[str, str | Path]) -> dict[str, Any]:
    """What the exams of a set say, by the fields of `InUse`, of adapters whose folders can be read here; a card that
    cannot says nothing."""
    found: dict[str, Any] = {}
    for name, task, read in (("summarizes", "summarize", summarizes), ("judging", "fit", judging)):
        with suppress(ModelMissing):
            found |= {name: read(folders[task])} if task in folders else {}
    return found
