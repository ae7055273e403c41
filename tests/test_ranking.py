"""The reader of pools and the ranker over them, on sources that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from recgraph.store.db import Store
from recgraph.tools.ranking import LearntRanking, PoolReader, Ranker
from recgraph.tools.sources.base import Request, Said, Source
from recgraph.tools.sources.registry import SOURCES, SourceEntry
from recgraph.tools.sources.said import Dense
from recgraph.tools.taste import TASTES, taste
from recgraph.tools.wish.facets import FEATURES, Facets
from recgraph.tools.wish.wish import Price, Wish

NOBODY = np.zeros(0, np.int64)
WISH = 2 + 4  # where what is read of a wish begins, after one source
ANYTHING = np.ones(6, np.bool_)
SHIRTS = (
    "item_id,title,category,color,price\nA,Black Shirt,Shirts,Black,10\nB,Red Shirt,Shirts,Red,20\nC,Black Boots,Boots,Black,90\n"
    "D,Red Boots,Boots,Red,80\nE,Green Lamp,Lamps,Green,30\nF,Black Lamp,Lamps,Black,40"
)


@dataclass
class Told:
    """A source with a score for each item."""

    scores: Sequence[float]

    def ask(self, asked: Sequence[Request]) -> Said:
        return Dense(np.repeat(np.array(self.scores, np.float32)[None], len(asked), axis=0))


def reader(pool: int = 6, facets: Facets | None = None, depth: int = 6, **sources: Sequence[float]) -> PoolReader:
    made: dict[str, Source] = {name.replace("_", "-"): Told(scores) for name, scores in sources.items()}
    return PoolReader(made, np.arange(6), depth, pool, True, facets)


def network(reads: Sequence[str], believes: str, numbers: int | None = None) -> LearntRanking:
    """One that says the height of one source, and nothing else."""
    size = 2 * len(reads) + 4 + len(FEATURES) + len(TASTES) if numbers is None else numbers
    straight = np.zeros((1, size), np.float32)
    straight[0, list(reads).index(believes)] = 1.0
    weights = {"mean": np.zeros(size, np.float32), "deviation": np.ones(size, np.float32), "0.straight": straight}
    weights |= {"0.first": np.zeros((1, size), np.float32), "0.second": np.zeros((1, 1), np.float32)}
    weights |= {f"0.{name}": np.zeros(1, np.float32) for name in ("first_bias", "second_bias", "last_bias")}
    weights["0.last"] = np.zeros((1, 1), np.float32)
    return LearntRanking(tuple(reads), weights, {"networks": 1})


def order(ranker: Ranker, one: Request | None = None) -> list[int]:
    [(_, _, ranked)] = ranker.first(one or Request(NOBODY), ANYTHING, 6)
    return list(ranked.rows.tolist())


@pytest.fixture
def facets(make_store: Callable[..., Store]) -> Facets:
    return Facets.of(make_store(SHIRTS))


# -- pools -------------------------------------------------------------------------------------------------------------


def test_a_pool_is_what_sources_propose_and_no_more_than_its_size() -> None:
    wide = reader(popularity=[9, 8, 0, 0, 0, 0], viewed=[0, 9, 8, 0, 0, 0]).read([Request(NOBODY)])
    assert wide.items[0].tolist() == [0, 1, 2]
    assert wide.votes[0].tolist() == pytest.approx([1 / 20, 1 / 21 + 1 / 20, 1 / 21])
    narrow = reader(pool=2, popularity=[9, 8, 0, 0, 0, 0], viewed=[0, 9, 8, 0, 0, 0]).read([Request(NOBODY)])
    assert narrow.items[0].tolist() == [0, 1]


def test_an_item_that_a_source_cannot_rank_stands_at_its_mean() -> None:
    """It stood below all others once, and cold products with it."""
    pools = reader(popularity=[1, 1, 1, 1, 1, 0], core=[3, 2, 1, 0, -1, -np.inf]).read([Request(NOBODY)])
    cold = pools.read[0, pools.items[0].tolist().index(0)]
    assert cold[1] > 0
    pools = reader(popularity=[0, 0, 0, 0, 0, 1], core=[3, 2, 1, 0, -1, -np.inf]).read([Request(NOBODY)])
    assert pools.read[0, pools.items[0].tolist().index(5), 1] == 0


def test_places_without_an_item_say_nothing() -> None:
    pools = reader(popularity=[1, 0, 0, 0, 0, 0], viewed=[0, 0, 0, 0, 0, 0]).read([Request(NOBODY), Request(NOBODY)])
    empty = pools.votes == 0
    assert not pools.read[empty].any()
    assert pools.items.shape == (2, 1)


def test_what_may_not_be_shown_is_in_no_pool() -> None:
    allowed = np.array([[False, True, True, True, True, True]])
    assert 0 not in reader(popularity=[9, 8, 7, 0, 0, 0]).read([Request(NOBODY)], allowed).items


# -- what a wish does --------------------------------------------------------------------------------------------------


def test_levels_are_by_how_much_of_the_named_fits_and_within_the_hard(facets: Facets) -> None:
    wish = Wish({"color": ("Black",), "category": ("Boots",)}, price=Price(at_most=80))
    levels = list(reader(facets=facets, popularity=[1] * 6).levels(wish, ANYTHING))
    # C fits both and is too dear
    assert [(fit, np.flatnonzero(level).tolist()) for fit, level in levels] == [(1, [0, 3, 5]), (0, [1, 4])]


def test_lessons_are_among_the_levels_that_fill_an_answer(facets: Facets) -> None:
    some, wish = reader(facets=facets, popularity=[1] * 6), Wish({"color": ("Black",), "category": ("Boots",)})
    assert [np.flatnonzero(some.leading(wish, ANYTHING, enough)).tolist() for enough in (1, 2, 5)] == [
        [2],
        [0, 2, 3, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    assert some.leading(None, ANYTHING, 1).all()


def test_the_evaluator_gets_what_fits_first_too(facets: Facets) -> None:
    ranker = Ranker(reader(facets=facets, popularity=[6, 5, 1, 4, 2, 3]))
    scores = ranker.scores([Request(NOBODY, wish=Wish({"category": ("Boots",)}))], ANYTHING[None] & (np.arange(6) > 0))
    assert np.argsort(-scores[0], kind="stable").tolist()[:3] == [3, 2, 1]
    assert scores[0, 0] == -1


def test_how_much_of_a_wish_fits_is_read(facets: Facets) -> None:
    wish = Wish({"color": ("Black",), "category": ("Boots",)})
    some = reader(facets=facets, popularity=[9, 8, 7, 0, 0, 0])
    pools = some.read([Request(NOBODY, wish=wish), Request(NOBODY)])
    assert pools.read[0, :, WISH].tolist() == [0.5, 0.0, 1.0]
    assert not pools.read[1, :, WISH:].any()


def test_what_a_shopper_had_is_read_off_what_an_item_is_like(facets: Facets) -> None:
    """A is of the colour of one half of the history and of the category of all of it, and costs as much as the mean."""
    found = taste(facets, np.array([0, 1]), np.array([0, 2, 4]))
    told = {name: found[:, TASTES.index(name)].tolist() for name in ("category", "color", "price")}
    newer, older = 1 / 1.95, 0.95 / 1.95
    assert told["category"] == pytest.approx([1, 0, 0])
    assert told["color"] == pytest.approx([older, older, 0])
    assert told["price"][0] == pytest.approx(0.5**newer)
    assert not taste(facets, NOBODY, np.array([0])).any()


# -- one fusion --------------------------------------------------------------------------------------------------------


def test_without_a_network_votes_are_weighed_by_hand() -> None:
    ranker = Ranker(reader(transitions=[9, 8, 0, 0, 0, 0], query_text=[0, 0, 9, 0, 0, 0]))
    assert order(ranker) == [0, 1, 2]
    assert order(ranker, Request(NOBODY, "boots", fresh=True)) == [2, 0, 1]


def test_what_a_language_model_named_is_compared_and_moves_nothing_that_was_learnt() -> None:
    """Its votes, weighed by hand, cost .035 NDCG@10 on the simulated shop (benchmarks/worth.py)."""
    learnt = network(("popularity", "transitions"), "transitions")
    said = {"popularity": [0, 1, 2, 0, 0, 9], "transitions": [9, 8, 7, 6, 0, 0]}
    alone = Ranker(reader(**said), learnt)
    assert order(alone)[:3] == [0, 1, 2]
    beside = Ranker(reader(**said, id=[0, 0, 0, 0, 9, 0], title=[0, 0, 0, 9, 0, 0]), learnt)
    found = order(beside)
    assert [item for item in found if item != 4] == [item for item in order(alone) if item != 4]
    assert found.index(4) > 0
    [(_, _, ranked)] = beside.first(Request(NOBODY), ANYTHING, 6)
    why = dict(zip(found, beside.why(ranked, range(len(found))), strict=True))
    assert why[4] == ("id", ("id",))
    assert why[0] == ("sequence", ("sequence",))
    assert why[5] == ("popular", ("popular",))


def test_a_learnt_ranking_tells_how_likely_it_holds_each() -> None:
    said = {"popularity": [0, 1, 2, 0, 0, 9], "transitions": [9, 8, 7, 6, 0, 0]}
    [(_, _, ranked)] = Ranker(reader(**said), network(("popularity", "transitions"), "transitions")).first(
        Request(NOBODY), ANYTHING, 6
    )
    assert ranked.chances is not None
    assert ranked.chances.sum() == pytest.approx(1)
    assert sorted(ranked.chances, reverse=True) == ranked.chances.tolist()
    [(_, _, by_hand)] = Ranker(reader(**said)).first(Request(NOBODY), ANYTHING, 6)
    assert by_hand.chances is None


class OfQueries(Told):
    """The same, of requests with a query alone."""

    def ask(self, asked: Sequence[Request]) -> Said:
        return Dense(np.array([self.scores if one.query else [0] * 6 for one in asked], np.float32))


def test_a_request_is_ranked_alike_whoever_is_asked_for_beside_it() -> None:
    """Where another request had something weighed by hand, what a model named alone came last."""
    said = reader(popularity=[0, 1, 2, 0, 0, 9], transitions=[9, 8, 0, 6, 7, 0], id=[0, 0, 9, 0, 0, 0])
    said.sources["memory"] = OfQueries([0, 0, 0, 9, 0, 0])
    ranker = Ranker(said, network(("popularity", "transitions"), "transitions"))
    asked = [Request(NOBODY), Request(NOBODY, "boots", fresh=True)]
    together = [next(steps)[2].rows.tolist() for steps in ranker.first_of(asked, np.stack([ANYTHING] * 2), 6)]
    assert together == [order(ranker, one) for one in asked]


def test_what_alone_holds_the_free_words_of_a_query_comes_first(facets: Facets) -> None:
    """A product just added came 29th for its own title: nobody had taken it yet."""
    ranker = Ranker(reader(facets=facets, popularity=[9, 8, 0, 0, 6, 5]))
    assert order(ranker, Request(NOBODY, "x", wish=Wish(text="nothing")))[:2] == [0, 1]
    assert order(ranker, Request(NOBODY, "green lamp", wish=Wish(text="green lamp")))[:2] == [4, 0]
    assert order(ranker, Request(NOBODY, "lamp", wish=Wish(text="lamp")))[:3] == [4, 5, 0]


def test_a_ranking_learnt_before_there_were_wishes_goes_on_serving() -> None:
    learnt = network(("popularity", "transitions"), "transitions", numbers=2 * 2 + 4)
    ranker = Ranker(reader(popularity=[0, 1, 2, 0, 0, 9], transitions=[9, 8, 7, 6, 0, 0]), learnt)
    assert order(ranker)[:3] == [0, 1, 2]


def test_only_the_first_of_what_was_viewed_and_only_near_neighbours_count() -> None:
    viewed = Ranker(PoolReader({"viewed": Told(np.arange(20.0))}, np.zeros(20), 20, 20, True))
    [(_, _, ranked)] = viewed.first(Request(NOBODY), np.ones(20, np.bool_), 20)
    assert ranked.rows[:5].tolist() == [19, 18, 17, 16, 15]
    assert [viewed._worth(viewed.reader.read([Request(NOBODY)]))[0] > 0][0].sum() == 5
    texts = Ranker(reader(text_knn=[9, 8.9, 2.6, 0, 0, 0], transitions=[0, 0, 0, 0, 0, 9]))
    worth = texts._worth(texts.reader.read([Request(NOBODY)]))[0]
    assert (worth > 0).sum() == 3


def test_a_source_nobody_has_weighed_counts_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "mine", SourceEntry(lambda past: Told([]), "title"))
    ranker = Ranker(reader(mine=[0, 0, 0, 0, 0, 9], transitions=[0, 0, 9, 0, 0, 0]))
    assert order(ranker) == [2, 5]
