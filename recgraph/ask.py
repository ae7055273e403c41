"""The commands that ask: `run` recommends, `understand` shows what a search is understood as, `replay` gives a past
answer again. Like those of cli.py each parses, calls one function and prints; what it needs is imported inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recgraph.errors import ModelMissing, SettingsError
from recgraph.options import consoles, json_option, open_store, store_option
from recgraph.terminal import json_text

if TYPE_CHECKING:
    from recgraph.graph.recommender import Recommender
    from recgraph.tools.wish.wish import Wish


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
    with panel.bars(screen) as progress, Recommender.open(place, progress=progress, **opened_with) as recommender:
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
