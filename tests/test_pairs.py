"""NCF, DIN and DIEN learn a planted pattern, say the same for the same seed, and answer whatever history they are
given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.pair_models import MODELS, PairSettings
from recgraph.evaluation.baselines.pairs import PairSystem
from recgraph.train.task import Cases, Events, Scores, Task

pytestmark = pytest.mark.slow  # each trains a network
ITEMS, COLD, UNKNOWN = 51, 50, 10**6
STEP = 7  # the item after i is i + 7, of 50


def chain(start: int, length: int) -> np.ndarray:
    return (start + STEP * np.arange(length)) % 50


def cases(histories: list[np.ndarray], targets: list[int], user: int = UNKNOWN) -> Cases:
    rows = tuple(np.asarray(one, np.int64) for one in histories)
    actions = tuple(np.full(len(one), 2, np.int8) for one in rows)
    times = tuple(np.arange(len(one), dtype=np.float64) for one in rows)
    count = len(rows)
    return Cases(
        rows, actions, times, np.array(targets, np.int64), np.full(count, user), ("",) * count, np.full(count, 99.0)
    )


def shop(users: int = 300, length: int = 6) -> Task:
    """Every user walks on by the same step from an item of his own; item 50 is in no train event."""
    starts = np.random.default_rng(1).integers(0, 50, users)
    items = np.concatenate([chain(start, length) for start in starts]).astype(np.int64)
    user = np.repeat(np.arange(users), length)
    train = Events(user, items, np.tile(np.arange(length, dtype=np.float64), users), np.full(len(user), 2, np.int8))
    walks = [chain(start, 4) for start in range(50)]
    asked = cases([walk[:3] for walk in walks], [int(walk[3]) for walk in walks])
    ids = tuple(f"i{row}" for row in range(ITEMS))
    return Task("walks", "loo", ids, ids, np.full(ITEMS, -1), np.full(ITEMS, -np.inf), train, asked, asked, None)


def settings(model: str, **changes: object) -> PairSettings:
    quick = PairSettings(
        model=model, dim=16, hidden=8, negatives=16, dropout=0.0, learning_rate=0.02, tokens=512, epochs=6, patience=6
    )
    return replace(quick, **{"candidates": 20, **changes})  # type: ignore[arg-type]


def fitted(one: PairSettings, task: Task, vectors: np.ndarray | None = None) -> PairSystem:
    system = PairSystem(one)
    system.text = vectors
    system.fit(task, lambda message: None)
    return system


def hits(scores: Scores, asked: Cases) -> float:
    """The share of targets among the first three, the history left out."""
    for line, history in zip(scores, asked.history, strict=True):
        line[history] = -np.inf
    return float((np.argsort(-scores, axis=1)[:, :3] == asked.target[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("model", MODELS)
def test_a_planted_step_is_learnt(model: str, loss: str) -> None:
    """By chance three of 47 items are right; users are unknown here, so histories alone must tell."""
    task = shop()
    system = fitted(settings(model, loss=loss), task)
    assert hits(system.scores(task.test), task.test) > 0.6
    assert len(system.epochs) <= 6
    assert system.epochs[system.best][1] == max(shown for _, shown in system.epochs)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_scores(model: str) -> None:
    task = shop(60)
    one, other, third = (fitted(settings(model, epochs=1, seed=seed), task).scores(task.test) for seed in (3, 3, 4))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize("model", MODELS)
def test_cold_and_empty_histories_are_answered(model: str) -> None:
    task = shop(60)
    system = fitted(settings(model, epochs=1), task)
    asked = cases([np.array([], np.int64), np.array([COLD]), np.array([COLD, 3]), np.array([3])], [1] * 4)
    found = system.scores(asked)
    assert found.dtype == np.float32
    assert found.shape == (4, ITEMS)
    assert np.isneginf(found[:, COLD]).all()
    assert np.isfinite(found[:, :COLD]).all()
    counts = np.bincount(task.train.item, minlength=ITEMS)
    assert (found[:2, :COLD] == counts[:COLD]).all()
    assert found[2] == pytest.approx(found[3])
    assert system.scores(cases([], [])).shape == (0, ITEMS)


@pytest.mark.parametrize("model", MODELS)
def test_with_text_a_cold_item_is_ranked_by_it(model: str) -> None:
    """The cold item's text is that of item 7, so it ranks about where that does, without having been seen."""
    vectors = np.random.default_rng(0).standard_normal((ITEMS, 12)).astype(np.float32)
    vectors[COLD] = vectors[STEP]
    task = shop(200)
    found = fitted(settings(model), task, vectors).scores(cases([chain(-2 * STEP, 3)], [STEP]))
    assert np.isfinite(found).all()
    assert (found[0] > found[0, COLD]).sum() < 15


