"""The commands. Each parses, calls one function and prints; what it needs is imported inside, so that `--help` is
instant.

Exit codes: 0 done, 1 a problem of data, store or model (one line on stderr says which and what mends it), 2 wrong
usage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from recgraph import ask, chat, measure, sharing, upkeep
from recgraph.errors import ModelMissing, RecgraphError, SettingsError, UnknownUser
from recgraph.http import serve
from recgraph.llm import command as llm_command
from recgraph.options import consoles, json_option, limit_option, open_store, store_option
from recgraph.protocols.command import mcp
from recgraph.terminal import json_text, plain, printable, say


class _Group(click.Group):
    """Turns recgraph's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RecgraphError as error:
            say(f"recgraph: {error}", fg="red", err=True)
            ctx.exit(2 if isinstance(error, (SettingsError, UnknownUser)) else 1)
        except ModuleNotFoundError as error:
            say(f"recgraph: {_without(error)}", fg="red", err=True)
            ctx.exit(1)
        except click.ClickException as error:  # it quotes what was typed, which may be pasted from anywhere
            vars(error)["message"] = printable(error.message)  # click says that it is final
            raise


# What an import is called, by the extra of pyproject.toml that brings it.
_EXTRAS = {
    "local": ("torch", "transformers", "peft", "gguf", "safetensors", "tokenizers"),
    "vllm": ("langchain_openai", "openai"),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "limits", "mcp", "ucp_sdk"),
    "chat": ("langchain",),
    "agui": ("ag_ui_langgraph", "ag_ui"),
    "train": ("accelerate", "bitsandbytes", "datasets", "dvc", "ruamel", "sentence_transformers", "trl"),
    "scale": ("duckdb_extension_quack", "duckdb_extension_httpfs", "ray"),
}


def _without(error: ModuleNotFoundError) -> str:
    """What to install: the extra that brings it, or recgraph again where none does. The error itself where it is one of
    recgraph's own modules."""
    if not error.name or error.name.startswith("recgraph"):
        raise error
    extra = next((extra for extra, names in _EXTRAS.items() if error.name.partition(".")[0] in names), "")
    wanted = f"'recgraph[{extra}]'" if extra else "recgraph"
    return f"This needs the Python package '{error.name}': pip install {wanted}"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recgraph")
def main() -> None:
    """A recommender for shops whose products carry text.

    \b
    Try it:     recgraph demo && recgraph run --user U123
    See it:     recgraph serve, then http://127.0.0.1:8080
    Your data:  recgraph ingest FILES --dry-run, then without --dry-run
    Trouble:    recgraph doctor

    What answers (store, llm, llm_url, adapter, mode, k, deadline, ...) can also be set in recgraph.toml in this
    folder, or in the environment as RECGRAPH_LLM and so on; an option comes before both.
    """


