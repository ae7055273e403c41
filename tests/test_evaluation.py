"""The evaluator against figures worked out by hand, an independent library and a simulation of ties; and what it may
not be fooled by."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from recgraph.cli import main
from recgraph.errors import SettingsError
from recgraph.evaluation.ask import Options, ask, learn_from, measure, measure_all
from recgraph.evaluation.compare import coverage, evaluate, novelty
from recgraph.evaluation.kept import code_of, sources_of
from recgraph.evaluation.origin import revision
from recgraph.evaluation.result import Group, Result
from recgraph.evaluation.result_files import as_json, result_of
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.train.metrics import mrr, ndcg, recall
from recgraph.train.task import (
    PURCHASE,
    Cases,
    Events,
    Note,
    Scores,
    System,
    Task,
    Within,
    drawn,
    few_records,
    only_named,
    read_task,
)


def cases_of(*told: tuple[int, list[int], int], time: float = 100.0) -> Cases:
    """(user, history, target) of each case."""
    n = len(told)
    history = tuple(np.array(rows, np.int64) for _, rows, _ in told)
    zeros = tuple(np.zeros(len(rows), np.int8) for rows in history)
    times = tuple(np.arange(len(rows), dtype=np.float64) for rows in history)
    target, user = np.array([one[2] for one in told], np.int64), np.array([one[0] for one in told], np.int64)
    return Cases(history, zeros, times, target, user, ("",) * n, np.full(n, time), np.arange(n))


def task_of(cases: Cases, n_items: int = 6, train: list[int] | None = None, group: list[int] | None = None) -> Task:
    items = np.array(range(n_items) if train is None else train, np.int64)
    events = Events(np.arange(len(items)), items, np.zeros(len(items)), np.zeros(len(items), np.int8))
    ids = tuple(f"i{row}" for row in range(n_items))
    users = tuple(f"u{row}" for row in range(int(cases.user.max(initial=0)) + 1))
    groups = np.array(group if group else [0] * n_items, np.int64)
    return Task(
        "shop", "loo", ids, ids, groups, np.full(n_items, -np.inf), events, cases.of(np.arange(0)), cases, None, users
    )


def random_task(n: int = 60, n_items: int = 40, seed: int = 0, least: int = 1, most: int = 12) -> Task:
    """Histories without the target; half of the items in train; two categories; three cases a user."""
    rng = np.random.default_rng(seed)
    told = []
    for row in range(n):
        rows = rng.permutation(n_items)[: int(rng.integers(least, most + 1)) + 1]
        told.append((row // 3, rows[1:].tolist(), int(rows[0])))
    group = rng.integers(0, 2, n_items).tolist()
    return task_of(cases_of(*told), n_items, train=rng.integers(0, n_items // 2, 200).tolist(), group=group)


class Given(System):
    """A system with a table of scores, a row a user; it keeps it, so that an evaluator that writes into it is found
    out."""

    def __init__(self, table: Any, name: str = "given") -> None:
        self.name, self.table, self.fitted = name, np.asarray(table, np.float32), 0

    def fit(self, task: Task, note: Note) -> None:
        self.fitted += 1

    def scores(self, cases: Cases) -> Scores:
        return self.table if len(cases) == len(self.table) else self.table[cases.user]


@dataclass(frozen=True)
class Lots:
    seed: int = 0


class Drawn(System):
    """A system that draws its scores."""

    def __init__(self, seed: int) -> None:
        self.name, self.settings = "drawn", Lots(seed)

    def fit(self, task: Task, note: Note) -> None:
        self._n = task.n_items

    def scores(self, cases: Cases) -> Scores:
        return np.stack(
            [np.random.default_rng([self.settings.seed, user]).random(self._n) for user in cases.user]
        ).astype(np.float32)


def constant(task: Task) -> Given:
    return Given(np.zeros((len(task.user_ids), task.n_items)), "constant")


# ── Metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_by_hand() -> None:
    """Ranks 1, 2 (the item before it was seen) and 3 of three users."""
    task = task_of(cases_of((0, [1], 0), (1, [0, 5], 1), (2, [5], 2)))
    table = [[9, 8, 7, 6, 5, 4], [9, 7, 8, 6, 5, 4], [9, 8, 7, 6, 5, 10]]
    found = evaluate(task, {"given": lambda _: Given(table)})
    (line,) = found.lines
    assert line.metrics["recall@1"].mean == pytest.approx(1 / 3, abs=1e-6)
    assert line.metrics["recall@5"].mean == 1.0
    assert line.metrics["ndcg@10"].mean == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(4)) / 3, abs=1e-6)
    assert line.metrics["mrr"].mean == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-6)
    assert (found.cases, found.items, found.origin.data_hash) == (3, 6, task.hash())


def test_figures_are_those_of_an_independent_library() -> None:
    trec = pytest.importorskip("pytrec_eval", reason="needs recgraph[dev]: pytrec_eval-terrier")
    task = random_task(n=90, n_items=150)
    asked, system = ask(task, Options()), Drawn(3)
    system.fit(task, print)
    at = measure(system, asked).places
    wanted: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for row, scores in enumerate(system.scores(asked.cases).tolist()):
        seen = set(asked.cases.history[row].tolist())
        run[f"q{row}"] = {f"i{item}": score for item, score in enumerate(scores) if item not in seen}
        wanted[f"q{row}"] = {f"i{asked.cases.target[row]}": 1}
    theirs = trec.RelevanceEvaluator(wanted, {"recall_5,10,100", "ndcg_cut_5,10", "recip_rank"}).evaluate(run)
    for name, ours in (
        ("recall_5", recall(at, 5)),
        ("recall_10", recall(at, 10)),
        ("recall_100", recall(at, 100)),
        ("ndcg_cut_5", ndcg(at, 5)),
        ("ndcg_cut_10", ndcg(at, 10)),
        ("recip_rank", mrr(at, 150)),
    ):
        assert ours == pytest.approx([theirs[f"q{row}"][name] for row in range(len(asked))]), name


def test_ties_count_as_a_simulation_of_them_does() -> None:
    task = random_task(n=30, n_items=12, most=4)
    table = np.random.default_rng(1).integers(0, 3, (10, 12))
    asked = ask(task, Options())
    at = measure(Given(table), asked).places
    rng, ranks = np.random.default_rng(2), np.zeros((4000, 30), np.int64)
    for row in range(30):
        scores = table[asked.cases.user[row]] + rng.random((4000, 12)) * 0.5  # breaks ties and nothing else
        scores[:, asked.cases.history[row]] = -np.inf
        ranks[:, row] = (scores > scores[:, asked.cases.target[row], None]).sum(axis=1) + 1
    assert recall(at, 3) == pytest.approx((ranks <= 3).mean(axis=0), abs=0.04)
    assert mrr(at) == pytest.approx((1 / ranks).mean(axis=0), abs=0.03)
    assert ndcg(at, 5) == pytest.approx(np.where(ranks <= 5, 1 / np.log2(ranks + 1), 0).mean(axis=0), abs=0.03)


def test_coverage_and_novelty_by_hand() -> None:
    """Train names i0 six times and i1 once; every item counts one more: shares 7/12, 2/12, 1/12, 1/12, 1/12."""
    task = task_of(cases_of((0, [], 0)), 5, train=[0] * 6 + [1])
    assert coverage(np.array([[0, 1], [0, -1]]), 5) == 2 / 5
    assert novelty(np.array([[0, 1], [2, -1]]), task) == pytest.approx(
        (math.log2(12 / 7) + math.log2(12 / 2) + math.log2(12)) / 3
    )
    assert novelty(np.array([[-1]]), task) == 0.0


# ── What cannot fool it ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("protocol", ["full", "category", "cold", "sampled"])
@pytest.mark.parametrize("seen", ["excluded", "ranked"])
def test_a_constant_scorer_gets_what_chance_gets(protocol: str, seen: str) -> None:
    """Chance is the mean of 10 among the candidates of each case, wherever the target stands in the catalogue."""
    task = random_task(n_items=60, least=9, most=14)
    asked = ask(task, Options(protocol=protocol, seen=seen))
    pool = np.array([asked.allowed(row, row + 1).sum() for row in range(len(asked))])
    assert all(asked.allowed(row, row + 1)[0, target] for row, target in enumerate(asked.cases.target))
    assert recall(measure(constant(task), asked).places, 10) == pytest.approx(np.minimum(10 / pool, 1))
    if protocol == "sampled":
        assert set(pool.tolist()) == {21}
    if protocol == "full":
        assert pool.tolist() == [60 - (len(rows) if seen == "excluded" else 0) for rows in asked.cases.history]
    if protocol == "cold":
        assert 0 < len(asked) < len(task.test)
        assert not np.isin(asked.cases.target, task.train.item).any()


def test_an_item_that_cannot_be_ranked_is_a_miss_however_many_share_its_place() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 2)))
    table = np.full((2, 6), -np.inf)
    table[1, 2] = 0.0
    found = measure(Given(table), ask(task, Options()))
    assert recall(found.places, 100).tolist() == [0.0, 1.0]
    assert found.unranked.tolist() == [True, False]
    assert found.first.tolist() == [[-1] * 6, [2, -1, -1, -1, -1, -1]]


def test_what_is_no_score_is_refused_and_the_system_named() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 2)))
    table = np.zeros((2, 6))
    table[1, 1] = np.nan  # though nobody would see it: the history is masked
    with pytest.raises(SettingsError, match="given gave case 1 a score that is not a number"):
        measure(Given(table), ask(task, Options()))
    with pytest.raises(
        SettingsError, match=r"given gave float32 scores of shape \(2, 5\); it must be float32 \(2, 6\)"
    ):
        measure(Given(np.zeros((2, 5))), ask(task, Options()))


def test_a_system_s_own_table_is_not_written_into() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 2)))
    system = Given(np.ones((2, 6)))
    measure(system, ask(task, Options()))
    assert (system.table == 1).all()


def test_what_the_user_had_is_left_out_and_a_case_about_it_not_asked() -> None:
    task = task_of(cases_of((0, [1, 3], 0), (1, [2], 2)))
    table = [[1, 9, 0, 9, 0, 0], [0, 0, 1, 9, 0, 0]]
    excluded, ranked = ask(task, Options()), ask(task, Options(seen="ranked"))
    assert (len(excluded), dict(excluded.dropped)) == (1, {"target seen": 1})
    assert measure(Given(table), excluded).places.better.tolist() == [0]
    assert measure(Given(table), ranked).places.better.tolist() == [2, 1]


def test_an_item_that_is_not_listed_yet_is_no_candidate() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 2), time=100.0))
    task = replace(task, listed=np.array([-np.inf, -np.inf, 100.0, 99.0, 200.0, -np.inf]))
    found = measure(Given([[1, 0, 9, 9, 9, 0], [0, 0, 9, 0, 0, 0]]), ask(task, Options()))
    assert found.places.better[0] == 1  # i3 alone: i2 and i4 come with the case's moment or later
    assert recall(found.places, 10).tolist() == [1.0, 0.0]
    assert 4 not in found.first


def test_a_category_s_items_compete_with_each_other_alone() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 5)), group=[0, 0, 0, 1, 1, -1])
    found = measure(Given([[1, 0, 9, 9, 9, 9], [9, 9, 9, 9, 9, 1]]), ask(task, Options(protocol="category")))
    assert found.places.better.tolist() == [1, 0]


def test_no_case_left_and_wrong_options_are_told() -> None:
    task = task_of(cases_of((0, [0], 0)))
    with pytest.raises(
        SettingsError, match=r"No case of shop \(split loo\) is left under protocol full: 1 for target seen"
    ):
        ask(task, Options())
    with pytest.raises(SettingsError, match="protocol is 'ful'"):
        Options(protocol="ful")
    with pytest.raises(SettingsError, match="seeds are"):
        Options(seeds=(7, 7))
    with pytest.raises(SettingsError, match="nothing to evaluate"):
        evaluate(task, {}, Options(seen="ranked"))


# ── Drawn negatives ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_negatives_are_other_items_that_the_user_did_not_have() -> None:
    task = random_task(n_items=60, least=9, most=20)
    for popular in (False, True):
        found = drawn(task, task.test, 7, popular=popular)
        assert found.shape == (60, 21)
        assert (found[:, 0] == task.test.target).all()
        for row, history in zip(found.tolist(), task.test.history, strict=True):
            assert len(set(row)) == 21
            assert not set(row[1:]) & set(history.tolist())


def test_negatives_hang_on_the_seed_and_the_case_alone() -> None:
    task = random_task(n_items=60)
    some = np.array([3, 40, 41])
    assert (drawn(task, task.test.of(some), 7) == drawn(task, task.test, 7)[some]).all()
    assert (drawn(task, task.test, 7) != drawn(task, task.test, 8)).any()


def test_uniform_negatives_are_uniform_and_popular_ones_popular() -> None:
    """Of 30 items the first is in train 50 times, the next 9 once, the others never; two are drawn beside a target that
    is one of the others."""
    told = [(row, [], 10 + row % 20) for row in range(3000)]
    task = task_of(cases_of(*told), 30, train=[0] * 50 + list(range(1, 10)))
    uniform, popular = (
        np.bincount(drawn(task, task.test, 7, count=2, popular=one)[:, 1:].ravel(), minlength=30)
        for one in (False, True)
    )
    assert uniform[:10] / 3000 == pytest.approx([2 / 29] * 10, abs=0.02)
    # The first draw takes i0 with 50/59; else the second does with 50/58.
    assert popular[0] / 3000 == pytest.approx(50 / 59 + 9 / 59 * 50 / 58, abs=0.02)
    assert popular[10:].sum() == 0


def test_records_are_the_history_and_the_target() -> None:
    cases = cases_of(*[(row, list(range(length)), 30) for row, length in enumerate((8, 9, 24, 25))])
    assert [len(rows) for rows in few_records(cases).history] == [9, 24]


def test_a_shop_too_small_to_draw_from_is_told() -> None:
    with pytest.raises(SettingsError, match="has 4 items to draw from, too few for 20"):
        drawn(task_of(cases_of((0, [1], 0))), cases_of((0, [1], 0)), 7)


def test_the_sampled_protocol_reports_both_draws() -> None:
    task = random_task(n_items=60, least=9, most=14)
    found = evaluate(task, {"drawn": Drawn}, Options(protocol="sampled", seeds=(1, 2, 3)))
    (line,) = found.lines
    assert set(line.metrics) == {f"{name}@{k}" for name in ("recall", "mrr") for k in (3, 5, 10)} | {
        "ndcg@10",
        "invalid",
        "unranked",
    }
    assert line.metrics["recall@10"].mean == pytest.approx(10 / 21, abs=0.1)
    assert set(line.popular or {}) == {name for name in line.metrics if "@" in name}
    assert line.curve[20] <= 1.0


def test_items_with_an_id_alone_can_be_left_out() -> None:
    """Items 1 and 3 of 5 are unnamed: 0, 2, 4 become 0, 1, 2."""
    test = replace(cases_of((0, [0, 1, 2], 4), (1, [3, 4], 1)), seq=np.array([7, 8]))
    texts = ("Hat", "untitled product i1", "Scarf", "untitled product i3", "Boots")
    task = replace(
        task_of(test),
        item_ids=tuple(f"i{row}" for row in range(5)),
        texts=texts,
        group=np.arange(5),
        listed=np.arange(5.0),
    )
    task = replace(
        task, train=Events(np.array([0, 0, 1]), np.array([1, 2, 4]), np.arange(3.0), np.full(3, PURCHASE, np.int8))
    )
    found = only_named(task)
    assert (found.item_ids, found.texts, found.group.tolist()) == (
        ("i0", "i2", "i4"),
        ("Hat", "Scarf", "Boots"),
        [0, 2, 4],
    )
    assert (found.train.item.tolist(), found.train.time.tolist()) == ([1, 2], [1.0, 2.0])
    assert (found.test.target.tolist(), found.test.seq.tolist()) == ([2], [7])
    assert [rows.tolist() for rows in found.test.history] == [[0, 1]]
    assert len(found.test.times[0]) == len(found.test.actions[0]) == 2
    with pytest.raises(SettingsError, match="knows no product's name"):
        only_named(replace(task, texts=tuple(f"untitled product {one}" for one in task.item_ids)))


def test_another_category_is_asked_about_than_was_learnt_from() -> None:
    """F 5.4, zero-shot: of items 0 to 5 three are boots; histories stay whole."""
    categories = ("Boots", "Boots", "Hats", "Hats", "Boots", "")
    cases = cases_of((0, [0, 2], 1), (1, [2, 4], 3), (2, [1], 5))
    task = replace(task_of(cases), valid=cases)
    found = learn_from(task, categories, ["Boots"])
    assert found.train.item.tolist() == [0, 1, 4]
    assert (found.valid.target.tolist(), found.test.target.tolist()) == ([1], [3, 5])
    assert [rows.tolist() for rows in found.test.history] == [[2, 4], [1]]
    assert found.name == "shop, learnt from Boots"
    with pytest.raises(
        SettingsError, match=r"'Shoes' is no category of shop. Categories \(--learn-from\): Boots, Hats"
    ):
        learn_from(task, categories, ["Boots", "Shoes"])
    with pytest.raises(SettingsError, match="Nothing happened with products of Hats"):
        learn_from(replace(task, train=task.train.of(np.array([0, 1]))), categories, ["Hats"])


class Looks(Given, Within):
    """Says which items it is told to look among."""

    def scores_within(self, cases: Cases, allowed: NDArray[np.bool_]) -> Scores:
        self.told = allowed
        return self.scores(cases)


@pytest.mark.parametrize("seen", ["excluded", "ranked"])
def test_a_system_may_look_among_the_items_of_the_category(seen: str) -> None:
    task = random_task(n_items=60, least=9, most=14)
    system = Looks(np.zeros((len(task.test), 60)))
    measure(system, asked := ask(task, Options(protocol="category", seen=seen)))
    assert (system.told == asked.allowed(0, len(asked))).all()
    assert {len(set(task.group[line].tolist())) for line in system.told} == {1}
    del system.told
    measure(system, ask(task, Options(seen=seen)))
    assert not hasattr(system, "told")


def test_a_system_may_look_among_the_drawn_items_of_each_kind() -> None:
    task = random_task(n_items=60, least=9, most=14)
    system, told = Looks(np.zeros((len(task.test), 60))), []
    system.scores_within = lambda cases, allowed: (told.append(allowed), system.scores(cases))[1]  # type: ignore[method-assign]
    both = [ask(task, Options(protocol="sampled"), popular=popular) for popular in (False, True)]
    measure_all(system, both)
    assert [np.array_equal(one, asked.allowed(0, len(asked))) for one, asked in zip(told, both, strict=True)] == [
        True,
        True,
    ]
    assert (told[0].sum(axis=1) == 21).all()


def test_only_even_negatives_are_the_same_ones_at_half_the_time(tmp_path: Path) -> None:
    task = random_task(n_items=60, least=9, most=14)
    both = evaluate(task, {"drawn": Drawn}, Options(protocol="sampled"), keep=tmp_path).lines[0]
    even = evaluate(task, {"drawn": Drawn}, Options(protocol="sampled", negatives="even"), keep=tmp_path).lines[0]
    assert even.popular is None
    assert even.metrics == both.metrics
    with pytest.raises(SettingsError, match="negatives is 'odd'"):
        Options(negatives="odd")


def steady(result: Result) -> Any:
    """All of it but what the clock says."""
    lines = tuple(replace(line, fit_seconds=0, score_ms=0) for line in result.lines)
    return replace(result, origin=replace(result.origin, seconds=0), lines=lines)


# ── Lists, seeds, comparisons ─────────────────────────────────────────────────────────────────────────────────────────


def test_equal_scores_stand_in_random_order_in_lists() -> None:
    """Two of five equal items after a better one: each in 2/5 of the lists, and first among them in 1/5."""
    task = task_of(cases_of(*[(row, [], 0) for row in range(2000)]))
    first = measure(Given(np.tile([5, 1, 1, 1, 1, 1], (2000, 1))), ask(task, Options()), first=3).first
    assert (first[:, 0] == 0).all()
    assert np.bincount(first[:, 1:].ravel(), minlength=6)[1:] / 2000 == pytest.approx([2 / 5] * 5, abs=0.04)
    assert np.bincount(first[:, 1], minlength=6)[1:] / 2000 == pytest.approx([1 / 5] * 5, abs=0.04)


def test_figures_are_means_over_seeds_and_what_draws_nothing_is_fitted_once() -> None:
    task = random_task()
    made: list[Given] = []

    def make(seed: int) -> Given:
        made.append(constant(task))
        return made[-1]

    found = evaluate(task, {"drawn": Drawn, "constant": make}, Options(seeds=(1, 2)))
    alone = [evaluate(task, {"drawn": Drawn}, Options(seeds=(seed,))).lines[0].figure().mean or 0 for seed in (1, 2)]
    lines = {line.name: line for line in found.lines}
    assert lines["drawn"].figure().mean == pytest.approx(sum(alone) / 2, abs=2e-6)
    assert (lines["drawn"].seeds, lines["constant"].seeds) == ((1, 2), ())
    assert lines["drawn"].settings == {"seed": 2}
    assert sum(one.fitted for one in made) == 1


def test_every_system_is_compared_with_the_best_and_the_best_with_the_second() -> None:
    task = random_task()
    best = np.zeros((20, 40))
    best[task.test.user, task.test.target] = 1
    middle = best * (np.arange(20) % 2)[:, None]
    tables = {"best": best, "middle": middle, "worst": np.zeros((20, 40))}
    found = evaluate(task, {name: lambda _, table=table: Given(table) for name, table in tables.items()})  # type: ignore[misc]
    against: Any = {line.name: line.against for line in found.lines}
    assert [against[name].other for name in tables] == ["middle", "best", "best"]
    first, second = against["best"].difference, against["middle"].difference
    assert first.mean == -second.mean > 0
    assert (first.low, first.high) == (-second.high, -second.low)
    assert against["worst"].difference.high < 0
    assert against["worst"].p_holm == pytest.approx(2 * against["worst"].p)
    assert against["worst"].p <= against["middle"].p_holm < 0.05
    assert all(one.separable for one in against.values())
    assert evaluate(task, {"worst": lambda _: Given(tables["worst"])}).lines[0].against is None


def test_cold_and_warm_targets_are_told_apart() -> None:
    task = task_of(cases_of((0, [1], 0), (1, [1], 2), (2, [1], 3)), train=[0, 1, 3])
    (line,) = evaluate(task, {"given": lambda _: Given([[9, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 9, 0, 0]])}).lines
    assert line.groups["cold"].cases == 1
    assert line.groups["warm"] == Group(2, {"recall@10": 1.0, "ndcg@10": 1.0})
    assert (line.group("cold", "ndcg@10").mean or 0) < 1.0


def test_a_sample_is_drawn_once_for_everybody_and_stated() -> None:
    task = random_task()
    one, two = (evaluate(task, {"drawn": Drawn}, Options(sample=20)) for _ in range(2))
    assert (one.cases, one.sample) == (20, 20)
    assert steady(one) == steady(two)


def test_equal_inputs_give_equal_figures() -> None:
    task = random_task()
    one, two = (evaluate(task, {"drawn": Drawn, "constant": lambda _: constant(task)}) for _ in range(2))
    assert steady(one) == steady(two)


@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_what_was_answered_is_not_asked_again_unless_something_differs(tmp_path: Path, protocol: str) -> None:
    task, fitted = random_task(n_items=60, least=9, most=14), [0]

    class Counted(Drawn):
        def fit(self, task: Task, note: Note) -> None:
            fitted[0] += 1
            super().fit(task, note)

    def asked(**changed: Any) -> Any:
        options = replace(Options(protocol=protocol, seeds=(1, 2)), **changed)
        (line,) = evaluate(task, {"drawn": Counted}, options, keep=tmp_path).lines
        return line, fitted[0]

    line, count = asked()
    assert asked() == (line, count) == (line, 2)
    assert asked(seeds=(1, 2, 3))[1] == 3
    assert asked(sample=20)[1] == 5
    assert asked(seen="ranked")[1] == 7
    task = replace(task, texts=tuple(reversed(task.texts)))
    assert asked()[1] == 9
    assert not list(tmp_path.glob("*.part*"))


def test_answers_from_another_machine_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on a faster machine and compared here, the seconds of fitting would be told as this machine's."""
    task = random_task()
    monkeypatch.setattr("recgraph.evaluation.kept.machine", lambda: "EPYC, 16 CPUs, H100")
    evaluate(task, {"drawn": Drawn}, keep=tmp_path)
    (line,) = evaluate(task, {"drawn": Drawn}, keep=tmp_path).lines
    assert line.machine == "EPYC, 16 CPUs, H100"
    (line,) = evaluate(task, {"drawn": Drawn}).lines
    assert line.machine is None


