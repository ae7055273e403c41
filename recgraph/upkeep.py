"""The commands that keep a store in order: `rejects` shows what could not be loaded, `forget` takes out a shopper or a
product."""

from __future__ import annotations

import click

from recgraph.options import consoles, json_option, open_store, store_option
from recgraph.terminal import json_text, plain, say


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


@click.command()
@click.option("--user", default="", metavar="ID", help="a shopper: events, summaries, rejected rows, runs")
@click.option("--item", default="", metavar="ID", help="a product: off the catalogue, with its texts and vectors")
@click.option("--yes", is_flag=True, help="do not ask")
@store_option
def forget(user: str, item: str, yes: bool, store: str | None) -> None:
    """Take a shopper or a product out of the store. It cannot be undone.

    Exit code 1 where nothing was known by that id. Reading the files again that name them brings them back: take them
    out there first.
    """
    from recgraph.errors import SettingsError
    from recgraph.store.forget import forget_item, forget_user

    if bool(user) == bool(item):
        raise SettingsError("Say whom or what to forget: --user ID or --item ID, one of them.")
    what = f"shopper {user}" if user else f"product {item}"
    with open_store(store) as opened:
        if not yes:
            click.confirm(f"Take {what} out of {opened.path}? This cannot be undone.", abort=True)
        gone = forget_user(opened, user) if user else forget_item(opened, item)
    told = ", ".join(f"{count:,} {name}" for name, count in gone.items() if count)
    say(f"{what}: {told or 'nothing was known by that id'}.")
    if not told:
        raise SystemExit(1)