@main.command()
@store_option
@click.option("--seed", type=int, default=7, show_default=True, help="the same seed makes the same shop")
def demo(store: str | None, seed: int) -> None:
    """Make a simulated fashion shop to try recgraph on.

    About 2,000 shoppers, 4,000 products and 60,000 searches, clicks and purchases over a year, with parts that were
    trained on it. Shopper U123 is a good first one. Another seed makes another shop, without trained parts.
    """
    from recgraph import panel
    from recgraph.settings import load_settings
    from recgraph.tools.trained import in_words
    from recgraph.train.shop.parts import give
    from recgraph.train.shop.year import NAME, make_demo

    console, screen = consoles()
    path = load_settings(store=store).store
    trained: dict[str, Any] = {}
    missing = ""
    with panel.bars(screen) as progress:
        make_demo(path, seed=seed, progress=progress)
        try:
            trained = give(path)
        except ModelMissing as error:
            missing = str(error)
        except ModuleNotFoundError as error:
            missing = _without(error)
        try:
            encoder = _make_ready(path, progress)[1]  # so that the first run answers at once
            if trained and encoder != trained["titles"]["model"]:
                missing = f"They read the texts of {trained['titles']['model']}; the encoder here is {encoder}."
        except ModelMissing as error:
            missing = f"The titles are not embedded: {error}"
        except ModuleNotFoundError as error:
            missing = f"The titles are not embedded. {_without(error)}"
    with open_store(store) as opened:
        console.print(panel.demo(f"{NAME}, seed {seed}", path, opened.counts(), in_words(trained), missing))
    where = f" --store {store}" if store else ""
    say(f'Next: recgraph run --user U123 --query "chunky wool cardigan"{where}')
    say(f"      recgraph serve{where}   (a page in the browser)")
    say(f"      recgraph users{where}   (who else shops there)")


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", metavar="FORMAT", default="", help="what the files are  [default: auto]")
@click.option(
    "--map", "mapping", multiple=True, metavar="COLUMN=NAME", help="what a column or value means; as often as needed"
)
@click.option("--encoding", metavar="NAME", default="", help="of text files, where it is not told right, e.g. cp1252")
@click.option("--dry-run", is_flag=True, help="show how the files would be read, and write nothing")
@click.option("--complete", is_flag=True, help="this is the whole catalogue: what it no longer lists is off sale")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="for another ingest to end, and for readers",
)
@store_option
def ingest(
    paths: tuple[Path, ...], form: str, mapping: tuple[str, ...], dry_run: bool, store: str | None, **how: Any
) -> None:
    """Load raw logs and catalogues into the store.

    PATH... are files or folders: CSV, JSON, XML, Excel or Parquet, packed or not. What they are and what their columns
    mean is found out and said; look first with --dry-run.

    \b
    --map items.title=Bezeichnung         your name of a column
    --map events.item_id=object.id        a path inside JSON
    --map events.user_id=1                a number in a file without header
    --map events.action==purchase         the same for all rows
    --map events.action:view=click        your name of an action; =ignore
    --map events.ts:format=%d/%m/%Y       how times are written
    --map items.price:decimal=,           the decimal mark

    FORMAT is one of: auto, tables, sequences, amazon-2014, amazon-2018, amazon-2023, amazon-m2, mind, recbole,
    open-ecommerce, uci-eshop, instacart. It may also stand before the paths.

    Loading the same file again changes nothing; a killed load leaves the store as it was. Bad rows are kept apart
    (recgraph rejects); where they are more than a fifth, the exit code is 1.
    """
    from recgraph import panel
    from recgraph.settings import load_settings
    from recgraph.store.ingest.load import FORMATS, preview
    from recgraph.store.ingest.load import ingest as load

    console, _ = consoles()
    given = [str(path) for path in paths]
    if not form and given[0] in FORMATS and not Path(given[0]).exists():
        form, given = given[0], given[1:]
    if not given:
        raise SettingsError(f"No files: recgraph ingest {form} PATH...")
    if dry_run:
        console.print(
            panel.previewed(preview(form or "auto", given, mapping=_renamed(mapping), encoding=how["encoding"]))
        )
        return
    path = load_settings(store=store).store
    report = load(path, form or "auto", given, mapping=_renamed(mapping), progress=_waiting, **how)
    console.print(panel.ingested(report, path))
    if report.alarming:
        raise SystemExit(1)


def _renamed(mapping: tuple[str, ...]) -> dict[str, str]:
    """--map as a dictionary: "events.user_id=customer" names a column, "events.action:view=click" a value."""
    renamed: dict[str, str] = {}
    for pair in mapping:
        column, equals, name = pair.partition("=")
        if not equals or "." not in column:
            raise SettingsError(f"--map is '{pair}'; write TABLE.COLUMN=NAME, e.g. events.user_id=customer.")
        renamed[column] = name
    return renamed


def _waiting(step: str) -> None:
    if step.startswith("waiting"):
        say(step, err=True)


def _make_ready(store: str | None, progress: Any) -> tuple[dict[str, int], str]:
    """Embeds and fits what a run needs; the store's counts, and the encoder's name."""
    from recgraph.graph.recommender import Recommender

    with Recommender.open(store, llm="none", progress=progress) as recommender:
        recommender.warm_up()
        return recommender.store.counts(), recommender.encoder.name


@main.command()
@store_option
def build(store: str | None) -> None:
    """Compute embeddings and the query memory before the first run.

    `recgraph run` does the same when something is missing, as far as half of its deadline allows.
    """
    from recgraph import panel

    console, screen = consoles()
    with panel.bars(screen) as progress:
        counts, _ = _make_ready(store, progress)
    ready = {"items": "items", "queries": "distinct queries", "embeddings": "embeddings stored"}
    console.print(f"Ready: {', '.join(f'{counts[name]:,} {what}' for name, what in ready.items())}.")


