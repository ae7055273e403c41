"""The counted baselines on shops small enough to work out by hand: what they count, what they may not see, and lists
that are mostly zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.counted import (
    FusionSettings,
    ItemKNNSettings,
    ItemKNNSystem,
    PopularitySystem,
    RecentPopularitySystem,
    RecentSettings,
    StatisticsSystem,
    TextKNNSettings,
    TextKNNSystem,
    TransitionSettings,
    TransitionsSystem,
    sequences_of,
    z_scores,
)
from recgraph.evaluation.workshop import Workshop
from recgraph.tools.sources.transitions import TransitionTable as Reference
from recgraph.train.task import Cases, Events, Rows, System, Task

DAY = 86_400.0
NOW = 20_000 * DAY
ITEMS = 6
COLD = 5


class Letters:
    """One dimension a letter: short texts have vectors that can be worked out by hand."""

    name, dim = "letters", 26

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        self.read += texts
        found = np.array([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def cases(histories: Sequence[Sequence[int]], targets: Sequence[int], times: Sequence[float] | None = None) -> Cases:
    rows = tuple(np.array(one, np.int64) for one in histories)
    return Cases(
        history=rows,
        actions=tuple(np.full(len(one), 2, np.int8) for one in rows),
        times=tuple(np.arange(len(one), dtype=np.float64) for one in rows),
        target=np.array(targets, np.int64),
        user=np.arange(len(rows)),
        query=("",) * len(rows),
        time=np.full(len(rows), NOW) if times is None else np.array(times, np.float64),
    )


def shop(
    sequences: Sequence[Sequence[int]], days: Sequence[Sequence[float]] | None = None, until: float | None = None
) -> Task:
    """Users with their items, each a day after the one before unless `days` says when; item 5 is in no train event."""
    user = np.concatenate([np.full(len(one), number) for number, one in enumerate(sequences)]).astype(np.int64)
    when = [[*range(len(one))] for one in sequences] if days is None else days
    time = np.concatenate([np.array(one, np.float64) for one in when]) * DAY + NOW
    train = Events(user, np.concatenate(sequences).astype(np.int64), time, np.full(len(user), 2, np.int8))
    valid = cases([[0], [1], [2, 1]], [1, 2, 3])
    texts = ("ab", "ac", "bc", "dd", "de", "a")
    ids = tuple(f"i{row}" for row in range(ITEMS))
    return Task("small", "time", ids, texts, np.full(ITEMS, -1), np.full(ITEMS, -np.inf), train, valid, valid, until)


def fitted(system: System, task: Task) -> System:
    system.fit(task, lambda message: None)
    return system


def systems() -> list[System]:
    workshop = Workshop(given=Letters())
    counted: list[System] = [PopularitySystem(), RecentPopularitySystem(), TransitionsSystem(), ItemKNNSystem()]
    return [*counted, TextKNNSystem(None, workshop), StatisticsSystem(None, workshop)]


SMALL = [[0, 1, 2], [0, 1], [3, 0, 1, 4]]


def test_popularity_counts_train_events() -> None:
    found = fitted(PopularitySystem(), shop(SMALL)).scores(cases([[0], []], [1, 1]))
    assert found.tolist() == [[3, 3, 1, 1, 1, 0]] * 2


def test_recent_popularity_counts_the_days_before_the_case() -> None:
    """Item 0 on days 0, 1 and 2, item 1 on day 8; window of 7 days. At day 9 only item 1 (day 8) and item 0 of day 2
    are in it."""
    task = shop([[0, 0, 0, 1]], [[0, 1, 2, 8]])
    found = fitted(RecentPopularitySystem(), task).scores(
        cases([[]] * 3, [1] * 3, [NOW + 9 * DAY, NOW + 1.5 * DAY, NOW - DAY])
    )
    # 3 and 1 events until then, over 3 + 1, decide among equals
    assert found[0, :3] == pytest.approx([1 + 3 / 4, 1 + 1 / 4, 0])
    assert found[1, :3] == pytest.approx([2 + 2 / 3, 0, 0])  # the case of day 1.5 knows neither day 2 nor day 8
    assert not found[2].any()


def test_recent_popularity_never_passes_the_cut() -> None:
    """A case a month after the cut is told the last days before the cut, not an empty window."""
    task = shop([[0, 1, 1]], [[0, 8, 9]], until=NOW + 10 * DAY)
    found = fitted(RecentPopularitySystem(), task).scores(cases([[]], [1], [NOW + 40 * DAY]))
    assert found[0, :2] == pytest.approx([1 / 3, 2 + 2 / 3])


def test_without_dates_all_of_train_is_recent() -> None:
    task = shop(SMALL)
    train = replace(task.train, time=np.arange(len(task.train), dtype=np.float64))
    found = fitted(RecentPopularitySystem(), replace(task, train=train)).scores(cases([[]], [1], [2.0]))
    assert found[0] == pytest.approx([3 + 3 / 4, 3 + 3 / 4, 1 + 1 / 4, 1 + 1 / 4, 1 + 1 / 4, 0])


def test_transitions_count_what_followed() -> None:
    """Undivided, a day apart: 1 followed 0 thrice; 2 followed 1 once; of the history [3, 0] the newer 0 counts 1, the
    older 3 a half."""
    task = shop(SMALL)
    found = fitted(TransitionsSystem(TransitionSettings(recency=0.5, window=1, out=0, into=0)), task).scores(
        cases([[3, 0], [COLD], []], [1] * 3)
    )
    decay = 3 * 0.5 ** (1 / 30)  # a purchase counts 3, 30 days half
    assert found[0] == pytest.approx([0.5 * decay, 3 * decay, 0, 0, 0, 0], rel=1e-6)
    assert not found[1:].any()


def test_transitions_of_all_cases_are_those_of_the_serving_table() -> None:
    rng = np.random.default_rng(0)
    task = shop([rng.integers(0, ITEMS - 1, 9).tolist() for _ in range(8)])
    asked = cases([rng.integers(0, ITEMS, size).tolist() for size in (1, 4, 70)], [0, 1, 2])
    found = fitted(TransitionsSystem(TransitionSettings(window=10)), task).scores(asked)
    reference = Reference.fit(sequences_of(task.train), ITEMS)
    for line, history in zip(found, asked.history, strict=True):
        assert line == pytest.approx(reference.scores(history), rel=1e-4, abs=1e-6)


def test_item_knn_is_the_shrunk_cosine() -> None:
    """0 and 1 have three users, all shared: 3 / (√3 √3 + 1). Item 2 shares one with 0: 1 / (√3 √1 + 1). An item is not
    its own neighbour."""
    found = fitted(ItemKNNSystem(ItemKNNSettings(recency=0.5, shrink=1)), shop(SMALL)).scores(
        cases([[0], [COLD], [2, 0]], [1] * 3)
    )
    one = 1 / (3**0.5 + 1)
    assert found[0] == pytest.approx([0, 3 / 4, one, one, one, 0])
    assert not found[1].any()
    assert found[2] == pytest.approx([0.5 * one, 3 / 4 + 0.5 * one, one, one, one, 0])


def test_item_knn_keeps_the_nearest() -> None:
    found = fitted(ItemKNNSystem(ItemKNNSettings(shrink=1, neighbours=1)), shop(SMALL)).scores(cases([[0]], [1]))
    assert np.flatnonzero(found[0]).tolist() == [1]


def test_text_knn_is_the_cosine_with_the_weighted_mean_and_ranks_cold_items() -> None:
    """History "dd", then "ab", recency ½: (½ d + ab/√2); with "a" its cosine is (1/√2) / √(1 + ¼)."""
    found = fitted(TextKNNSystem(TextKNNSettings(recency=0.5), Workshop(given=Letters())), shop(SMALL)).scores(
        cases([[3, 0], []], [1, 1])
    )
    length = (1 + 0.25) ** 0.5
    assert found[0] == pytest.approx(
        [1 / length, 0.5 / length, 0.5 / length, 0.5 / length, 0.5 / 2**0.5 / length, 0.5**0.5 / length]
    )
    assert not found[1].any()


def test_text_vectors_are_kept_in_a_folder(tmp_path: Path) -> None:
    first, again = Letters(), Letters()
    one = fitted(TextKNNSystem(None, Workshop(cache=tmp_path, given=first)), shop(SMALL)).scores(cases([[0]], [1]))
    two = fitted(TextKNNSystem(None, Workshop(cache=tmp_path, given=again)), shop(SMALL)).scores(cases([[0]], [1]))
    assert len(first.read) == ITEMS
    assert not again.read
    assert (one == two).all()
    changed = replace(shop(SMALL), texts=("ab", "ac", "bc", "dd", "de", "z"))
    fitted(TextKNNSystem(None, Workshop(cache=tmp_path, given=again)), changed)
    assert again.read


def test_z_scores_of_a_constant_are_zero_and_unranked_items_are_last() -> None:
    scores = np.array([[1, 1, 1, 1], [0, 2, 4, -np.inf]], np.float32)
    found = z_scores(scores)
    assert found[0].tolist() == [0, 0, 0, 0]
    deviation = (8 / 3) ** 0.5
    assert found[1] == pytest.approx([-2 / deviation, 0, 2 / deviation, -2 / deviation])


def test_a_list_of_zeros_but_one_does_not_decide_alone() -> None:
    """Undamped, one small score among 10,000 zeros is 100 deviations above them, whatever it is."""
    scores = np.zeros((1, 10_000), np.float32)
    scores[0, 7] = 0.01
    assert z_scores(scores)[0, 7] == pytest.approx(100, rel=0.01)
    assert z_scores(scores, 0.05)[0, 7] == pytest.approx(0.2, rel=0.01)


def test_the_fusion_is_the_weighted_sum() -> None:
    task, asked = shop(SMALL), cases([[0], [3, 1]], [1, 2])
    parts: list[System] = [PopularitySystem(), TransitionsSystem()]
    fused = StatisticsSystem(FusionSettings(weights=(1.0, 2.0), power=1.0, sample=0), Workshop(), parts)
    found = fitted(fused, task).scores(asked)
    assert found == pytest.approx(z_scores(parts[0].scores(asked)) + 2 * z_scores(parts[1].scores(asked)), abs=1e-5)


def test_what_all_parts_cannot_rank_the_fusion_cannot() -> None:
    class Blind(System):
        name = "blind"

        def fit(self, task: Task, note: object) -> None: ...

        def scores(self, asked: Cases) -> np.ndarray:
            return np.array([[1, 2, 3, -np.inf, -np.inf, -np.inf]] * len(asked), np.float32)

    asked = cases([[0]], [1])
    alone = fitted(StatisticsSystem(FusionSettings(weights=(1.0,)), Workshop(), [Blind()]), shop(SMALL)).scores(asked)
    assert np.isneginf(alone[0]).tolist() == [False] * 3 + [True] * 3
    beside = fitted(
        StatisticsSystem(FusionSettings(weights=(1.0, 1.0)), Workshop(), [Blind(), PopularitySystem()]), shop(SMALL)
    ).scores(asked)
    assert np.isfinite(beside).all()


def test_a_planted_test_event_changes_nothing() -> None:
    task, asked = shop(SMALL), cases([[0, 1], [2]], [2, 3])
    planted = replace(task, test=cases([[0, 4, 4, 4]], [4], [NOW + 99 * DAY]))
    for one, other in zip(systems(), systems(), strict=True):
        assert (fitted(one, task).scores(asked) == fitted(other, planted).scores(asked)).all(), one.name


def test_every_system_answers_empty_and_cold_histories_and_no_cases() -> None:
    task = shop(SMALL)
    for system in systems():
        found = fitted(system, task).scores(cases([[], [COLD], [0, COLD, 0]], [1, 1, 1]))
        assert found.shape == (3, ITEMS)
        assert found.dtype == np.float32
        assert not np.isnan(found).any(), system.name
        assert system.scores(cases([], [])).shape == (0, ITEMS), system.name


def test_an_empty_train_part_is_no_crash() -> None:
    task = shop(SMALL)
    nothing: Rows = np.zeros(0, np.int64)
    empty = replace(task, train=task.train.of(nothing))
    for system in systems()[:4]:
        assert not fitted(system, empty).scores(cases([[0]], [1])).any(), system.name


@pytest.mark.parametrize(
    "make",
    [
        lambda: TransitionSettings(recency=0),
        lambda: TransitionSettings(window=0),
        lambda: ItemKNNSettings(shrink=-1),
        lambda: TextKNNSettings(recency=1.5),
        lambda: RecentSettings(days=0),
        lambda: FusionSettings(power=0),
        lambda: StatisticsSystem(FusionSettings(weights=(1.0,)), Workshop(), []),
    ],
)
def test_a_setting_out_of_range_is_named(make: object) -> None:
    with pytest.raises(SettingsError, match=r"must be|give one"):
        make()  # type: ignore[operator]