@pytest.mark.slow
def test_answers_are_kept_by_the_code_that_made_them() -> None:
    """What a module imports decides its answers too, also where it imports it late; what makes tasks and names systems
    does not."""
    own = sources_of("recgraph.evaluation.baselines.own")
    assert {
        "recgraph.evaluation.baselines.counted",
        "recgraph.tools.sources.registry",
        "recgraph.train.networks.core",
    } <= set(own)
    assert not {
        "recgraph.train.task",
        "recgraph.evaluation.systems",
        "recgraph.graph.nodes",
        "recgraph.evaluation.baselines.pairs",
    } & set(own)
    assert "recgraph.train.lora.training" in sources_of("recgraph.evaluation.baselines.llm")
    assert code_of("recgraph.evaluation.baselines.counted") != code_of(
        "recgraph.evaluation.baselines.counted", "recgraph.evaluation.baselines.pairs"
    )
    assert sources_of("tests.test_evaluation") == {}


def test_what_several_systems_need_is_made_once_and_anew_for_another_task() -> None:
    workshop, made = Workshop(), list[str]()
    for of in ("one", "one", "two", "one"):
        assert workshop.once("network", of, lambda of=of: made.append(of) or len(made)) == len(made)  # type: ignore[misc, func-returns-value]
    assert made == ["one", "two", "one"]
    assert Workshop().once("network", "one", lambda: 0) == 0  # another evaluation shares nothing


