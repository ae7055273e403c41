"""The sources of candidates and the ranking by them, on shops small enough to know the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeEncoder

from recgraph.errors import SettingsError, StoreError
from recgraph.evaluation.baselines.counted import WordKNNSystem, past_of
from recgraph.evaluation.baselines.own import FusedSystem, PaperSystem, trained_former
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.tools.candidates import is_fresh
from recgraph.tools.ranking import LearntRanking
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.sources.base import Past, Request, Source
from recgraph.tools.sources.counted import SessionKNN, SessionKNNSettings, Viewed
from recgraph.tools.sources.makers import MakerTransitions
from recgraph.tools.sources.registry import NAMES, possible
from recgraph.tools.sources.said import whole
from recgraph.tools.sources.text import QueryText, QueryWords, Remembered
from recgraph.tools.sources.words import makers
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary
from recgraph.train.metrics import ndcg, places
from recgraph.train.networks.text import TextSettings
from recgraph.train.params import settings_of
from recgraph.train.ranking import RankerSettings, _RankingNetwork, places_in_pools
from recgraph.train.task import Cases, Events, System, Task, read_task

TEXTS = ("Aveda Oil one", "Aveda Oil two", "Aveda Oil three", "Nivea Soap red", "Nivea Soap blue", "Zest", "")
QUICK = RankerSettings(depth=4, pool=5, hidden=4, epochs=20, patience=20, learning_rate=0.02, networks=2)
NOBODY = np.zeros(0, np.int64)


def cases(histories: Sequence[Sequence[int]], targets: Sequence[int]) -> Cases:
    rows = tuple(np.array(one, np.int64) for one in histories)
    actions, times = (
        tuple(np.full(len(one), 2, np.int8) for one in rows),
        tuple(np.arange(len(one), dtype=np.float64) for one in rows),
    )
    return Cases(
        rows,
        actions,
        times,
        np.array(targets, np.int64),
        np.arange(len(rows)),
        ("",) * len(rows),
        np.full(len(rows), 99.0),
    )


def shop(sequences: Sequence[Sequence[int]], valid: Cases, texts: tuple[str, ...] = TEXTS) -> Task:
    user = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    time = np.concatenate([np.arange(len(one), dtype=np.float64) for one in sequences])
    train = Events(user, np.concatenate(sequences).astype(np.int64), time, np.full(len(user), 2, np.int8))
    ids, n = tuple(f"i{row}" for row in range(len(texts))), len(texts)
    return Task("small", "loo", ids, texts, np.full(n, -1), np.full(n, -np.inf), train, valid, valid, None)


def quiet(message: str) -> None:
    pass


def fitted(system: System, task: Task) -> System:
    system.fit(task, quiet)
    return system


def pair(settings: RankerSettings = QUICK) -> FusedSystem:
    return FusedSystem(settings, Workshop(), ("popularity", "transitions"))


def sources_shop(sequences: Sequence[Sequence[int]], vectors: np.ndarray | None = None) -> Past:
    return past_of(shop(sequences, cases([], [])), vectors)


def scores(source: Source, requests: Sequence[Request]) -> np.ndarray:
    return whole(source.ask(requests), len(TEXTS))


def asked(*histories: Sequence[int]) -> list[Request]:
    return [Request(np.array(one, np.int64)) for one in histories]


SMALL = shop([[0, 1, 2], [0, 1], [3, 0, 1, 4]], cases([[0], [3], [4, 0]] * 20, [1, 0, 1] * 20))


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_user_with_a_like_history_votes_for_what_came_near() -> None:
    settings = SessionKNNSettings(neighbours=1, rarity=0.0, long=0.0, near=0.5, before=0.5)
    found = scores(SessionKNN(sources_shop([[5, 3, 0, 1], [4, 2]]), settings), asked([3, 0], [6]))
    # User 0 shares 0 and 3, 1 + 0.6; item 1 comes one place after 0, item 5 one before 3.
    assert found[0, [1, 5]] == pytest.approx([1.6 * 0.5, 1.6 * 0.5 * 0.5])
    assert found[0, [2, 4]].tolist() == [0, 0]
    assert not found[1].any()  # nobody had it


def test_a_shared_item_of_another_user_is_not_near() -> None:
    found = scores(SessionKNN(sources_shop([[1, 2], [0, 3]])), asked([2]))
    assert found[0].nonzero()[0].tolist() == [1, 2]


def test_names_are_near_by_their_words_and_their_maker() -> None:
    found = fitted(WordKNNSystem(), SMALL).scores(cases([[0], [6]], [1, 1]))
    assert set(np.argsort(-found[0])[1:3]) == {1, 2}
    assert found[0, 5] == 0
    assert not found[1].any()


def test_the_words_of_a_query_find_names() -> None:
    found = scores(
        QueryWords(past_of(SMALL)), [Request(NOBODY, "a RED soap!"), Request(NOBODY, "unheard of"), Request(NOBODY)]
    )
    assert found[0].argmax() == 3
    assert found[0, 4] > 0 == found[0, 0]
    assert not found[1:].any()


def test_a_query_is_near_to_texts_and_leans_to_the_history() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 2]]
    source = QueryText(sources_shop([[0, 1]], vectors))
    found = scores(
        source, [Request(np.array([2]), "x", vectors[4]), Request(np.array([2])), Request(NOBODY, "x", vectors[0])]
    )
    assert found[0].tolist() == pytest.approx([0, 0, 0.3, 0.3, 1, 1, 1])
    assert not found[1].any()  # without a query it has nothing to say
    assert found[2].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_what_was_seen_and_what_is_remembered_are_sources_too() -> None:
    one = Request(np.array([3, 0, 3, 1]), memory=((5, 0.9), (2, 0.4)))
    found = scores(Viewed(sources_shop([[0]])), [one, Request(NOBODY)])
    assert found.tolist() == [[0.5, 1, 0, 0.75, 0, 0, 0], [0] * 7]
    assert scores(Remembered(sources_shop([[0]])), [one])[0].tolist() == pytest.approx([0, 0, 0.4, 0, 0, 0.9, 0])


def test_a_maker_is_the_first_two_words_where_names_share_them() -> None:
    # "aveda oil" three times, "nivea soap" only twice, so "nivea"
    assert makers(TEXTS).tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_what_follows_a_maker_is_found_for_an_item_without_steps() -> None:
    found = scores(MakerTransitions(sources_shop([[0, 3], [1, 3], [2, 5]])), asked([0]))
    assert found[0, 3] > found[0, 4] > found[0, 0] == 0  # nobody took 4, but its maker's 3


def test_sources_are_left_out_where_what_they_read_is_not_there() -> None:
    nameless = Past(past_of(SMALL).events, ("x",) * 7)
    assert set(possible(nameless)) == {
        "popularity",
        "transitions",
        "next-step",
        "two-step",
        "item-knn",
        "session-knn",
        "viewed",
        "memory",
    }
    assert set(possible(past_of(SMALL))) - set(possible(nameless)) == {"word-knn", "query-words", "maker-transitions"}
    assert set(possible(sources_shop([[0]], np.eye(7, dtype=np.float32)))) == set(NAMES) - {"core", "id", "textformer"}


# -- the network -------------------------------------------------------------------------------------------------------


def test_the_network_learns_which_source_to_believe() -> None:
    rng = np.random.default_rng(0)
    # what comes next is the next number; often taken says nothing
    order = [[start, (start + 1) % 30] for start in rng.integers(0, 30, 300)]
    last = rng.integers(0, 30, 200)
    valid = cases([[one] for one in last], [(one + 1) % 30 for one in last])
    task = shop(order, valid, tuple(f"n{number}" for number in range(30)))
    fused = fitted(pair(replace(QUICK, pool=20, depth=20, hidden=8, batch=16)), task)
    assert float(ndcg(places(fused.scores(valid), valid.target), 10).mean()) > 0.99


def test_what_the_network_says_of_an_item_does_not_hang_on_what_a_filter_leaves() -> None:
    """Its rank among what may be shown did: within a category of fashion-purchases NDCG@10 fell from .23 to .13."""
    rng = np.random.default_rng(0)
    order = [[start, (start + 1) % 30] for start in rng.integers(0, 30, 300)]
    last = rng.integers(0, 30, 200)
    valid = cases([[one] for one in last], [(one + 1) % 30 for one in last])
    fused = fitted(
        pair(replace(QUICK, pool=20, depth=20, hidden=8)), shop(order, valid, tuple(f"n{one}" for one in range(30)))
    )
    some = np.tile(np.arange(30) % 5 == 0, (len(valid), 1))
    among_all = fused.served.reader.read(fused.requests(valid))
    left = fused.served.reader.read(fused.requests(valid), some)
    columns = fused.served._columns
    for line in range(len(valid)):
        there = among_all.votes[line] > 0
        known = dict(zip(among_all.items[line, there].tolist(), among_all.read[line, there], strict=True))
        for item, read, vote in zip(left.items[line], left.read[line], left.votes[line], strict=True):
            if vote > 0 and item in known:
                assert known[item][columns].tolist() == read[columns].tolist()


def test_the_network_learns_that_a_query_matters_and_does_without() -> None:
    """Each case searches for the target's own word; asked without a query the popular item stays."""
    rng = np.random.default_rng(1)
    texts = tuple(f"word{number}" for number in range(20))
    target = rng.integers(1, 20, 200)
    valid = replace(
        cases([[int(one)] for one in rng.integers(0, 20, 200)], target.tolist()),
        query=tuple(texts[one] for one in target),
    )
    task = shop([[0, int(one)] for one in rng.integers(1, 20, 100)], valid, texts)
    settings = replace(QUICK, pool=20, depth=20, epochs=20, hidden=16)
    fused = fitted(FusedSystem(settings, Workshop(), ("popularity", "query-words")), task)
    assert isinstance(fused, FusedSystem)
    assert fused.learnt.config["lessons"] == 400  # each with its query and without
    assert float(ndcg(places(fused.scores(valid), valid.target), 10).mean()) > 0.99
    assert fused.scores(replace(cases([[5]], [1]), query=("",)))[0].argmax() == 0


