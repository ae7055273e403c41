"""The trained parts that come with recgraph: packed small, given to the shop they were trained on and to no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load, save

from recgraph.cli import main
from recgraph.doctor.shop import trained
from recgraph.errors import ModelMissing, StoreError
from recgraph.store.db import Store
from recgraph.store.parquet import write_table
from recgraph.tools.embed import text_key
from recgraph.tools.ranking import LearntRanking
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.trained import FOLDERS, META, TrainedParts, in_words, published_facts
from recgraph.train import pipeline
from recgraph.train.shop import parts
from recgraph.train.shop.year import make_demo

ITEMS = "item_id,title\nA,Red shirt\nB,Blue shirt\nC,Green hat"
EVENTS = (
    "user_id,ts,action,item_id,query\nu,2025-01-01,search,,shirt\nu,2025-01-02,click,A,shirt\nu,2025-01-03,click,B,"
)
CUT = "2025-03-01T00:00:00"
Shop = Callable[..., Store]


def random(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def units(rows: int, dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    drawn = random(rows, dim)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def shop(make_store: Shop) -> Store:
    store = make_store(ITEMS, EVENTS)
    with store.writing():
        store.set_meta("simulated", "Simulated shop (seed 3)")
    return store


@pytest.fixture
def data(shop: Store, tmp_path: Path) -> Path:
    """What the stages leave: parts of made-up numbers over the shop's products."""
    data = tmp_path / "data"
    for name in (*FOLDERS, "title_embeddings", "memory"):
        (data / name).mkdir(parents=True)
        (data / name / "evidence.parquet").write_bytes(b"what it has read")
    (data / "id_embeddings" / "config.json").write_text(json.dumps({"fitted_before": CUT, "heads": 2, "layers": 0}))
    (data / "id_embeddings" / "core.safetensors").write_bytes(save({"positions.weight": random(50, 64)}))
    write_table(
        data / "id_embeddings" / "items.parquet",
        {"item_id": ["A", "B"], "vector": units(2, 64), "norm": np.ones(2, np.float32)},
    )
    TextFormer({"project.weight": random(64, 384)}, {"fitted_before": CUT, "encoder": "mini"}).save(data / "textformer")
    LearntRanking(
        ("popularity",),
        {"deviation": np.full(6, 1e-6, np.float32), "0.first": random(64, 32)},
        {"networks": 1, "fitted_before": "2025-04-01T00:00:00"},
    ).save(data / "ranking")
    (data / "title_embeddings" / "encoder.json").write_text(json.dumps({"folder": "", "name": "mini"}))
    titles = sorted(set(shop.catalogue().names), reverse=True)  # whatever order a stage writes
    write_table(data / "title_embeddings" / "titles.parquet", {"text": titles, "vector": units(len(titles), 384)})
    write_table(data / "memory" / "queries.parquet", {"query": ["shirt"], "vector": units(1, 384)})
    return data


@pytest.fixture
def packed(shop: Store, data: Path, tmp_path: Path) -> Path:
    parts.pack(data, shop, "time", tmp_path / "shipped")
    return tmp_path / "shipped"


def given(store: Store, folder: Path) -> dict[str, Any]:
    path = store.path
    store.close()
    return parts.give(path, folder)


