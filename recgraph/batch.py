"""The command `recgraph batch`: recommendations for all shoppers at once, into a folder of Parquet files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recgraph.options import one_thread_an_answer, store_option
from recgraph.terminal import say

if TYPE_CHECKING:
    from recgraph.graph.batch.batch import Pace

_EVERY = 10.0  # seconds between two lines of progress where nobody looks at a bar


@click.command()
@click.option("--users", metavar="FILE", required=True, help="text file with an id a line; all: whom the store knows")
@click.option(
    "--out",
    "folder",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="where the rows go; the same command there goes on",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="processes of this machine, or Ray Data on one or many",
)
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="processes that answer"
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="of each process, that ask a server",
)
@click.option(
    "--shard-size",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="users in a file  [default: 1000, with a model 100]",
)
@click.option(
    "--since-last", is_flag=True, help="answer whoever did something since the batch in DIR; keep all other rows"
)
@click.option("--again", is_flag=True, help="delete the batch in DIR and begin anew")
@click.option("--k", metavar="N", type=click.IntRange(min=1), help="how many products  [default: 10]")
@click.option("--mode", type=click.Choice(["fused", "paper"]), help="as of recgraph run  [default: fused]")
@click.option("--deadline", type=float, metavar="SECONDS", help="of each answer with a model  [default: 30]")
@click.option("--llm", metavar="MODEL", help="base model: folder or hub id; `none`: from retrieval alone")
@click.option("--llm-url", metavar="URL", help="vLLM server, e.g. http://127.0.0.1:8000/v1")
@click.option("--adapter", metavar="SET", help="adapter set: its name, its folder, or `none`")
@store_option
def batch(users: str, folder: Path, **given: Any) -> None:
    """Recommend to all shoppers at once, each with ten products and reasons.

    DIR gets part-*.parquet, a row a product. What is whole there is not made again: after a kill the same command goes
    on. A batch of another store or of other settings is not touched unless you say how.

    Who is unknown to the store stands in unknown.csv.
    """
    one_thread_an_answer()  # before numpy is imported; workers inherit it
    from recgraph.graph.batch.batch import Asked, run
    from recgraph.settings import load_settings

    of_batch = {name: given.pop(name) for name in ("engine", "workers", "threads", "shard_size", "since_last", "again")}
    settings = load_settings(**given)
    asked = Asked(folder, None if users == "all" else Path(users), **of_batch)
    manifest, whom = run(asked, settings, _telling())
    counts = manifest.counts
    if whom.unknown:
        more = ", …" if whom.unknown > len(whom.some_unknown) else ""
        say(
            f"{whom.unknown:,} unknown users: {', '.join(whom.some_unknown)}{more}. All: {folder / 'unknown.csv'}",
            err=True,
        )
    kept = f", {counts['kept']:,} of them kept" if counts["kept"] else ""
    say(f"{folder}: {counts['users']:,} users{kept}, {counts['rows']:,} rows in {whom.shards:,} files")
    if counts["empty"]:
        say(f"{counts['empty']:,} users have nothing left that could be recommended.")
    if counts["degraded"]:
        say(f"{counts['degraded']:,} users were answered without something; the column `degraded` says what.")


def _telling() -> Callable[[Pace], None]:
    """Tells how far it is, in a line every ten seconds at most."""
    last = [time.monotonic()]

    def tell(pace: Pace) -> None:
        if time.monotonic() - last[0] < _EVERY:
            return
        last[0] = time.monotonic()
        left = f", {_span(pace.left)} left" if pace.left else ""
        say(f"{pace.done:,} of {pace.of:,} users, {pace.a_second:,.1f} a second{left}", err=True)

    return tell


def _span(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h, 12 days."""
    for unit, size in (("days", 86400 * 3), ("h", 7200), ("min", 120)):
        if seconds >= size:
            each = {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{seconds / each:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds:.0f} s"