@main.command()
@click.option("--like", metavar="TEXT", default="", help="part of the user id")
@limit_option(20, "at most so many")
@json_option
@store_option
def users(like: str, limit: int, as_json: bool, store: str | None) -> None:
    """List users, the most active first."""
    from recgraph import panel

    with open_store(store) as opened:
        rows, total = opened.users(limit=limit, like=like), opened.counts()["users"]
    if as_json:
        click.echo(json_text([plain(row) for row in rows]))
        return
    consoles()[0].print(panel.users(rows))
    if len(rows) < total:
        say(f"{len(rows):,} of {total:,} users. Others: --like PART_OF_ID, --limit N")


@main.command()
@click.option("--user", metavar="ID", required=True, help="whose; recgraph users lists them")
@limit_option(40, "the newest so many")
@click.option("--as-of", metavar="TIME", help="only what happened before: 2025-06-01, or an event number")
@json_option
@store_option
def history(user: str, limit: int, as_of: str | None, as_json: bool, store: str | None) -> None:
    """Show what a user did, oldest first, with event numbers."""
    from recgraph import panel
    from recgraph.store.records import parse_time

    moment = parse_time(as_of) if as_of else None
    with open_store(store) as opened:
        opened.require_user(user)
        events = opened.history(user, moment, limit)
        known = opened.items(sorted({event.item_id for event in events if event.item_id}))
    if as_json:
        titles = {item_id: item.name for item_id, item in known.items()}
        click.echo(json_text([{**plain(event), "title": titles.get(event.item_id, "")} for event in events]))
        return
    console = consoles()[0]
    for event in events:
        console.print(panel.event_line(event, known, with_id=True), no_wrap=True, overflow="ellipsis")


@main.command()
@click.option("--like", metavar="TEXT", default="", help="words in id, title, brand, colour or category")
@click.option("--category", metavar="NAME", default="", help="part of the category")
@limit_option(20, "at most so many")
@json_option
@store_option
def items(like: str, category: str, limit: int, as_json: bool, store: str | None) -> None:
    """List products of the catalogue."""
    from recgraph import panel

    with open_store(store) as opened:
        rows = opened.find_items(like=like, category=category, limit=limit)
        currency = opened.meta("currency") or ""
    console = consoles()[0]
    if as_json:
        click.echo(json_text([plain(item) for item in rows]))
    else:
        console.print(panel.products(rows, currency, console.width))


