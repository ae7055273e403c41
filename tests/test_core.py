"""CORE: one pass is all prefixes, the loss is torch's, serving is training without gradients, and a killed training
ends as the unbroken one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, click
from torch.nn import functional as F  # noqa: N812

from recgraph.errors import SettingsError, StoreError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.parquet import write_table
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.kept import Built
from recgraph.train import id_embeddings
from recgraph.train.metrics import MISS
from recgraph.train.networks import core
from recgraph.train.networks.batches import batches, windows
from recgraph.train.networks.core import CoreModel, CoreSettings, HeldOut, ranks, train
from recgraph.train.params import settings_of

SMALL = CoreSettings(
    dim=8,
    inner=16,
    batch=16,
    epochs=4,
    max_length=6,
    threads=1,
    hidden_dropout=0.1,
    session_dropout=0.1,
    item_dropout=0.1,
)
ITEMS = 12


def walks(count: int = 30, seed: int = 0) -> tuple[core.Rows, core.Rows]:
    """Sequences of 2 to 9 items in which each item is followed by the next of twelve in a ring."""
    draw = np.random.default_rng(seed)
    lists = [(draw.integers(ITEMS) + np.arange(draw.integers(2, 10))) % ITEMS for _ in range(count)]
    return np.concatenate(lists), np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)


def weights(model: CoreModel) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


# -- the model ---------------------------------------------------------------------------------------------------------


def test_one_pass_gives_the_session_of_every_prefix() -> None:
    torch.manual_seed(0)
    model = CoreModel(ITEMS, SMALL).eval()
    with torch.no_grad():
        model.recency.uniform_(-1, 1)
        rows = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
        whole = model.sessions(rows)
        for length in range(1, 6):
            assert torch.allclose(whole[0, length - 1], model.sessions(rows[:1, :length])[0, -1], atol=1e-6)
        # padding at the end is not seen
        assert torch.allclose(whole[1, 2], model.sessions(rows[1:, :3])[0, -1], atol=1e-6)


@pytest.mark.parametrize("competes", [True, False])
def test_the_loss_and_its_gradients_are_those_of_torch(competes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_PIECE", 3)
    torch.manual_seed(0)
    model = CoreModel(ITEMS, replace(SMALL, history_competes=competes)).eval()
    rows, targets = torch.tensor([[3, 1, 4, 1], [9, 2, 12, 12]]), torch.tensor([[1, 4, 1, 5], [2, 6, -1, -1]])
    model.loss(rows, targets).backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    scores = model.sessions(rows) @ F.normalize(model.items.weight, dim=-1).T / SMALL.temperature
    if not competes:
        for line in range(2):
            for place in range(4):
                for item in set(rows[line, : place + 1].tolist()) - {int(targets[line, place])}:
                    scores[line, place, item] = -torch.inf
    F.cross_entropy(scores[targets >= 0], targets[targets >= 0]).backward()
    for name, value in model.named_parameters():
        assert value.grad is not None
        assert torch.allclose(found[name], value.grad, atol=1e-5), name


def test_all_sampled_items_together_are_the_full_softmax() -> None:
    """With very many draws, the sampled loss is near the full one."""
    torch.manual_seed(0)
    full = CoreModel(ITEMS, replace(SMALL, history_competes=True)).eval()
    sampled = CoreModel(ITEMS, replace(SMALL, negatives=50_000)).eval()
    sampled.load_state_dict(full.state_dict())
    rows, targets = torch.tensor([[3, 1, 4, 1]]), torch.tensor([[1, 4, 1, 5]])
    assert float(sampled.loss(rows, targets).detach()) == pytest.approx(
        float(full.loss(rows, targets).detach()), rel=0.02
    )


def test_each_item_but_the_first_is_a_target_once() -> None:
    starts = np.array([0, 3, 4, 14])
    assert windows(starts, 4).tolist() == [[0, 3, 1], [4, 9, 5], [6, 11, 9], [8, 13, 11], [9, 14, 13]]
    found = [
        (int(target), int(rows[line, place]))
        for rows, targets in batches(np.arange(14), windows(starts, 4), 3, 99, np.random.default_rng(0))
        for line in range(len(rows))
        for place, target in enumerate(targets[line])
        if target >= 0
    ]
    assert sorted(found) == [(item, item - 1) for item in [1, 2, *range(5, 14)]]
    assert list(batches(np.arange(3), windows(np.array([0, 1, 2, 3]), 4), 3, 99, np.random.default_rng(0))) == []


def test_ranks_leave_out_what_is_hidden_and_miss_what_is_cold() -> None:
    model = CoreModel(4, replace(SMALL, dim=2, layers=0))
    with torch.no_grad():
        model.items.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [1.0, 0.3], [0.0, 1.0]]))
    zero, one = np.array([0]), np.array([0, 1])
    cases = HeldOut(
        [zero, zero, zero, zero, np.array([], dtype=np.int64)], np.array([1, 2, 1, -1, 1]), [zero, one, one, zero, zero]
    )
    everything, shown = ranks(model, cases)
    assert everything.better.tolist() == [1, 2, 1, MISS, MISS]
    assert everything.equal.tolist() == [0, 1, 0, 0, 0]  # items 2 and 3 are alike
    assert shown.better.tolist() == [0, 0, MISS, MISS, MISS]
    assert shown.equal.tolist() == [0, 1, 0, 0, 0]


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [0, 20])
def test_it_learns_what_follows_what(negatives: int) -> None:
    items, starts = walks(100)
    histories = [np.arange(first, first + 3) % ITEMS for first in range(ITEMS)]
    cases = HeldOut(histories, (np.arange(ITEMS) + 3) % ITEMS, histories)
    found = train(
        items,
        starts,
        ITEMS,
        replace(SMALL, dim=16, batch=64, epochs=20, learning_rate=0.02, negatives=negatives),
        cases,
    )
    assert (ranks(found.model, cases)[1].better == 0).mean() > 0.8
    assert found.epochs[-1]["loss"] < found.epochs[0]["loss"]
    assert found.best == max(range(len(found.epochs)), key=lambda epoch: found.epochs[epoch]["ndcg@10"])


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 5])
def test_the_same_training_gives_the_same_bytes_also_after_a_kill(negatives: int, tmp_path: Path) -> None:
    items, starts = walks()
    cases = HeldOut([items[:3]], items[3:4], [items[:0]])
    settings = replace(SMALL, negatives=negatives, patience=9)
    drawn = torch.random.get_rng_state()
    whole = train(items, starts, ITEMS, settings, cases)
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert weights(train(items, starts, ITEMS, settings, cases).model) == weights(whole.model)
    train(items, starts, ITEMS, replace(settings, epochs=2), cases, tmp_path)  # as if killed after the second epoch
    resumed = train(items, starts, ITEMS, settings, cases, tmp_path)
    assert weights(resumed.model) == weights(whole.model)
    assert resumed.epochs == whole.epochs
    # another training's checkpoint is not gone on with
    other = train(items, starts, ITEMS, replace(settings, seed=1), cases, tmp_path)
    assert len(other.epochs) == 4
    assert weights(other.model) != weights(whole.model)


def test_it_ends_when_validation_gets_no_better() -> None:
    items, starts = walks()
    never = HeldOut([items[:3]], np.array([-1]), [items[:0]])
    found = train(items, starts, ITEMS, replace(SMALL, epochs=20, patience=2), never)
    assert (len(found.epochs), found.best) == (3, 0)


def test_the_cold_item_is_learnt_from_rare_ones() -> None:
    items, starts = walks()
    with torch.random.fork_rng():
        torch.manual_seed(SMALL.seed)
        begin = CoreModel(ITEMS, SMALL)
    settings = replace(SMALL, rare_share=0.9, cold_share=0.5, item_dropout=0.0)
    assert not torch.allclose(
        train(items, starts, ITEMS, settings).model.items.weight[-1], begin.items.weight[-1], atol=1e-3
    )


@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        ({"dims": 3}, "dims is no parameter"),
        ({"dim": 3}, "multiple"),
        ({"dim": "64"}, "whole number"),
        ({"item_dropout": 1}, "below 1"),
    ],
)
def test_a_wrong_parameter_is_named(block: dict[str, object], wrong: str) -> None:
    with pytest.raises(SettingsError, match=wrong):
        settings_of(CoreSettings, block, "id_embeddings")


# -- the stage and serving ---------------------------------------------------------------------------------------------

CASES = {
    "part": ["test", "valid"],
    "user_id": ["U1", "U2"],
    "as_of": [datetime(2025, 3, 1), datetime(2025, 3, 1)],
    "query": ["", ""],
    "item_id": ["S1OLIV", "S1NAVY"],
}


@pytest.fixture
def folder(make_store: Callable[..., Store], tmp_path: Path) -> Path:
    """A folder in which the stages before this one have run, on the shop of twelve products."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES, name="trained")
    prepared = tmp_path / "work" / "data" / "prepare"
    snapshot.write(store, prepared / "all")
    snapshot.write(store, prepared / "time" / "train", before=datetime(2025, 3, 1))
    write_table(prepared / "time" / "cases.parquet", CASES)
    (prepared / "time" / "split.json").write_text(
        json.dumps({"split": "time", "fitted_before": "2025-03-01T00:00:00"}), encoding="utf-8"
    )
    return tmp_path / "work"