@pytest.mark.parametrize("model", MODELS)
def test_scores_hang_on_the_case_alone(model: str) -> None:
    """A case gets the same in a batch with longer ones, whatever the padding, and training draws do not touch the
    global generator."""
    task = shop(60)
    state = torch.get_rng_state()
    system = fitted(settings(model, epochs=1), task)
    assert torch.equal(state, torch.get_rng_state())
    short, long = chain(3, 2), chain(5, 30)
    together = system.scores(cases([long, short], [1, 1]))
    assert together[1] == pytest.approx(system.scores(cases([short], [1]))[0], abs=1e-4)
    assert together[0] == pytest.approx(system.scores(cases([long], [1]))[0], abs=1e-4)


def test_a_known_user_counts_in_ncf() -> None:
    task = shop(60)
    system = fitted(settings("ncf", epochs=2), task)
    known, unknown = (system.scores(cases([chain(3, 2)], [1], user)) for user in (5, UNKNOWN))
    assert not np.allclose(known, unknown)


def test_behind_the_candidates_dien_keeps_the_order_of_its_first_stage() -> None:
    task = shop(60)
    system = fitted(settings("dien", epochs=1, candidates=5), task)
    found = system.scores(task.test)[:, :COLD]
    system.settings = replace(system.settings, candidates=0)
    whole = system.scores(task.test)[:, :COLD]
    for some, every in zip(found, whole, strict=True):
        best = np.argsort(-some)[:5]
        assert some[best] == pytest.approx(every[best], abs=1e-4)  # the candidates' scores are exact
        assert len(np.unique(some)) == COLD  # and no other is tied


def test_a_planted_test_event_changes_nothing() -> None:
    task = shop(60)
    planted = replace(task, test=cases([chain(3, 5)], [COLD], 3))
    one, other = (fitted(settings("din", epochs=1), each).scores(task.valid) for each in (task, planted))
    assert np.array_equal(one, other)


def test_without_a_pair_nothing_is_trained_and_counts_answer() -> None:
    task = shop(5)
    single = replace(task, train=task.train.of(np.arange(0, len(task.train), 6)))
    assert np.isfinite(fitted(settings("din"), single).scores(single.test)[:, np.unique(single.train.item)]).all()


def test_wrong_settings_and_shops_are_named() -> None:
    for changes in (
        {"model": "dun"},
        {"loss": "hinge"},
        {"dim": 0},
        {"dropout": 1.0},
        {"temperature": 0.0},
        {"recency": 0.0},
        {"candidates": -1},
    ):
        with pytest.raises(SettingsError, match=next(iter(changes))):
            settings(**{"model": "din", **changes})  # type: ignore[arg-type]
    task = shop(5)
    with pytest.raises(SettingsError, match="no event"):
        fitted(settings("din"), replace(task, train=task.train.of(np.zeros(0, np.int64))))
    with pytest.raises(SettingsError, match="3 text vectors for 51"):
        fitted(settings("din"), task, np.ones((3, 4), np.float32))
