"""The recipes in docs/recipes.md, walked: whoever follows one edits at most three files, and what is added works."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import registered

from recgraph.cli import main
from recgraph.store.db import Store
from recgraph.train.task import Cases, Note, Scores, System, Task


# 1. evaluation/baselines/NAME.py
@dataclass(frozen=True)
class FadingSettings:
    """`recency` weighs an item of the history against the one after it."""

    recency: float = 0.5
    seed: int = 0


class FadingSystem(System):
    """What was taken last, first; ties by lot."""

    uses = ("ids",)
    settings_class = FadingSettings

    def fit(self, task: Task, note: Note) -> None:
        self.noise = np.random.default_rng(self.settings.seed).random(task.n_items) * 1e-6
        note(f"{self.name}: nothing to learn from {len(task.train)} events")

    def scores(self, cases: Cases) -> Scores:
        found = np.tile(self.noise, (len(cases), 1))
        for row, history in enumerate(cases.history):
            for age, item in enumerate(reversed(history)):
                found[row, item] += self.settings.recency**age
        return found.astype(np.float32)


def test_a_baseline_is_added_by_a_class_and_a_line(
    make_store: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten users take the same two products in turn: who ranks the newest first, the history's too, is second every
    time."""
    pytest.importorskip("ruamel.yaml", reason="needs recgraph[train]")
    registered(monkeypatch, "fading", FadingSystem)  # 2. a line in evaluation/systems.py
    visits = [f"u{user},2025-01-{day:02d},purchase,I{(user + day) % 2}" for user in range(10) for day in range(1, 7)]
    store = make_store(["item_id,title", "I0,Hat", "I1,Scarf"], ["user_id,ts,action,item_id", *visits])
    store.close()
    (tmp_path / "params.yaml").write_text("baselines:\n  fading: {recency: 0.25}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = ["--split", "loo", "--seen", "ranked", "--systems", "popularity,fading", "--seeds", "7,8"]
    done = CliRunner().invoke(main, ["evaluate", "--store", str(store.path), *asked, "--out", "x.json"])
    assert done.exit_code == 0, done.output
    assert "fading" in done.stdout
    _, line = json.loads(Path("x.json").read_text(encoding="utf-8"))["systems"]
    assert (line["name"], line["uses"], line["seeds"]) == ("fading", ["ids"], [7, 8])
    assert line["settings"] == {"recency": 0.25, "seed": 8}
    assert (line["metrics"]["recall@1"]["mean"], line["metrics"]["recall@5"]["mean"]) == (0.0, 1.0)