PARAMS = {"split": "time", "id_embeddings": {"dim": 8, "inner": 16, "epochs": 2, "threads": 1}}


@pytest.mark.slow
def test_the_stage_writes_the_same_bytes_twice_and_serving_reads_them(
    folder: Path, make_store: Callable[..., Store]
) -> None:
    told: list[str] = []
    id_embeddings.run(PARAMS, folder, told.append)
    out = folder / "data" / "id_embeddings"
    first = {file.name: file.read_bytes() for file in [*out.iterdir(), *(folder / "metrics").iterdir()]}
    assert set(first) == {
        "items.parquet",
        "core.safetensors",
        "config.json",
        "evidence.parquet",
        "id_embeddings.json",
        "id_embeddings_loss.csv",
    }
    id_embeddings.run(PARAMS, folder, told.append)
    assert first == {file.name: file.read_bytes() for file in [*out.iterdir(), *(folder / "metrics").iterdir()]}
    assert not (folder / "data" / "id_embeddings.part").exists()
    assert json.loads(first["config.json"])["fitted_before"] == "2025-03-01T00:00:00"
    found = Core.load(out)
    assert np.allclose(np.linalg.norm(found.units(), axis=1), 1, atol=1e-5)
    assert np.array_equal(found.session_vector([0, 0, 1]), found.session_vector([0, 1]))