def test_what_no_lesson_told_apart_changes_nothing_later() -> None:
    """No case of SMALL has a query, so what the network would say to one was never learnt: it must say what it says
    without."""
    fused = fitted(pair(), SMALL)
    assert isinstance(fused, FusedSystem)
    plain, searching = asked([0])[0], Request(np.array([0]), "soap", fresh=True)
    assert np.array_equal(fused.served.scores([plain]), fused.served.scores([searching]))


@pytest.mark.slow
def test_two_fits_say_the_same_and_cases_do_not_hang_on_each_other() -> None:
    first, again = (fitted(pair(), SMALL).scores(SMALL.valid) for _ in range(2))
    assert np.array_equal(first, again)
    alone = fitted(pair(), SMALL).scores(SMALL.valid.of(np.array([1])))
    assert alone[0] == pytest.approx(first[1], abs=1e-4)


def test_the_target_is_not_looked_at() -> None:
    fused, some = fitted(pair(), SMALL), cases([[0, 1], [3]], [1, 4])
    assert np.array_equal(fused.scores(some), fused.scores(replace(some, target=np.array([6, 5]))))


def test_a_source_that_says_nothing_is_left_out() -> None:
    told: list[str] = []
    fused = FusedSystem(QUICK, Workshop(), ("popularity", "transitions", "query-words"))
    fused.fit(SMALL, told.append)
    assert fused.learnt.sources == ("popularity", "transitions")
    assert any("nothing is said by query-words" in one for one in told)