@pytest.mark.slow
def test_the_store_gets_what_was_trained_up_to_rounding(shop: Store, data: Path, packed: Path) -> None:
    facts = given(shop, packed)
    made = TrainedParts.load(data)
    assert made.core is not None
    assert made.former is not None
    assert made.ranking is not None
    with Store.open(shop.path) as store:
        core, former, ranking = Core.published(store), TextFormer.published(store), LearntRanking.published(store)
        assert core is not None
        assert former is not None
        assert ranking is not None
        assert core.item_ids == made.core.item_ids
        np.testing.assert_allclose(core.items, made.core.items, atol=1e-6)
        np.testing.assert_allclose(
            former.weights["project.weight"], made.former.weights["project.weight"], rtol=1e-3, atol=1e-7
        )
        assert former.weights["project.weight"].dtype == np.float32
        assert former.config == made.former.config
        assert (ranking.sources, ranking.config) == (made.ranking.sources, made.ranking.config)
        # what is divided by is not rounded: float16 holds 1e-6 to four per cent
        assert np.array_equal(ranking.weights["deviation"], made.ranking.weights["deviation"])
        keys, vectors = store.all_vectors("title", "mini")
        expected = dict(zip(sorted(set(store.catalogue().names), reverse=True), units(3, 384), strict=True))
        for text, vector in expected.items():
            assert vectors[keys.index(text_key(text))] @ vector > 0.9999
        assert store.all_vectors("query", "mini")[0] == [text_key("shirt")]
        assert published_facts(store) == facts
    assert (facts["split"], facts["titles"]["model"], facts["textformer"]["fitted_before"]) == ("time", "mini", CUT)


@pytest.mark.slow
def test_an_earlier_moment_is_answered_without_what_knows_it(shop: Store, packed: Path) -> None:
    given(shop, packed)
    with Store.open(shop.path) as store:
        between = datetime(2025, 3, 5)
        assert Core.published(store, between) is not None
        assert LearntRanking.published(store, between) is None
        assert Core.published(store, datetime(2025, 2, 28)) is None


