"""The pipeline's spine: dvc.yaml, params.yaml and the stages agree, and what is missing is named with what repairs
it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from recgraph.cli import main
from recgraph.errors import SettingsError, StoreError
from recgraph.store.db import Store
from recgraph.tools.index import VectorIndex
from recgraph.tools.trained import META
from recgraph.train import publish
from recgraph.train.params import block, load_params
from recgraph.train.pipeline import STAGES, TRAINED, progress, run_stage, split_folder
from recgraph.train.prepare import PrepareParams

ROOT = Path(__file__).resolve().parent.parent
DVC: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = load_params(ROOT)


def resolved(text: str) -> str:
    """A path of dvc.yaml with the defaults of params.yaml put in; the matrix of tasks stays."""
    return re.sub(
        r"\$\{(\w[\w.]*)\}", lambda found: _param(found[1]) if not found[1].startswith("item.") else found[0], text
    )


def _param(name: str) -> str:
    found: Any = PARAMS
    for part in name.split("."):
        found = found[part]
    return str(found)


def paths(stage: str, kind: str) -> list[str]:
    return [
        resolved(entry if isinstance(entry, str) else next(iter(entry))) for entry in DVC["stages"][stage].get(kind, [])
    ]


def test_dvc_runs_these_stages_in_this_order() -> None:
    assert list(DVC["stages"]) == list(STAGES)
    for stage, entry in DVC["stages"].items():
        assert entry["cmd"] == f"recgraph train {stage}" + (" --task ${item.task}" if stage == "sft" else "")
    assert DVC["stages"]["sft"]["matrix"] == {"task": list(TRAINED)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_code_its_params_and_on_what_others_write(stage: str) -> None:
    outs = {out for other in DVC["stages"] for kind in ("outs", "metrics", "plots") for out in paths(other, kind)}
    deps = paths(stage, "deps")
    for dep in deps:
        tasks = [dep.replace("/" + task, "/${item.task}") for task in TRAINED] + [dep]
        made = (
            any(one == out or one.startswith(out + "/") for one in tasks for out in outs)
            or dep == "data/examples/${item.task}.parquet"
        )
        assert made or (ROOT / dep).exists(), (
            f"{stage} depends on {dep}, which no stage writes and the repository does not have"
        )
    code = STAGES[stage][0].replace("recgraph.", "", 1).replace(".", "/") + ".py"
    # Adapters in the repository are not to be trained again for a comment in the code.
    assert (code in deps) == (stage != "sft")
    assert stage in DVC["stages"][stage]["params"]
    assert isinstance(PARAMS[stage], dict)


def test_params_has_a_block_for_each_stage_and_preset_and_nothing_else() -> None:
    assert set(PARAMS) == {"data", "split", "preset", "presets", "baselines", *STAGES}
    for name, preset in PARAMS["presets"].items():
        assert set(preset) == set(TRAINED), f"preset {name}"
    assert PARAMS["preset"] in PARAMS["presets"]


def test_the_three_adapters_are_artifacts() -> None:
    assert {entry["path"] for entry in DVC["artifacts"].values()} == {"adapters/${preset}/" + task for task in TRAINED}
    assert {entry["type"] for entry in DVC["artifacts"].values()} == {"model"}


def test_the_help_names_every_stage() -> None:
    shown = " ".join(CliRunner().invoke(main, ["train", "--help"]).output.split())
    assert ", ".join(STAGES) in shown


def test_params_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("lr: 2e-5\nname: no\n")
    assert load_params(tmp_path) == {"lr": 2e-5, "name": "no"}  # YAML 1.1 has text and a truth here


def test_wrong_calls_are_answered_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="repository's root"):
        run_stage("shop", tmp_path)
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="git checkout"):
        run_stage("shop", tmp_path)
    (tmp_path / "params.yaml").write_text("split: time")
    with pytest.raises(SettingsError, match="'sweep' is no stage"):
        run_stage("sweep", tmp_path)
    with pytest.raises(SettingsError, match="for the stage sft"):
        run_stage("shop", tmp_path, task="next")
    with pytest.raises(SettingsError, match="no block `shop:`"):
        run_stage("shop", tmp_path)
    with pytest.raises(SettingsError, match=r"does not set prepare\.start"):
        block({"prepare": {}}, "prepare", PrepareParams)
    with pytest.raises(StoreError, match="recgraph train prepare"):
        split_folder({"split": "loo"}, tmp_path)


def test_a_missing_input_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = CliRunner().invoke(main, ["train", "memory", "--folder", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "recgraph train prepare" in done.stderr


def test_progress_hands_on_what_it_gets() -> None:
    assert list(progress(range(3), "Counting")) == [0, 1, 2]
    assert list(progress(iter("ab"), "Counting")) == ["a", "b"]


def test_an_index_comes_back_as_it_was(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    vectors[7] = 0
    for name, exact_below in (("exact", 1000), ("graph", 10)):
        made = VectorIndex([f"k{row}" for row in range(300)], vectors, exact_below)
        made.save(tmp_path, name)
        back = VectorIndex.load(tmp_path, name)
        assert (back.keys, back.dim, back.exact, len(back)) == (made.keys, made.dim, made.exact, 300)
        assert back.vector("k7") is None
        assert back.search(vectors[:5], 10) == made.search(vectors[:5], 10)
    with pytest.raises(StoreError, match="cannot be read"):
        VectorIndex.load(tmp_path, "none")
    (tmp_path / "exact.npy").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="cannot be read"):
        VectorIndex.load(tmp_path, "exact")


@pytest.mark.slow
def test_publish_replaces_its_own_and_simulated_stores_only(make_store: Callable[..., Store], tmp_path: Path) -> None:
    publish.check_replaceable(tmp_path / "none.duckdb")
    store = make_store("item_id,title\nA,Shirt", "user_id,ts,action,item_id\nu,2025-01-01,click,A")
    with pytest.raises(StoreError, match=r"shop\.duckdb: neither.*publish\.store"):
        publish.check_replaceable(store.path)
    for key, told, fine in (
        ("simulated", "yes", True),
        (META, '{"revision": "other"}', False),
        (META, "", True),
    ):
        with store.writing():
            store.set_meta(key, told or f'{{"revision": "{store.revision()}"}}')
        if fine:
            publish.check_replaceable(store.path)
        else:
            with pytest.raises(StoreError, match="ingested into it since"):
                publish.check_replaceable(store.path)
    (tmp_path / "notes.duckdb").write_text("not a store")
    with pytest.raises(StoreError, match=r"publish cannot replace .*notes\.duckdb"):
        publish.check_replaceable(tmp_path / "notes.duckdb")


def test_publish_does_not_write_over_the_store_it_reads(tmp_path: Path) -> None:
    params = {"data": "mine.duckdb", "publish": {"store": "mine.duckdb"}}
    with pytest.raises(SettingsError, match=r"publish\.store=other\.duckdb"):
        publish.run(params, tmp_path, lambda _: None)
    with pytest.raises(SettingsError, match=r"a \.duckdb file"):
        publish.run({**params, "publish": {"store": "mine"}}, tmp_path, lambda _: None)


def test_dvc_keeps_to_itself() -> None:
    """No usage reports, and nothing is added to git behind the user's back."""
    config = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in config
    assert "autostage = false" in config
    assert not os.path.exists(ROOT / ".dvc" / "config.local")