def test_a_result_says_where_it_was_made() -> None:
    found = evaluate(random_task(), {"drawn": Drawn}, command="recgraph evaluate")
    assert result_of(json.loads(json.dumps(as_json(found)))) == found
    assert "CPUs" in (found.origin.machine or "")
    assert found.origin.command == "recgraph evaluate"
    assert len(found.origin.date or "") == 10
    assert found.origin.revision == revision()


@pytest.mark.slow
def test_a_tenth_of_beauty_takes_less_than_a_tenth_of_twenty_seconds() -> None:
    """2,236 cases among 12,101 items with one product of matrices; processor time, with room for a machine that does
    other things too."""
    rng, n, n_items = np.random.default_rng(0), 2236, 12_101
    told = [(row, rng.integers(1, n_items, 8).tolist(), 0) for row in range(n)]
    task = task_of(cases_of(*told), n_items)
    users, items = rng.normal(size=(n, 64)).astype(np.float32), rng.normal(size=(n_items, 64)).astype(np.float32)

    class Product(Given):
        def scores(self, cases: Cases) -> Scores:
            return users[cases.user] @ items.T

    before = time.process_time()
    evaluate(task, {"product": lambda _: Product(0, "product")})
    assert time.process_time() - before < 2 * 20 / 10  # two cores


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────────