def test_without_validation_cases_the_votes_rank() -> None:
    found = fitted(pair(), replace(SMALL, valid=cases([], []))).scores(cases([[0], []], [1, 1]))
    assert found[0].argmax() == 1
    assert np.isfinite(found).all()


def test_what_is_not_listed_yet_is_neither_learnt_nor_ranked() -> None:
    listed = np.where(np.arange(7) == 1, 1000.0, -np.inf)
    fused = fitted(pair(), replace(SMALL, listed=listed))
    found = fused.scores(cases([[0]], [1]))
    assert found[0, 1] == found[0].min() == -1


def test_a_category_is_compared_though_none_of_it_is_in_the_pool_of_all() -> None:
    fused = fitted(pair(replace(QUICK, pool=1)), SMALL)
    asked_of, allowed = cases([[0]], [1]), np.arange(7)[None] >= 2
    best = int(fused.scores(asked_of)[0].argmax())
    assert best < 2
    found = fused.scores_within(asked_of, allowed)[0]
    assert found.argmax() >= 2
    assert found.max() >= 1
    assert (found[:2] == -1).all()


def test_an_answer_says_who_brought_it() -> None:
    fused = fitted(pair(), SMALL)
    assert isinstance(fused, FusedSystem)
    allowed = np.ones(7, np.bool_)
    [(fit, _, ranked)] = fused.served.first(asked([0])[0], allowed, 3)
    assert (fit, ranked.rows[0]) == (0, 1)
    [(source, every)] = fused.served.why(ranked, [0])
    assert (source, set(every)) == ("sequence", {"sequence", "popular"})
    allowed[1] = False
    [(_, _, ranked)] = fused.served.first(asked([0])[0], allowed, 7)
    assert 1 not in ranked.rows


