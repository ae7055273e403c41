"""The sequence baselines on a shop of 40 items where each item is always followed by the same other one, and their
losses by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.sequence import (
    BERT4RecSystem,
    ConvSettings,
    CoreSystem,
    GRU4RecModel,
    GRU4RecSystem,
    NARMModel,
    NARMSystem,
    NextItNetModel,
    NextItNetSystem,
    RecurrentSettings,
    SASRecSystem,
)
from recgraph.train.networks.attention import AttentionSettings, BERT4RecModel, SASRecModel
from recgraph.train.networks.core import CoreSettings
from recgraph.train.networks.sequence import Items, SequenceModel, SequenceSettings, SequenceSystem, readable, sequences
from recgraph.train.task import Cases, Events, Task

ITEMS, COLD = 40, 39  # of 40 items the last is in no train event
QUICK: dict[str, Any] = {
    "dim": 32,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "batch": 256,
    "epochs": 12,
    "patience": 12,
    "max_length": 5,
}
SYSTEMS: dict[str, Any] = {
    "sasrec": lambda: SASRecSystem(AttentionSettings(**QUICK, negatives=16)),
    "sasrec-bce": lambda: SASRecSystem(AttentionSettings(**{**QUICK, "epochs": 30}, loss="bce", cosine=False)),
    "bert4rec": lambda: BERT4RecSystem(
        AttentionSettings(**{**QUICK, "epochs": 40}, last_share=0.6, attention_dropout=0.0)
    ),
    "gru4rec": lambda: GRU4RecSystem(RecurrentSettings(**QUICK, hidden=32)),
    "narm": lambda: NARMSystem(RecurrentSettings(**QUICK, hidden=32)),
    "nextitnet": lambda: NextItNetSystem(ConvSettings(**{**QUICK, "epochs": 20})),
    "core": lambda: CoreSystem(
        CoreSettings(
            dim=32,
            epochs=12,
            max_length=5,
            learning_rate=0.01,
            batch=256,
            hidden_dropout=0.1,
            session_dropout=0.1,
            threads=1,
        )
    ),
}
MODELS: dict[str, Any] = {
    "sasrec": (SASRecModel, AttentionSettings(dim=16)),
    "gru4rec": (GRU4RecModel, RecurrentSettings(dim=16, hidden=8)),
    "narm": (NARMModel, RecurrentSettings(dim=16, hidden=8)),
    "nextitnet": (NextItNetModel, ConvSettings(dim=16)),
}


def cases(histories: list[list[int]], targets: list[int]) -> Cases:
    rows = tuple(np.array(one, np.int64) for one in histories)
    zeros = np.zeros(len(rows), np.int64)
    actions, times = (
        tuple(np.zeros(len(one), np.int8) for one in rows),
        tuple(np.arange(len(one), dtype=np.float64) for one in rows),
    )
    return Cases(rows, actions, times, np.array(targets, np.int64), zeros, ("",) * len(rows), zeros.astype(np.float64))


def shop(users: int = 120, seed: int = 0) -> Task:
    """Each user starts anywhere and goes on from item i to i + 11 (mod 39), which meets no item twice."""
    rng, follow = np.random.default_rng(seed), lambda item: (item + 11) % 39
    walks = []
    for length in rng.integers(5, 9, users):
        walk = [int(rng.integers(39))]
        while len(walk) < length:
            walk.append(follow(walk[-1]))
        walks.append(walk)
    train = [walk[:-2] for walk in walks]
    user = np.repeat(np.arange(users), [len(one) for one in train])
    item = np.concatenate(train).astype(np.int64)
    events = Events(user, item, np.arange(len(item), dtype=np.float64), np.zeros(len(item), np.int8))
    ids = tuple(f"item {row}" for row in range(ITEMS))
    valid, test = (
        cases([one[:-2] for one in walks], [one[-2] for one in walks]),
        cases([one[:-1] for one in walks], [one[-1] for one in walks]),
    )
    return Task("walks", "loo", ids, ids, np.full(ITEMS, -1), np.full(ITEMS, -np.inf), events, valid, test, None)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Each system after it was fitted, once for all tests."""
    found: dict[str, Any] = {}
    for name, build in SYSTEMS.items():
        found[name] = build()
        found[name].fit(shop(), lambda _: None)
    return found


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_learns_which_item_follows_which(fitted: dict[str, Any], name: str) -> None:
    task, system = shop(), fitted[name]
    scores = system.scores(task.test)
    for line, had in enumerate(task.test.history):
        scores[line, had] = -np.inf
    assert name.startswith(system.name)  # the registry gives a variant its own
    assert scores.dtype == np.float32
    assert np.mean(scores.argmax(1) == task.test.target) > 0.9


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    task = shop(40)
    found = []
    for _ in range(2):
        system = SYSTEMS[name]()
        system.settings = replace(system.settings, epochs=2)
        system.fit(task, lambda _: None)
        found.append(system.scores(task.test))
        torch.rand(3)  # what happens elsewhere does not matter
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("name", SYSTEMS)
def test_scores_do_not_depend_on_which_cases_are_asked_together(fitted: dict[str, Any], name: str) -> None:
    task, system = shop(), fitted[name]
    together, alone = system.scores(task.test), system.scores(task.test.of(np.array([5])))
    assert np.allclose(together[5], alone[0], atol=1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_histories_without_a_known_item_are_answered_with_popularity(fitted: dict[str, Any], name: str) -> None:
    task = shop()
    scores = fitted[name].scores(cases([[], [COLD], [COLD, 3], [3]], [0, 0, 0, 0]))
    counts = np.bincount(task.train.item, minlength=ITEMS)
    assert np.array_equal(scores[0, :COLD], counts[:COLD])
    assert np.array_equal(scores[0], scores[1])
    assert np.allclose(scores[2], scores[3])
    assert np.all(scores[:, COLD] == -np.inf)
    assert np.isfinite(scores[:, :COLD]).all()


def test_sasrec_with_its_own_loss_reads_items_at_root_dim_times_their_size() -> None:
    torch.manual_seed(0)
    rows, items = torch.randint(ITEMS, (2, 5)), Items(ITEMS, np.arange(ITEMS))
    for settings, scale in (
        (AttentionSettings(dim=16), 1.0),
        (AttentionSettings(dim=16, loss="bce", cosine=False), 4.0),
    ):
        model = SASRecModel(items, settings).eval()
        with torch.inference_mode():
            read = model.encoded(model.vectors(rows) * scale, model.positions.weight[:5], None)
            assert torch.equal(model.sessions(rows), read)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_does_not_know_what_comes_later(name: str) -> None:
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    model: SequenceModel = kind(Items(ITEMS, np.arange(ITEMS)), settings).eval()
    rows = torch.randint(ITEMS, (3, 12))
    other = rows.clone()
    other[:, 7:] = (other[:, 7:] + 1) % ITEMS
    with torch.inference_mode():
        states, changed, short = model.sessions(rows), model.sessions(other), model.sessions(rows[:, :7])
    assert torch.allclose(states[:, :7], changed[:, :7], atol=1e-6)
    assert torch.allclose(states[:, :7], short, atol=1e-6)
    assert not torch.allclose(states[:, 7:], changed[:, 7:], atol=1e-3)


def test_bert4rec_does_not_see_what_it_guesses_nor_padding() -> None:
    torch.manual_seed(0)
    model = BERT4RecModel(Items(ITEMS, np.arange(ITEMS)), AttentionSettings(dim=16)).eval()
    rows, masked = torch.randint(ITEMS, (2, 6)), torch.zeros(2, 6, dtype=torch.bool)
    masked[:, 3] = True
    other = rows.clone()
    other[:, 3] = (other[:, 3] + 1) % ITEMS
    with torch.inference_mode():
        assert torch.equal(model.guessed(rows, masked), model.guessed(other, masked))
        padded = torch.nn.functional.pad(rows, (0, 3), value=model.padding)
        assert torch.allclose(
            model.last(rows, torch.tensor([6, 6])), model.last(padded, torch.tensor([6, 6])), atol=1e-5
        )


def plain(negatives: int, **others: Any) -> SequenceModel:
    torch.manual_seed(1)
    model = SequenceModel(
        Items(ITEMS, np.arange(ITEMS)), SequenceSettings(dim=8, negatives=negatives, temperature=0.5, **others)
    )
    model.start()
    return model


def gradient(
    model: SequenceModel, states: torch.Tensor, targets: torch.Tensor, past: torch.Tensor
) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model.compared(states, targets, past)
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.items.weight.grad is not None
    return float(loss.detach()), model.items.weight.grad.clone()


def test_the_softmax_over_all_items_leaves_out_what_the_user_had() -> None:
    model = plain(0)
    states, targets, past = torch.randn(2, 8), torch.tensor([4, 5]), torch.tensor([[1, 2], [ITEMS, 7]])
    scores = model.sided(states) @ model.sided(model.items.weight[:ITEMS]).T
    scores[0, [1, 2]] = scores[1, 7] = -math.inf
    right = torch.nn.functional.cross_entropy(scores, targets).detach()
    assert float(model.compared(states, targets, past).detach()) == pytest.approx(float(right), rel=1e-5)


def test_the_sampled_softmax_has_the_gradient_of_the_full_one_on_average() -> None:
    full, sampled = plain(0), plain(30)
    states, targets, past = torch.randn(6, 8), torch.arange(6), torch.full((6, 1), ITEMS)
    loss, exact = gradient(full, states, targets, past)
    drawn = [gradient(sampled, states, targets, past) for _ in range(300)]
    mean = torch.stack([one for _, one in drawn]).mean(0)
    assert np.mean([one for one, _ in drawn]) == pytest.approx(loss, rel=0.02)
    assert float((mean - exact).norm() / exact.norm()) < 0.1
    assert not torch.allclose(drawn[0][1], exact, atol=1e-3)


def test_bce_asks_about_the_target_and_one_other_item() -> None:
    torch.manual_seed(0)
    model = SequenceModel(Items(3, np.array([0, 1])), SequenceSettings(dim=1, loss="bce", cosine=False))
    with torch.no_grad():
        model.items.weight[:] = torch.tensor([[1.0], [2.0], [9.0], [0.0]])
    states, targets = torch.ones(4000, 1), torch.zeros(4000, dtype=torch.int64)
    # item 0 is wanted; item 1 is drawn half of the time, item 0 is never wrong
    yes, no = math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))
    assert float(model.compared(states, targets, torch.full((4000, 1), 3)).detach()) == pytest.approx(
        yes + no / 2, rel=0.05
    )
    # the user had item 1
    assert float(model.compared(states, targets, torch.full((4000, 1), 1)).detach()) == pytest.approx(yes, rel=1e-4)


