"""One clock for all that a request does: a shopper with no end of events, and a language model that is slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from fakes import SHOP_EXPOSURES, SHOP_ITEMS, START, FakeEncoder, FakeLLM

from recgraph.graph.nodes import MOST_EVENTS
from recgraph.graph.recommender import Recommender
from recgraph.graph.state import RunContext
from recgraph.settings import Settings
from recgraph.store.db import Store

ITEMS = ("S1OLIV", "S1NAVY", "S1SAND", "K1GREY", "K2OLIV", "B2BLCK")


def bot(count: int) -> list[str]:
    """A purchase of brown boots a long time ago, then nothing but clicks."""
    lines = ["user_id,ts,action,item_id,query,position", f"BOT,{START},purchase,B1BRWN,,"]
    lines += [f"BOT,{START + timedelta(minutes=n)},click,{ITEMS[n % len(ITEMS)]},," for n in range(1, count)]
    return [*lines, f"ONE,{START},click,S1OLIV,,", f"ONE,{START},click,S1NAVY,,"]


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["recurrent", "hierarchical"])
def test_a_bot_is_answered_as_fast_as_a_shopper(make_store: Callable[..., Store], paradigm: str) -> None:
    """12,000 clicks took over 150 s with a deadline of 5 s."""
    store = make_store(SHOP_ITEMS, bot(6000), SHOP_EXPOSURES)
    settings = Settings(store=str(store.path), paradigm=paradigm, k=10)
    with Recommender(store, settings, FakeEncoder(), None) as recommender:  # type: ignore[arg-type]
        recommender.recommend("ONE")
        started = time.process_time()
        found = recommender.recommend("BOT")
        assert time.process_time() - started < 1.5
        assert len(found.history) == MOST_EVENTS
        assert found.summary is not None
        assert "B1BRWN" not in {line.item.item_id for line in found.items}, "bought before what is read"
        assert len(found.items) == 10


def test_the_newest_events_are_read_in_order(make_store: Callable[..., Store]) -> None:
    store = make_store(SHOP_ITEMS, bot(30))
    whole = store.history("BOT")
    assert store.history("BOT", limit=10) == whole[-10:]
    assert store.history("BOT", whole[20].ts, 10) == whole[10:20]
    assert store.history("BOT", limit=30) == store.history("BOT", limit=31) == whole
    assert store.history("BOT", limit=0) == []
    assert store.bought("BOT") == ["B1BRWN"]
    assert store.bought("BOT", START) == []


def test_a_model_is_given_less_than_the_whole_time() -> None:
    now = time.monotonic()
    context = RunContext.within(5.0)
    assert context.deadline is not None
    assert 4.7 < context.deadline - now < 4.85
    short = RunContext.within(0.5).deadline
    assert short is not None
    assert short - time.monotonic() > 0.4


def test_the_deadline_reaches_every_call_of_a_model(make_store: Callable[..., Store]) -> None:
    deadlines: list[float | None] = []

    class Noting(FakeLLM):
        def generate(self, *asked, deadline=None, **options):  # type: ignore[no-untyped-def]
            deadlines.append(deadline)
            return super().generate(*asked, **options)

        def score(self, *asked, deadline=None, **options):  # type: ignore[no-untyped-def]
            deadlines.append(deadline)
            return super().score(*asked, **options)

    store = make_store(SHOP_ITEMS, bot(30), SHOP_EXPOSURES)
    settings = Settings(store=str(store.path), summarizer="llm", rerank_weight=1.0)
    with Recommender(store, settings, FakeEncoder(), Noting("Likes linen.")) as recommender:  # type: ignore[arg-type]
        recommender.recommend("BOT", "linen", deadline=30)
    assert len(deadlines) > 3
    assert len(set(deadlines)) == 1
    assert deadlines[0] is not None