@pytest.mark.slow
def test_a_learnt_ranking_comes_back_from_a_folder_and_from_a_store_as_it_was(
    tmp_path: Path, make_store: Callable[..., Store]
) -> None:
    fused = fitted(pair(), SMALL)
    assert isinstance(fused, FusedSystem)
    learnt = replace(
        fused.learnt, config={**fused.learnt.config, "encoder": "none", "fitted_before": "2025-03-01T00:00:00"}
    )
    learnt.save(tmp_path / "ranking")
    store = make_store("item_id,title\nA,Shirt")
    with store.writing():
        learnt.publish(store)
    read = np.random.default_rng(0).random((5, 2 * 2 + 14), np.float32)
    for back in (
        LearntRanking.load(tmp_path / "ranking"),
        LearntRanking.published(store),
        LearntRanking.published(store, datetime(2025, 3, 1)),
    ):
        assert back is not None
        assert (back.sources, dict(back.config)) == (learnt.sources, dict(learnt.config))
        assert np.array_equal(back.says(read), learnt.says(read))
    assert LearntRanking.published(store, datetime(2025, 2, 28)) is None  # it knows what happened on that day
    with store.writing():
        replace(learnt, config={**learnt.config, "fitted_before": None}).publish(store)
    assert LearntRanking.published(store) is not None
    assert LearntRanking.published(store, datetime(2030, 1, 1)) is None
    with pytest.raises(StoreError, match="recgraph train ranking"):
        LearntRanking.load(tmp_path / "none")


@pytest.mark.slow
def test_a_ranking_that_was_published_under_its_old_name_goes_on_serving(make_store: Callable[..., Store]) -> None:
    """The stage was called `fusion` once, and so was the fact in the stores it was published in."""
    learnt = LearntRanking(("popularity",), {}, {"networks": 0, "fitted_before": None})
    today, before = (make_store("item_id,title\nA,Shirt", name=name) for name in ("today", "before"))
    with today.writing(), before.writing():
        learnt.publish(today)
        before.set_meta("fusion", today.meta("ranking") or "")
    assert LearntRanking.published(before) == learnt
    with before.writing():
        replace(learnt, sources=("viewed",)).publish(before)
    assert LearntRanking.published(before) == replace(learnt, sources=("viewed",))


def test_the_numpy_pass_is_the_network_that_was_trained() -> None:
    torch.manual_seed(0)
    network = _RankingNetwork(torch.randn(6), torch.rand(6) + 0.5, 8, 0.3).eval()
    weights = {"mean": network.mean.numpy(), "deviation": network.deviation.numpy()} | {
        f"0.{name}": one for name, one in network.weights().items()
    }
    read = np.random.default_rng(0).random((3, 4, 6), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(read)).numpy()
    assert LearntRanking((), weights, {"networks": 1}).says(read) == pytest.approx(expected, abs=1e-5)