SHOP_ITEMS = ["item_id,title,category", *(f"I{row},Thing number {row},{'ab'[row % 2]}" for row in range(40))]


def shop_events() -> list[str]:
    """30 users with five to fourteen purchases on as many days."""
    rng, lines = np.random.default_rng(0), ["user_id,ts,action,item_id"]
    for user in range(30):
        for day, item in enumerate(rng.permutation(40)[: int(rng.integers(5, 15))].tolist()):
            lines.append(f"user {user},2025-{1 + day // 28:02}-{1 + day % 28:02} 10:00,purchase,I{item}")
    return lines


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, shop_events())
    store.close()
    return store.path


def ran(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["evaluate", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.slow
def test_the_command_measures_a_store_and_keeps_the_result(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept" / "shop.json"
    said = ran("--store", shop, "--split", "loo", "--out", out)
    assert "30 cases, 40 items" in " ".join(said.split())
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [line["name"] for line in found["systems"]] == ["popularity", "popular-7d", "transitions", "item-knn"]
    assert (found["dataset"], found["split"], found["protocol"], found["seen"]) == ("shop", "loo", "full", "excluded")
    for line in found["systems"]:
        assert line["name"] in said
        assert 0 <= line["metrics"]["recall@10"]["low"] <= line["metrics"]["recall@10"]["mean"] <= 1


@pytest.mark.parametrize("file", ["transitions.parquet", "transitions.run"])
def test_rankings_that_were_written_are_measured_as_their_system_was(shop: Path, tmp_path: Path, file: str) -> None:
    options = ("--store", shop, "--split", "loo")
    assert "30 rankings" in ran(*options, "--export", tmp_path / file, "--system", "transitions")
    # one name twice
    ran(*options, "--systems", "transitions", "--run", tmp_path / file, "--out", tmp_path / "both.json", code=2)
    (tmp_path / file).rename(tmp_path / f"mine{Path(file).suffix}")
    ran(
        *options,
        "--systems",
        "transitions",
        "--run",
        tmp_path / f"mine{Path(file).suffix}",
        "--out",
        tmp_path / "both.json",
    )
    system, mine = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))["systems"]
    assert mine["metrics"]["coverage@10"] == system["metrics"]["coverage@10"]
    # A list breaks its ties by lot, scores count them by their mean; 40 items and a short train part have many.
    assert mine["metrics"]["recall@10"]["mean"] == pytest.approx(system["metrics"]["recall@10"]["mean"], abs=0.1)
    assert (mine["missing_cases"], mine["unknown_cases"]) == (0, 0)


@pytest.mark.slow
def test_trained_systems_are_measured_as_counted_ones_are(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CORE keeps its training under a name that was once taken for the cost of a language model's."""
    pytest.importorskip("torch", reason="needs recgraph[local]")
    pytest.importorskip("ruamel.yaml", reason="needs recgraph[train]")
    others = ("sasrec", "bert4rec", "gru4rec", "narm", "nextitnet", "ncf", "din", "dien")
    short = {"core": "epochs: 1", **dict.fromkeys(others, "epochs: 1, patience: 1")}
    (tmp_path / "params.yaml").write_text(
        "baselines:\n" + "".join(f"  {name}: {{{told}}}\n" for name, told in short.items()), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    ran("--store", shop, "--split", "loo", "--systems", ",".join(short), "--out", "x.json")
    found = json.loads(Path("x.json").read_text(encoding="utf-8"))["systems"]
    assert [line["name"] for line in found] == list(short)
    assert all(line["fit_seconds"] > 0 for line in found)


@pytest.mark.slow
def test_every_protocol_has_a_table(shop: Path) -> None:
    for protocol in ("full", "category", "sampled"):
        assert f"protocol {protocol}" in ran(
            "--store", shop, "--split", "loo", "--protocol", protocol, "--seen", "ranked", "--sample", "9"
        )


def test_systems_learn_from_shares_of_the_users_too(shop: Path, tmp_path: Path) -> None:
    options = (
        "--store",
        shop,
        "--split",
        "loo",
        "--systems",
        "popularity,transitions",
        "--shares",
        ".5,.2",
        "--out",
        tmp_path / "x.json",
    )
    said = " ".join(ran(*options).split())
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert [(one["system"], one["share"]) for one in found["low_resource"]] == [
        (name, share) for share in (0.2, 0.5, 1.0) for name in ("popularity", "transitions")
    ]
    whole = {one["system"]: one["ndcg@10"] for one in found["low_resource"] if one["share"] == 1}
    assert whole == {line["name"]: line["metrics"]["ndcg@10"] for line in found["systems"]}
    assert "transitions learns from a share of the users, ndcg@10 0." in said


def test_wrong_words_are_told(shop: Path, tmp_path: Path) -> None:
    assert "The share of users to learn from is 0.0" in ran("--store", shop, "--split", "loo", "--shares", "0", code=2)
    assert "--shares is 'half'" in ran("--store", shop, "--split", "loo", "--shares", "half", code=2)
    assert "'Shoes' is no category of shop." in ran("--store", shop, "--split", "loo", "--learn-from", "Shoes", code=2)
    assert "'populrity' is no system. Systems: popularity, " in ran(
        "--store", shop, "--split", "loo", "--systems", "populrity", code=2
    )
    assert "--seeds is 'seven'" in ran("--store", shop, "--seeds", "seven", code=2)
    assert "--system names 0" in ran("--store", shop, "--export", tmp_path / "x.run", code=2)
    assert "There is no file" in ran("--store", shop, "--split", "loo", "--run", tmp_path / "x.run", code=1)
    assert "No case of shop" in ran("--store", shop, "--split", "loo", "--protocol", "cold", code=2)


def test_a_task_names_its_users_and_events(shop: Path) -> None:
    with Store.open(shop) as store:
        task = read_task(store, "shop", "loo")
    assert task.user_ids[task.test.user[0]] == "user 0"
    assert len(task.test.seq) == len(task.test) == 30
    some = task.test.some(5, 7)
    assert len(some.seq) == 5
