"""The recipe "add a candidate source", followed: a class with `ask`, an entry in the registry, and this test of it.

What a newcomer writes is `Short` and its entry; all else is there already: the stage `ranking` asks every source that
can be made, learns how far to believe it, and serving makes the sources that the learnt ranking names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fakes import FakeEncoder

from recgraph.store.columns import Sequences
from recgraph.store.db import Store
from recgraph.tools.ranking import LearntRanking, Ranker
from recgraph.tools.sources.base import Past, Request, Said
from recgraph.tools.sources.registry import SOURCES, SourceEntry, make, possible
from recgraph.tools.sources.said import Order, Same
from recgraph.train.ranking import Lessons, RankerSettings, learn


class Short:
    """Products with short names first: the new source."""

    def __init__(self, past: Past) -> None:
        self._order = Order(np.array([1 / max(len(name), 1) for name in past.names], np.float32))

    def ask(self, asked: Sequence[Request]) -> Said:
        """The same of each request."""
        return Same(self._order, len(asked))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line in the registry."""
    monkeypatch.setitem(SOURCES, "short-names", SourceEntry(Short, "title", needs=("names",)))


def past(names: Sequence[str]) -> Past:
    """What is known: one user, who had the last item alone."""
    last = np.array([len(names) - 1], np.int32)
    events = Sequences(
        np.zeros(1, np.int32), last, np.array(["2025-01-01"], "datetime64[us]"), np.array([2], np.int8), ["u"]
    )
    return Past(events, names)


NAMES = ("a scarf of finest wool", "boot", "a hat for rainy autumn days", "socks, three pairs")


def test_it_is_asked_wherever_the_past_has_what_it_needs() -> None:
    assert "short-names" in possible(past(NAMES))
    assert "short-names" not in possible(past(("", "")))  # it needs names, and said so
    said = make("short-names", past(NAMES)).ask([Request(np.zeros(0, np.int64))])
    assert said.first(0, 1).tolist() == [1]


def test_the_ranking_learns_to_believe_it_and_answers_with_its_candidates() -> None:
    """Twenty shoppers took what has the shortest name, which nobody had before."""
    known, nobody = past(NAMES), np.zeros(0, np.int64)
    sources = {name: make(name, known) for name in ("popularity", "short-names")}
    asked, target = [Request(nobody)] * 20, np.full(20, 1)
    lessons = Lessons(asked, target, np.arange(20), lambda rows: np.ones((len(rows), len(NAMES)), np.bool_))
    settings = RankerSettings(depth=4, pool=4, hidden=4, epochs=5, networks=1)
    learnt = learn(sources, np.bincount(known.events.item, minlength=len(NAMES)), lessons, settings, lambda _: None)
    assert "short-names" in learnt.sources
    ranker = Ranker.of(learnt, known)
    [(_, _, ranked)] = ranker.first(Request(nobody), np.ones(len(NAMES), np.bool_), 1)
    assert NAMES[ranked.rows[0]] == "boot"
    assert ranker.why(ranked, [0])[0][0] == "title"


def test_what_was_published_with_it_serves_with_it(make_store: Callable[..., Store]) -> None:
    store = make_store("item_id,title\nA,a scarf of finest wool\nB,boot\nC,a hat for rainy days")
    config = {"depth": 3, "pool": 3, "again": True, "networks": 0, "encoder": FakeEncoder.name, "fitted_before": None}
    with store.writing():
        LearntRanking(("popularity", "short-names"), {}, config).publish(store)
    learnt = LearntRanking.published(store)
    assert learnt is not None
    ranker = Ranker.of(learnt, Past(store.sequences(), store.catalogue().names))
    [(_, _, ranked)] = ranker.first(Request(np.zeros(0, np.int64)), np.ones(3, np.bool_), 1)
    assert [store.catalogue().item_ids[row] for row in ranked.rows] == ["B"]
    assert ranker.why(ranked, [0])[0][0] == "title"