# -- what is measured is what serves -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_served_request_and_the_evaluators_answer_agree(
    make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same sources, fitted on the same past, under the same network; with a query and without."""
    rng = np.random.default_rng(3)
    colours, kinds = ("red", "blue", "green", "black", "white", "grey"), ("shirt", "boots", "dress", "lamp", "chair")
    names = [f"{colour} {kind}" for colour in colours for kind in kinds]
    events = []
    for user in range(60):
        at = datetime(2025, 1, 1) + timedelta(hours=int(rng.integers(0, 24 * 90)))
        place = int(rng.integers(30))
        for _ in range(6):
            if rng.random() < 0.5:
                events.append(f"U{user},{at},search,,{names[place].split()[1]},")
            events.append(
                f"U{user},{at + timedelta(minutes=5)},click,I{place:02},{names[place].split()[1] if events[-1].endswith(',') else ''},"
            )
            at, place = at + timedelta(days=2), int((place + rng.integers(1, 4)) % 30)
    items = "item_id,title,category,first_seen\n" + "\n".join(
        f"I{row:02},{name},{name.split()[1]},2024-01-01" for row, name in enumerate(names)
    )
    store = make_store(items, ["user_id,ts,action,item_id,query,position", *events])
    task = read_task(store, "small", "time", valid_days=30, test_days=20)
    assert task.until is not None
    assert min(len(task.valid), len(task.test)) > 20
    monkeypatch.setattr("recgraph.evaluation.baselines.own.TextSettings", partial(TextSettings, dim=16, epochs=2))
    workshop = Workshop(store.path, given=FakeEncoder())
    system = FusedSystem(replace(QUICK, depth=20, pool=30), workshop, [name for name in NAMES if name != "core"])
    system.fit(task, quiet)
    assert {"query-text", "query-words", "textformer"} <= set(system.learnt.sources)
    # the one that was just trained
    former, seen = trained_former(task, np.zeros((0, 0), np.float32), 0, workshop, quiet)
    assert former is not None
    assert system.seen == seen != ()
    cut = datetime(1970, 1, 1) + timedelta(seconds=task.until)
    with store.writing():
        replace(
            system.learnt,
            config={**system.learnt.config, "encoder": FakeEncoder.name, "fitted_before": cut.isoformat()},
        ).publish(store)
        former = replace(
            former, config={**former.config, "encoder": FakeEncoder.name, "fitted_before": cut.isoformat()}
        )
        former.publish(store)
    retriever = Retriever.build(store, FakeEncoder(), before=cut)
    assert retriever.ranker.learnt is not None
    measured, compared, named = system.scores(task.test), 0, 0
    vocabulary = Vocabulary.of(retriever.fitted.facets, FakeEncoder())
    for number in range(len(task.test)):
        moment = datetime(1970, 1, 1) + timedelta(seconds=float(task.test.time[number]))
        history = store.history(task.user_ids[task.test.user[number]], moment)
        query = task.test.query[number]
        if query and not is_fresh(query, history):
            # the same was searched before; a task does not tell when, so the evaluator takes every query for a fresh
            # one
            continue
        wish = understand(query, vocabulary)
        named += bool(wish.named)
        wanted = RetrievalQuery(query=query, history=history, k=5, exclude_purchased=False, wish=wish)
        found = retriever.candidates(wanted)
        compared += 1
        # What no source has follows the lately popular items; the evaluator knows no days.
        ranked = list(takewhile(lambda one: one.score > one.fits, found))
        assert ranked
        assert [one.item_id for one in ranked] == [
            task.item_ids[row] for row in np.argsort(-measured[number], kind="stable")[: len(ranked)]
        ]
    assert compared > len(task.test) // 2
    assert named > 5
    with store.writing():
        replace(former, config={**former.config, "encoder": "another"}).publish(store)
    # it would read vectors that it was not trained with
    assert Retriever.build(store, FakeEncoder(), before=cut).ranker.learnt is None


# -- the paper's -------------------------------------------------------------------------------------------------------


def test_paper_mode_takes_one_neighbour_of_the_newest_item_and_then_its_titles() -> None:
    paper = PaperSystem(None, Workshop())
    paper._titles = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 1, 2, 3]]
    paper._ids = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [0, 1], [0.9, 0.44], [0, 0]], np.float32)
    found = paper.scores(cases([[4, 0], [], [5, 0]], [1, 1, 1]))
    order = np.argsort(-found, axis=1, kind="stable")
    assert order[0].tolist()[:3] == [5, 1, 2]  # nearest to 0 by CORE, then its maker's; of the history neither
    assert set(order[0].tolist()[-2:]) == {0, 4}
    assert not found[1].any()
    assert order[2].tolist()[0] == 3


def test_a_target_outside_the_pool_is_a_miss() -> None:
    at = places_in_pools(np.array([[1.0, 3.0], [1.0, 3.0]], np.float32), np.array([0, -1]))
    assert at.better[0] == 1
    assert ndcg(at, 10).tolist() == pytest.approx([1 / np.log2(3), 0.0])


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(SettingsError, match="pool is 0"):
        RankerSettings(pool=0)
    with pytest.raises(SettingsError, match="near is 0"):
        SessionKNNSettings(near=0.0)
    with pytest.raises(SettingsError, match=r"ranking\.pools is no parameter"):
        settings_of(RankerSettings, {"pools": 3}, "ranking")
