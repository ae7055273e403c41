"""The fused retrieval and its counted sources, on shops small enough to know the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from recgraph.errors import ModelMissing, SettingsError
from recgraph.train.base_counts import Popularity, Transitions
from recgraph.train.base_sessions import MakerTransitions, SessionKNN, SessionKNNSettings, SmoothTransitions, WordKNN, makers
from recgraph.train.fused import Fused, FusedSettings, places_in_pools
from recgraph.train.metrics import ndcg, places
from recgraph.train.protocol import Cases, Events, Note, System, Task

TEXTS = ("Aveda Oil one", "Aveda Oil two", "Aveda Oil three", "Nivea Soap red", "Nivea Soap blue", "Zest", "")
QUICK = FusedSettings(depth=4, pool=5, hidden=4, epochs=4, networks=2)


def cases(histories: Sequence[Sequence[int]], targets: Sequence[int]) -> Cases:
    rows = tuple(np.array(one, np.int64) for one in histories)
    actions, times = tuple(np.full(len(one), 2, np.int8) for one in rows), tuple(np.arange(len(one), dtype=np.float64) for one in rows)
    return Cases(rows, actions, times, np.array(targets, np.int64), np.arange(len(rows)), ("",) * len(rows), np.full(len(rows), 99.0))


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


def pair(task: Task, seed: int, note: Note) -> list[System]:
    return [Popularity(), Transitions()]


SMALL = shop([[0, 1, 2], [0, 1], [3, 0, 1, 4]], cases([[0], [3], [4, 0]] * 20, [1, 0, 1] * 20))


def test_a_user_with_a_like_history_votes_for_what_came_near() -> None:
    settings = SessionKNNSettings(neighbours=1, rarity=0.0, long=0.0, near=0.5, before=0.5)
    found = fitted(SessionKNN(settings), shop([[5, 3, 0, 1], [4, 2]], cases([], []))).scores(cases([[3, 0], [6]], [1, 1]))
    # User 0 shares 0 and 3, 1 + 0.6; item 1 comes one place after 0, item 5 one before 3.
    assert found[0, [1, 5]] == pytest.approx([1.6 * 0.5, 1.6 * 0.5 * 0.5])
    assert found[0, [2, 4]].tolist() == [0, 0]
    assert not found[1].any()  # nobody had it


def test_a_shared_item_of_another_user_is_not_near() -> None:
    found = fitted(SessionKNN(), shop([[1, 2], [0, 3]], cases([], []))).scores(cases([[2]], [1]))
    assert found[0].nonzero()[0].tolist() == [1, 2]


def test_names_are_near_by_their_words_and_their_maker() -> None:
    found = fitted(WordKNN(), SMALL).scores(cases([[0], [6]], [1, 1]))
    assert set(np.argsort(-found[0])[1:3]) == {1, 2}
    assert found[0, 5] == 0
    assert not found[1].any()


def test_a_maker_is_the_first_two_words_where_names_share_them() -> None:
    assert makers(TEXTS).tolist() == [0, 0, 0, 1, 1, 2, 3]  # "aveda oil" three times, "nivea soap" only twice, so "nivea"


def test_what_follows_a_maker_is_found_for_an_item_without_steps() -> None:
    task = shop([[0, 3], [1, 3], [2, 5]], cases([], []))
    found = fitted(MakerTransitions(), task).scores(cases([[0]], [4]))
    assert found[0, 3] > found[0, 4] > found[0, 0] == 0  # nobody took 4, but its maker's 3


def test_steps_of_items_named_alike_count() -> None:
    vectors = np.eye(7, dtype=np.float32)[[0, 0, 2, 3, 3, 5, 6]]  # 0 and 1 are named alike, and so are 3 and 4
    found = fitted(SmoothTransitions(vectors), shop([[0, 3], [2, 5]], cases([], []))).scores(cases([[1]], [3]))
    assert found[0, 3] == pytest.approx(found[0, 4])
    assert found[0, 3] > 1e-3 > found[0, 5]


def test_the_network_learns_which_source_to_believe() -> None:
    rng = np.random.default_rng(0)
    order = [[start, (start + 1) % 30] for start in rng.integers(0, 30, 300)]  # what comes next is the next number; often taken says nothing
    last = rng.integers(0, 30, 200)
    valid = cases([[one] for one in last], [(one + 1) % 30 for one in last])
    task = shop(order, valid, tuple(f"n{number}" for number in range(30)))
    fused = fitted(Fused(replace(QUICK, pool=20, depth=20, epochs=20), pair), task)
    assert float(ndcg(places(fused.scores(valid), valid.target), 10).mean()) > 0.99


def test_two_fits_say_the_same_and_cases_do_not_hang_on_each_other() -> None:
    first, again = (fitted(Fused(QUICK, pair), SMALL).scores(SMALL.valid) for _ in range(2))
    assert np.array_equal(first, again)
    alone = fitted(Fused(QUICK, pair), SMALL).scores(SMALL.valid.of(np.array([1])))
    assert alone[0] == pytest.approx(first[1], abs=1e-4)


def test_the_target_is_not_looked_at() -> None:
    fused, asked = fitted(Fused(QUICK, pair), SMALL), cases([[0, 1], [3]], [1, 4])
    assert np.array_equal(fused.scores(asked), fused.scores(replace(asked, target=np.array([6, 5]))))


def test_a_source_that_cannot_be_fitted_is_left_out() -> None:
    class Missing(Popularity):
        def fit(self, task: Task, note: Note) -> None:
            raise ModelMissing("There is no encoder.")

    told: list[str] = []
    fused = Fused(QUICK, lambda task, seed, note: [Missing(), Transitions()])
    fused.fit(SMALL, told.append)
    assert [one.name for one in fused.sources] == ["transitions"]
    assert any("no encoder" in one for one in told)


def test_without_validation_cases_the_votes_rank() -> None:
    found = fitted(Fused(QUICK, pair), replace(SMALL, valid=cases([], []))).scores(cases([[0], []], [1, 1]))
    assert found[0].argmax() == 1
    assert np.isfinite(found).all()


def test_a_target_outside_the_pool_is_a_miss() -> None:
    at = places_in_pools(np.array([[1.0, 3.0], [1.0, 3.0]], np.float32), np.array([0, -1]))
    assert at.better[0] == 1
    assert ndcg(at, 10).tolist() == pytest.approx([1 / np.log2(3), 0.0])


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(SettingsError, match="pool is 0"):
        FusedSettings(pool=0)
    with pytest.raises(SettingsError, match="near is 0"):
        SessionKNNSettings(near=0.0)