def test_the_encoder_in_numpy_is_the_one_in_torch(tmp_path: Path) -> None:
    items, starts = walks()
    trained = train(items, starts, ITEMS, SMALL)
    ids = [f"I{row:02d}" for row in range(ITEMS)]
    id_embeddings.save(
        trained,
        ids,
        {"heads": SMALL.heads, "layers": SMALL.layers, "max_length": SMALL.max_length, "fitted_before": None},
        tmp_path,
    )
    found = Core.load(tmp_path)
    for rows in ([3], [1, 5, 2], [1, 2, 3, 4, 5, 6, 7, 8]):
        with torch.no_grad():
            expected = trained.model.sessions(torch.tensor([rows[-SMALL.max_length :]]))[0, -1].numpy()
        assert np.allclose(found.session_vector(rows), expected, atol=1e-5)


@pytest.mark.slow
def test_cold_items_are_read_in_a_history_but_never_found(folder: Path) -> None:
    id_embeddings.run(PARAMS, folder, lambda _: None)
    trained = Core.load(folder / "data" / "id_embeddings")
    wider = trained.over(["NEW", *trained.item_ids])
    assert wider.cold.tolist() == [True] + [False] * len(trained.item_ids)
    assert np.array_equal(wider.items[0], trained.weights["cold"])
    assert not wider.units()[0].any()
    assert not wider.session_vector([0]).any()
    assert not wider.session_vector([]).any()
    assert np.array_equal(wider.session_vector([2]), trained.session_vector([1]))
    assert not np.allclose(wider.session_vector([0, 2]), trained.session_vector([1]))


@pytest.mark.slow
def test_a_published_core_is_used_only_for_runs_after_its_cut(folder: Path, make_store: Callable[..., Store]) -> None:
    id_embeddings.run(PARAMS, folder, lambda _: None)
    trained = Core.load(folder / "data" / "id_embeddings")
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    assert Core.published(store) is None
    trained.publish(store)
    assert Core.published(store, datetime(2025, 2, 1)) is None
    served = Core.published(store, datetime(2025, 3, 1))
    assert served is not None
    assert served.item_ids == trained.item_ids
    assert np.allclose(served.session_vector([0, 1]), trained.session_vector([0, 1]), atol=1e-5)
    early, late = (Retriever.build(store, FakeEncoder(), before) for before in (datetime(2025, 2, 1), None))
    assert (early.fitted.core, late.fitted.core is None) == (None, False)
    assert "core" in late.ranker.reader.sources
    assert "core" not in early.ranker.reader.sources
    found = late.candidates(RetrievalQuery(history=[click(1, "S1NAVY")], k=5))
    assert {candidate.source for candidate in found} <= {"sequence", "title", "id", "popular"}


@pytest.mark.slow
def test_a_core_of_leave_one_out_is_used_only_where_nothing_is_hidden(
    folder: Path, make_store: Callable[..., Store]
) -> None:
    id_embeddings.run(PARAMS, folder, lambda _: None)
    trained = Core.load(folder / "data" / "id_embeddings")
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    replace(trained, config={**trained.config, "fitted_before": None}).publish(store)
    assert Core.published(store) is not None
    assert Core.published(store, datetime(2030, 1, 1)) is None


def test_a_kept_core_is_the_published_one_over_the_catalogue(make_store: Callable[..., Store], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    numbers = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in {"cold": (4,), "b.weight": (3, 4)}.items()
    }
    table = draw.standard_normal((2, 4)).astype(np.float32)
    made = Core(("A", "C"), table, np.zeros(2, np.bool_), numbers, {"fitted_before": "2025-02-01T00:00:00"})
    store = make_store("item_id,title\nA,Tee")
    made.publish(store)
    for _ in range(2):  # as it is made, and as it lies in the folder
        kept = Core.kept(store, None, ["A", "B", "C"], Built(tmp_path))
        assert kept is not None
        assert kept.cold.tolist() == [False, True, False]
        assert np.allclose(kept.items, [table[0], numbers["cold"], table[1]], atol=1e-6)
        assert {name: one.tolist() for name, one in kept.weights.items()} == {
            name: one.tolist() for name, one in numbers.items()
        }
    assert Core.published_name(store) == made.name
    assert Core.kept(store, datetime(2025, 1, 1), ["A"], Built()) is None
    assert Core.published_name(store, datetime(2025, 1, 1)) == ""


def test_a_missing_core_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="recgraph train id_embeddings"):
        Core.load(tmp_path)