def test_equal_parts_are_equal_bytes(shop: Store, data: Path, packed: Path, tmp_path: Path) -> None:
    parts.pack(data, shop, "time", tmp_path / "again")
    files = sorted(path.relative_to(packed) for path in packed.rglob("*") if path.is_file())
    assert len(files) == 9
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for file in files:
        assert (packed / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    weights = load((packed / "textformer" / "textformer.safetensors").read_bytes())
    assert weights["project.weight"].dtype == np.float16


def test_damaged_parts_are_refused_and_named(shop: Store, packed: Path) -> None:
    file = packed / "ranking" / "ranking.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelMissing, match=r"ranking\.safetensors is not what it was.*git checkout"):
        given(shop, packed)
    file.unlink()
    with pytest.raises(ModelMissing, match=r"not all there.*ranking\.safetensors"):
        parts.give(shop.path, packed)
    (packed / parts.MANIFEST).write_text("{}")
    with pytest.raises(ModelMissing, match="damaged"):
        parts.give(shop.path, packed)
    with Store.open(shop.path) as store:
        assert published_facts(store) == {}
        assert Core.published(store) is None


@pytest.mark.slow
@pytest.mark.parametrize("was", ["Red shirt", "click,A", "click,A,shirt"])
def test_another_shop_gets_none_of_it(make_store: Shop, packed: Path, was: str) -> None:
    """One title, product or search apart."""
    other = make_store(ITEMS.replace(was, "Red skirt"), EVENTS.replace(was, "click,C,skirt"), name="other")
    with pytest.raises(ModelMissing, match=r"another shop \(Simulated shop \(seed 3\)\).*training"):
        given(other, packed)


@pytest.mark.slow
def test_what_was_published_before_is_left_alone(shop: Store, packed: Path) -> None:
    facts = given(shop, packed)
    assert parts.give(shop.path, packed) == facts
    own = {"revision": "r", "core": {"fitted_before": CUT}}
    with Store.create(shop.path) as store, store.writing():
        store.set_meta(META, json.dumps(own))
    assert parts.give(shop.path, packed) == own


def test_a_trained_title_encoder_is_not_shipped(shop: Store, data: Path, tmp_path: Path) -> None:
    (data / "title_embeddings" / "encoder.json").write_text('{"folder": "lstm", "encoder": "lstm", "name": "x"}')
    with pytest.raises(StoreError, match="title encoder is lstm"):
        parts.pack(data, shop, "time", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_stage_leaves_the_demos_parts_alone_for_a_shop_of_your_own(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "prepare" / "time").mkdir(parents=True)
    before = (packed / parts.MANIFEST).read_bytes()
    told: list[str] = []
    params = {"data": "mine.duckdb", "split": "time", "parts": {"folder": "shipped"}}
    parts.run(params, tmp_path, told.append)
    assert (packed / parts.MANIFEST).read_bytes() == before
    assert "mine.duckdb" in told[0]


def test_a_line_says_on_what_the_parts_were_trained() -> None:
    facts = {
        "core": {"fitted_before": CUT},
        "textformer": {"fitted_before": CUT},
        "ranking": {"sources": ["popularity"], "fitted_before": None},
    }
    assert in_words(facts) == "CORE and text transformer (learnt before 2025-03-01), ranking (learnt without a cut)"
    assert in_words({"core": None, "ranking": {"sources": [], "fitted_before": None}}) == in_words({}) == ""


@pytest.mark.slow
def test_the_doctor_says_whether_trained_parts_rank(shop: Store, packed: Path) -> None:
    (check,) = trained(shop)
    assert (check.ok, "dvc repro" in check.mend) == (None, True)
    given(shop, packed)
    with Store.create(shop.path) as store:
        (check,) = trained(store)
        assert (check.ok, check.found) == (True, in_words(published_facts(store)))
        with store.writing():
            store.set_meta("revision", "later")
        (check,) = trained(store)
        assert "ingested since" in check.found


def demo(monkeypatch: pytest.MonkeyPatch, path: Path, give: Callable[..., dict[str, Any]], encoder: str) -> str:
    """What `recgraph demo` prints over a shop that is there already."""
    monkeypatch.setattr("recgraph.train.shop.year.make_demo", lambda *_, **__: None)
    monkeypatch.setattr("recgraph.train.shop.parts.give", give)
    monkeypatch.setattr("recgraph.cli._make_ready", lambda *_: ({}, encoder))
    done = CliRunner().invoke(main, ["demo", "--store", str(path)], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_the_demo_says_what_was_made_and_why_parts_are_not_used(
    shop: Store, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give, path = parts.give, shop.path
    shop.close()

    def refused(_: object) -> dict[str, Any]:
        raise ModelMissing("They are damaged.")

    out = demo(monkeypatch, path, lambda place: give(place, packed), "mini")
    assert "1 shoppers, 3 products" in out
    assert "Trained" in out
    assert "learnt before 2025-03-01" in out
    assert "Next: recgraph run --user U123" in out
    assert "mini" in demo(monkeypatch, path, lambda place: give(place, packed), "other-encoder")
    out = demo(monkeypatch, path, refused, "mini")
    assert "Untrained" in out
    assert "They are damaged." in out


def test_without_torch_the_demo_is_untrained_and_says_what_to_install(
    shop: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once ended in a traceback after the shop was made."""

    def without_torch(*_: object) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    path = shop.path
    shop.close()
    out = demo(monkeypatch, path, without_torch, "mini")
    assert "Untrained" in out
    assert "'torch': pip install" in out
    monkeypatch.setattr("recgraph.cli._make_ready", without_torch)
    done = CliRunner().invoke(main, ["build", "--store", str(path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "'torch': pip install" in done.stderr


def test_the_shipped_parts_are_whole_and_small() -> None:
    told, _ = parts._manifest(parts.SHIPPED)
    files = [path for path in parts.SHIPPED.rglob("*") if path.is_file()]
    assert {str(path.relative_to(parts.SHIPPED)) for path in files} == {*told["files"], parts.MANIFEST}
    assert sum(path.stat().st_size for path in files) < 8e6
    assert pipeline.STAGES["parts"][0] == parts.__name__


@pytest.mark.slow
def test_the_shipped_parts_are_those_of_the_demo(tmp_path: Path) -> None:
    """Fails where the simulator or the training changed and the parts were not packed again: dvc repro parts."""
    make_demo(tmp_path / "demo.duckdb")
    facts = parts.give(tmp_path / "demo.duckdb")
    assert {"core", "textformer", "ranking", "titles"} <= set(facts)
    with Store.open(tmp_path / "demo.duckdb") as store:
        assert store.meta("adapter") == "default"
        ranking = LearntRanking.published(store)
        assert ranking is not None
        assert ranking.config["encoder"] == facts["titles"]["model"]