@main.command()
@click.argument("folder")
@click.option("--before", metavar="TIME", help="only what happened before: 2025-06-01, or an event number")
@store_option
def export(folder: str, before: str | None, store: str | None) -> None:
    """Write the store as a folder of sorted Parquet files.

    FOLDER may be one of object storage: s3://bucket/shop (pip install s3fs). The same content gives the same bytes.
    The training pipeline takes such a folder: dvc exp run -S data=FOLDER
    """
    from recgraph.store import snapshot
    from recgraph.store.files.objects import shown
    from recgraph.store.records import parse_time

    with open_store(store) as opened:
        rows = snapshot.write(opened, folder, parse_time(before) if before else None)
    say(f"{shown(folder)}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))


@main.command()
@click.argument("stage", metavar="STAGE")
@click.option(
    "--task",
    metavar="NAME",
    default="",
    help="for the stage sft: recommend, summarize, next or fit  [default: the first two]",
)
@click.option(
    "--folder",
    metavar="FOLDER",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="where params.yaml is  [default: this one]",
)
def train(stage: str, task: str, folder: Path) -> None:
    """Run one stage of the training pipeline.

    STAGE is one of: shop, prepare, summarize, id_embeddings, title_embeddings, memory, textformer, ranking, examples,
    sft, evaluate, publish, parts. Its settings are the block of its name in params.yaml.

    All of them in order, and only what has changed: dvc repro
    """
    from recgraph.train.pipeline import run_stage

    run_stage(stage, folder, task, note=lambda text: click.echo(text, err=True))


@main.group()
def adapters() -> None:
    """List, inspect, compare and choose LoRA adapters.

    A set is a folder adapters/SET with the adapters recommend (tasks next and fit) and summarize; next and fit may also
    have one each. Sets are looked for beside the store, in the current folder and in recgraph's own checkout; a SET may
    also be given as a folder, or as one adapter of it: default/summarize.
    """


@adapters.command("list")
@store_option
def list_adapters(store: str | None) -> None:
    """List the sets there are, the store's default marked."""
    from recgraph import tables
    from recgraph.settings import load_settings
    from recgraph.store.db import Store
    from recgraph.tools.llm.adapter_sets import all_sets, base_here, problem

    settings, default = load_settings(store=store), ""
    if Path(os.path.expanduser(settings.store)).exists():
        with Store.open(settings.store) as opened:
            default = opened.meta("adapter") or ""
    base = None if settings.llm_url or settings.llm == "none" else base_here(settings.llm, settings.cache_folder)
    sets = all_sets(settings.store)
    problems = {one.name: problem(one, base) for one in sets}
    consoles()[0].print(tables.listed(sets, settings.adapter or default, problems))


@adapters.command()
@click.argument("name", metavar="SET")
@store_option
def show(name: str, store: str | None) -> None:
    """Show what a set was trained on, how, and what it brought."""
    from recgraph import tables
    from recgraph.settings import load_settings
    from recgraph.tools.llm.adapter_sets import find_set

    consoles()[0].print(tables.shown(find_set(name, load_settings(store=store).store)))


@adapters.command()
@click.argument("first", metavar="SET")
@click.argument("second", metavar="SET")
@store_option
def compare(first: str, second: str, store: str | None) -> None:
    """Show settings, data and metrics of two sets side by side."""
    from recgraph import tables
    from recgraph.settings import load_settings
    from recgraph.tools.llm.adapter_sets import find_set

    place = load_settings(store=store).store
    consoles()[0].print(tables.side_by_side(find_set(first, place), find_set(second, place)))


@adapters.command()
@click.argument("name", metavar="SET")
@click.option("--llm", metavar="MODEL", help="base model that the set has to fit")
@store_option
def use(name: str, llm: str | None, store: str | None) -> None:
    """Make a set the store's default; `none` for no set.

    A set that is not there, or was trained for another base model, is refused.
    """
    from recgraph.settings import load_settings
    from recgraph.store.db import Store
    from recgraph.tools.llm.open import keep_default

    settings = load_settings(store=store, llm=llm)
    with Store.open(settings.store) as opened:
        server = (settings.llm_url, settings.llm_api_key)
        kept = keep_default(opened, name, settings.llm, *server, cache=settings.cache_folder)
    taken = f"the adapters {kept}" if kept != "none" else "no adapters"
    say(f"{settings.store} now takes {taken}. To ask the model: recgraph run --llm default; for one run: --adapter SET")


@main.command()
@click.option("--deep", is_flag=True, help="also read every file: store, run log, checkpoints, snapshots, indexes")
@click.option("--mend", is_flag=True, help="with --deep: mend what can be, and sweep what killed commands left")
@upkeep.checkpoint_option
@store_option
def doctor(deep: bool, mend: bool, checkpoints: tuple[Path, ...], store: str | None) -> None:
    """Say what works on this machine, and what mends the rest.

    What --mend finds damaged is set aside as NAME.damaged, never deleted.

    Exit code 1 where something that is needed does not work.
    """
    from recgraph.doctor import examine as surgery
    from recgraph.settings import load_settings

    if (mend or checkpoints) and not deep:
        raise SettingsError("--mend and --checkpoint belong to --deep: recgraph doctor --deep --mend")
    settings = load_settings(store=store)
    found = surgery.deep(settings, checkpoints, mend) if deep else []
    checks = surgery.checks(settings) + found
    consoles()[0].print(surgery.report(checks))
    if any(check.ok is False for check in checks):
        raise SystemExit(1)


for command in (
    ask.run,
    ask.batch,
    ask.understand,
    ask.replay,
    upkeep.rejects,
    upkeep.forget,
    upkeep.prune,
    measure.evaluate,
    chat.chat,
    measure.leaderboard,
    measure.tune,
    measure.ablate,
    sharing.store,
    mcp,
    serve.serve,
    serve.keys,
    llm_command.llm,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