def test_text_makes_an_item_without_events_readable_and_rankable() -> None:
    task = shop()
    text = np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float32)
    text[COLD] = text[3 + 11]  # says the same as what follows item 3
    system = SASRecSystem(AttentionSettings(**QUICK))
    system.text = text
    system.fit(task, lambda _: None)
    scores = system.scores(cases([[3], [COLD]], [0, 0]))
    assert np.isfinite(scores).all()
    assert (scores[0] > scores[0, COLD]).sum() < 8
    assert not np.allclose(scores[0], scores[1])


def test_the_best_epoch_is_kept_and_training_ends_without_progress() -> None:
    task = shop()
    system = SASRecSystem(AttentionSettings(**{**QUICK, "epochs": 60, "patience": 3}))
    system.fit(task, lambda _: None)
    shown = [valid for _, valid in system.epochs]
    assert len(shown) < 60
    assert system.best == int(np.argmax(shown)) == len(shown) - 4
    assert system.validate(task.valid) == pytest.approx(shown[system.best])


def test_sequences_and_histories_have_no_repeats_in_a_row() -> None:
    user, item = np.array([0, 0, 0, 0, 1, 1]), np.array([5, 5, 6, 5, 5, 5])
    items, starts = sequences(Events(user, item, np.arange(6.0), np.zeros(6, np.int8)))
    assert items.tolist() == [5, 6, 5, 5]
    assert starts.tolist() == [0, 3, 4]
    found = readable([item, np.array([9, 5, 9, 5]), np.array([], np.int64)], np.array([5, 6]), 2)
    assert [one.tolist() for one in found] == [[6, 5], [5], []]


