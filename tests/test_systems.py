"""The list of systems: each name makes what it says, with its settings and its seed, and wrong ones are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from recgraph.cli import main
from recgraph.errors import SettingsError
from recgraph.evaluation.systems import QUICK, names, systems, tuned_settings
from recgraph.evaluation.workshop import Workshop


def test_every_name_makes_a_system_of_that_name() -> None:
    pytest.importorskip("torch", reason="needs recgraph[local]")
    for name, make in systems(["all", "llm"], Workshop()).items():
        assert make(3).name == name
    assert set(QUICK) < set(names())


def test_the_help_names_them_all() -> None:
    output = re.sub(r"-\n\s+", "-", CliRunner().invoke(main, ["evaluate", "--help"]).output)
    assert set(names()) - set(re.split(r"[,\s]+", output)) == set()


def test_the_seed_and_tuned_settings_reach_it() -> None:
    pytest.importorskip("torch", reason="needs recgraph[local]")
    tuned = {"sasrec": {"dim": 32}, "statistics": {"weights": [1, 2, 3]}}
    made = systems(["sasrec", "din", "statistics"], Workshop(tuned=tuned))
    one = made["sasrec"](11)
    assert (one.settings.dim, one.settings.seed, one.seeded) == (32, 11, True)
    assert made["din"](5).settings.model == "din"
    assert (made["statistics"](5).settings.weights, made["statistics"](5).seeded) == ((1, 2, 3), False)


def test_wrong_names_and_settings_are_told() -> None:
    with pytest.raises(SettingsError, match="'sasrek' is no system"):
        systems(["sasrek"], Workshop())
    with pytest.raises(SettingsError, match=r"baselines\.item-knn\.dims is no parameter; known are "):
        systems(["item-knn"], Workshop(tuned={"item-knn": {"dims": 3}}))["item-knn"](7)


def test_tuned_settings_are_a_block_of_params(tmp_path: Path) -> None:
    assert tuned_settings(tmp_path) == {}
    pytest.importorskip("ruamel.yaml", reason="needs recgraph[train]")
    (tmp_path / "params.yaml").write_text("data: x\nbaselines:\n  sasrec: {dim: 32}\n", encoding="utf-8")
    assert tuned_settings(tmp_path) == {"sasrec": {"dim": 32}}
    (tmp_path / "params.yaml").write_text("baselines:\n  sasrek: {dim: 32}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'sasrek' in the block baselines of params\.yaml is no system"):
        tuned_settings(tmp_path)
    (tmp_path / "params.yaml").write_text("baselines: [sasrec]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="must have a block of settings for each system"):
        tuned_settings(tmp_path)
