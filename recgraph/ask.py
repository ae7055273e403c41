"""The commands that ask: `run` recommends, `batch` to all shoppers at once, `understand` shows what a search is
understood as, `replay` gives a past answer again. Like those of cli.py each parses, calls one function and prints; what
it needs is imported inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recgraph.errors import ModelMissing, SettingsError
from recgraph.options import consoles, json_option, one_thread_an_answer, open_store, store_option
from recgraph.terminal import json_text, say

if TYPE_CHECKING:
    from recgraph.graph.batch.batch import Pace
    from recgraph.graph.recommender import Recommender
    from recgraph.tools.wish.wish import Wish

_EVERY = 10.0  # seconds between two lines of progress where nobody looks at a bar


@click.command()
@click.option("--user", metavar="ID", required=True, help="whom to recommend to; recgraph users lists them")
@click.option("--query", metavar="TEXT", default="", help="what they search for now")
@click.option("--category", metavar="NAME", help="only of this category; as --want category=NAME")
@click.option("--min-price", metavar="N", type=click.FloatRange(min=0), help="nothing that costs less")
@click.option("--max-price", metavar="N", type=click.FloatRange(min=0), help="nothing that costs more")
@click.option("--want", multiple=True, metavar="NAME=VALUE", help="only what has it, e.g. color=black; repeat for or")
@click.option("--not", "avoid", multiple=True, metavar="NAME=VALUE", help="nothing that has it, e.g. brand=X")
@click.option("--k", metavar="N", type=click.IntRange(min=1), help="how many products  [default: 10]")
@click.option("--as-of", metavar="TIME", help="know nothing later: 2025-06-01, or an event number")
@click.option(
    "--paradigm",
    type=click.Choice(["recurrent", "hierarchical"]),
    help="how a long history is summarised  [default: recurrent]",
)
@click.option(
    "--mode",
    type=click.Choice(["fused", "paper"]),
    help="candidates from all sources, or from the two of the paper  [default: fused]",
)
@click.option("--deadline", type=float, metavar="SECONDS", help="answer without the LLM after this  [default: 30]")
@click.option("--new-user", is_flag=True, help="accept someone the store does not know")
@click.option("--json", "as_json", is_flag=True, help="print the public JSON instead of the panel")
@click.option("--llm", metavar="MODEL", help="ask a language model too: folder, hub id or `default`  [default: none]")
@click.option("--llm-url", metavar="URL", help="vLLM server, e.g. http://127.0.0.1:8000/v1")
@click.option(
    "--adapter", metavar="SET", help="adapter set: its name, its folder, or `none`  [default: the store's own]"
)
@click.option(
    "--summarizer",
    type=click.Choice(["auto", "profile", "llm"]),
    help="who writes the summary: profile counts, llm asks the model  [default: auto]",
)
@click.option("--checkpoint", metavar="FILE", default="", help="SQLite file: the same command resumes a killed run")
@store_option
def run(
    user: str, query: str, as_json: bool, new_user: bool, as_of: str | None, checkpoint: str, **settings: Any
) -> None:
    """Recommend products to a user, each with a reason.

    What the query names comes first ("black boots"); what it rules out ("not leather"), its bounds and sizes ("under
    60", "size 42") and the filters below hold for every product. Where too few are left, the answer is shorter and says
    what could give way.

    Retrieval alone answers, in milliseconds. With --llm or --llm-url a language model names a product and judges the
    candidates besides; a failing or slow one never loses the answer, which then says what was missing.
    """
    from recgraph import panel
    from recgraph.graph.recommender import Recommender
    from recgraph.graph.traces.collector import traced
    from recgraph.store.records import parse_time

    console, screen = consoles()
    moment = parse_time(as_of) if as_of else None
    if not new_user:
        with open_store(settings["store"]) as opened:  # before the models are loaded
            opened.require_user(user)
    asked = {name: settings.pop(name) for name in ("k", "paradigm", "mode", "deadline")}
    given = {name: settings.pop(name) for name in ("category", "min_price", "max_price", "want", "avoid")}
    opened_with = {"checkpoint": checkpoint, "mode": asked["mode"], **settings}
    place = opened_with.pop("store")
    with ExitStack() as later:
        with panel.bars(screen) as progress, Recommender.open(place, progress=progress, **opened_with) as recommender:
            later.enter_context(traced(recommender))  # its spans are sent when the answer was shown
            wish = _filters(recommender, **given)
            steps = recommender.stream(user, query, as_of=moment, new_user=new_user, wish=wish, **asked)
            found = panel.follow(steps, progress if screen.is_terminal else None)
            facts = {name: recommender.store.meta(name) or "" for name in ("simulated", "currency")}
            shop = recommender.store.meta("name") or ""
        if as_json:
            click.echo(json_text(found.to_dict()))
        else:
            console.print(panel.recommendation(found, shop=shop, **facts))


def _filters(
    recommender: Recommender,
    category: str | None,
    min_price: float | None,
    max_price: float | None,
    want: tuple[str, ...],
    avoid: tuple[str, ...],
) -> Wish | None:
    """The filters of `run` as a wish; None without any."""
    from recgraph.tools.wish.wish import Price

    wanted, unwanted = _pairs("--want", want), _pairs("--not", avoid)
    if category:
        wanted.setdefault("category", []).append(category)
    price = Price(at_most=max_price, at_least=min_price)
    return recommender.filters(wanted, unwanted, price) if wanted or unwanted or price else None


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, list[str]]:
    """NAME=VALUE options as values by name."""
    found: dict[str, list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise SettingsError(f"{option} is '{pair}'; write NAME=VALUE, e.g. color=black.")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


@click.command()
@click.argument("text", metavar="TEXT")
@click.option("--user", metavar="ID", default="", help="whose history words such as “the boots I bought” mean")
@json_option
@store_option
def understand(text: str, user: str, as_json: bool, store: str | None) -> None:
    """Show what a search is understood as.

    Without a language model, by the shop's own attributes and values; what they do not know stays text to search for.
    """
    from recgraph import panel
    from recgraph.graph.recommender import Recommender

    with Recommender.open(store, llm="none") as recommender:
        wish, currency = recommender.understand(text, user), recommender.currency
    if as_json:
        click.echo(json_text({**wish.to_dict(), "parts": wish.parts(currency)}))
    else:
        consoles()[0].print(panel.understood(wish, currency))


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@click.option("--json", "as_json", is_flag=True, help="print JSON: equal, gone, moved, differences, answer")
@click.option("--llm", metavar="MODEL", help="base model that answered: folder or hub id")
@click.option("--llm-url", metavar="URL", help="vLLM server that answered")
@click.option("--adapter", metavar="SET", help="adapter set that answered  [default: by the name in the run log]")
@store_option
def replay(run_id: str, as_json: bool, store: str | None, **opened_with: Any) -> None:
    """Give a past answer again, and say whether it is the same.

    By what the run log keeps of the request: its words, filters, conversation, moment and settings. The answer is
    compared byte for byte but for its times. What it hung on and is another one now (the store's revision, a model, an
    adapter, recgraph itself) is named; events that came since are hidden.

    Exit code 1 where the answer is another one; it then says which products moved.
    """
    from recgraph import panel, tables
    from recgraph.graph.recommender import Recommender
    from recgraph.graph.replay.past import PastRun
    from recgraph.settings import load_settings
    from recgraph.store.runs import RunLog

    settings = load_settings(store=store, llm=opened_with["llm"])
    past = PastRun.of(RunLog(settings.store).find(run_id))
    opened_with["llm"] = (settings.llm or "default") if past.uses_llm else "none"
    opened_with["adapter"] = opened_with["adapter"] or past.adapter
    console, screen = consoles()
    try:
        with panel.bars(screen) as progress, Recommender.open(store, progress=progress, **opened_with) as recommender:
            given = recommender.replay(run_id)
    except ModelMissing as error:
        raise ModelMissing(f"Run '{run_id}' cannot be given again, a model that answered it is gone. {error}") from None
    if as_json:
        click.echo(json_text(given.to_dict()))
    else:
        console.print(tables.replayed(given))
    if not given.equal:
        raise SystemExit(1)


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
@click.option("--llm", metavar="MODEL", help="ask a language model too: folder, hub id or `default`  [default: none]")
@click.option("--llm-url", metavar="URL", help="vLLM server, e.g. http://127.0.0.1:8000/v1")
@click.option("--adapter", metavar="SET", help="adapter set: its name, its folder, or `none`")
@store_option
def batch(users: str, folder: Path, **given: Any) -> None:
    """Recommend to all shoppers at once.

    DIR gets part-*.parquet, a row a product. What is whole there is not made again: after a kill the same command goes
    on. A batch of another store or of other settings is not touched unless you say how.

    Who is unknown to the store stands in unknown.csv.
    """
    one_thread_an_answer()  # before numpy is imported; workers inherit it
    from recgraph.graph.batch.batch import BatchRequest, run
    from recgraph.settings import load_settings

    of_batch = {name: given.pop(name) for name in ("engine", "workers", "threads", "shard_size", "since_last", "again")}
    settings = load_settings(**given)
    asked = BatchRequest(folder, None if users == "all" else Path(users), **of_batch)
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
        rate = "" if pace.left is None else f", {pace.a_second:,.1f} a second, {_span(pace.left)} left"
        say(f"{pace.done:,} of {pace.of:,} users{rate}", err=True)

    return tell


def _span(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h, 12 days."""
    for unit, size in (("days", 86400 * 3), ("h", 7200), ("min", 120)):
        if seconds >= size:
            each = {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{seconds / each:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds:.0f} s"