def test_wrong_settings_and_inputs_are_named() -> None:
    with pytest.raises(SettingsError, match="loss is 'hinge'"):
        SequenceSettings(loss="hinge")
    with pytest.raises(SettingsError, match="dim is 10; it must be a multiple of heads, 4"):
        AttentionSettings(dim=10, heads=4)
    with pytest.raises(SettingsError, match="hidden is 0"):
        RecurrentSettings(hidden=0)
    with pytest.raises(SettingsError, match="kernel is 0"):
        ConvSettings(kernel=0)
    task = shop()
    nothing = replace(task, train=task.train.of(np.zeros(len(task.train), bool)))
    for system in (SASRecSystem(AttentionSettings()), CoreSystem(CoreSettings())):
        with pytest.raises(SettingsError, match="walks has no event"):
            system.fit(nothing, lambda _: None)
    short = SASRecSystem(AttentionSettings())
    short.text = np.zeros((3, 4), np.float32)
    with pytest.raises(SettingsError, match="3 text vectors for 40 items"):
        short.fit(task, lambda _: None)


def test_a_system_without_validation_keeps_its_last_epoch() -> None:
    task = shop(30)
    nobody = replace(task, valid=task.valid.of(np.array([], np.int64)))
    system: SequenceSystem = NextItNetSystem(ConvSettings(**{**QUICK, "epochs": 3}))
    system.fit(nobody, lambda _: None)
    assert system.best == 2
