"""The commands that keep a store in order: `rejects` shows what could not be loaded, `forget` takes out a shopper or a
product, `prune` old runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from recgraph.options import consoles, json_option, open_store, store_option
from recgraph.terminal import json_text, plain, printable, say


@click.command()
@click.option(
    "--limit", type=click.IntRange(0, 100_000), default=20, show_default=True, help="so many rows after the counts"
)
@click.option("--reason", default="", metavar="TEXT", help="only rows whose reason holds this")
@json_option
@store_option
def rejects(limit: int, reason: str, as_json: bool, store: str | None) -> None:
    """Show what could not be loaded: counts by reason, then rows."""
    from recgraph import panel

    with open_store(store) as opened:
        reasons, rows = opened.reject_reasons(reason), opened.rejects(limit, reason)
    if as_json:
        click.echo(json_text({"reasons": [plain(one) for one in reasons], "rows": [plain(row) for row in rows]}))
        return
    consoles()[0].print(panel.rejected(reasons, rows))


checkpoint_option = click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="a checkpoint file that is not in the store's folder; as often as needed",
)


@click.command()
@click.option("--user", default="", metavar="ID", help="a shopper, with all that is kept of them")
@click.option("--item", default="", metavar="ID", help="a product: off the catalogue, with its texts and vectors")
@click.option("--yes", is_flag=True, help="do not ask")
@checkpoint_option
@store_option
def forget(user: str, item: str, yes: bool, checkpoints: tuple[Path, ...], store: str | None) -> None:
    """Take a shopper or a product out of the store. It cannot be undone.

    A shopper goes out of events, summaries, rejected rows, what their searches showed, stored queries that were theirs
    alone, the run log and checkpoints; the files are written anew, so that nothing stays in freed blocks. What is
    trained next does not know them. Snapshots and adapters made earlier may; they are named.

    Exit code 1 where nothing was known by that id. Reading the files again that name them brings them back: take them
    out there first.
    """
    from recgraph.errors import SettingsError
    from recgraph.store.forget import forget_item, forget_user, holders

    if bool(user) == bool(item):
        raise SettingsError("Say whom or what to forget: --user ID or --item ID, one of them.")
    what = f"shopper {user}" if user else f"product {item}"
    with open_store(store) as opened:
        if not yes:
            click.confirm(printable(f"Take {what} out of {opened.path}? This cannot be undone."), abort=True)
        gone = forget_user(opened, user, checkpoints) if user else forget_item(opened, item)
        adapters = opened.meta("adapter") or ""
        path = opened.path
    told = ", ".join(f"{count:,} {name}" for name, count in gone.items() if count)
    say(f"{what}: {told or 'nothing was known by that id'}.")
    kept = holders(path, [Path()]) + ([f"adapters {adapters}, if they learnt of this shop"] if adapters else [])
    if user and told and kept:
        say(f"Made earlier, and may still hold {user}:")
        for one in kept:
            say(f"  {one}")
        say("Export snapshots again (recgraph export FOLDER) and train again (dvc repro), or delete them.")
    if not told:
        raise SystemExit(1)


@click.command()
@click.option("--runs-older-than", "age", required=True, metavar="AGE", help="e.g. 30d, 12h, 8w")
@checkpoint_option
@store_option
def prune(age: str, checkpoints: tuple[Path, ...], store: str | None) -> None:
    """Delete old runs from the run log and from checkpoint files.

    Files in the store's folder are found; they are written anew, so that nothing of the runs stays in them.
    """
    from recgraph.settings import load_settings
    from recgraph.store.care import checkpoints as files
    from recgraph.store.care import runlog

    older = _span(age)
    path = Path(load_settings(store=store).store)
    gone = runlog.prune(path, older)
    resumable = sum(files.prune(one, older) for one in dict.fromkeys([*checkpoints, *files.files_beside(path)]))
    say(f"Deleted {gone:,} runs and {resumable:,} checkpointed ones that are older than {age}.")


def _span(text: str) -> timedelta:
    """30d, 12h or 8w as a span of time."""
    from recgraph.errors import SettingsError

    units = {"h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 6 and unit in units):
        raise SettingsError(f"--runs-older-than is '{text}'; write a number and h, d or w, e.g. 30d.")
    return timedelta(**{units[unit]: int(number)})
