"""Tuning: every system gets the same budget, a killed run goes on, and test cases cannot be seen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgraph.errors import SettingsError
from recgraph.evaluation import tune as tuning
from recgraph.evaluation.systems import systems
from recgraph.evaluation.tune import Budget, Trial, as_block, best, read_trials, settings_to_try, tune
from recgraph.evaluation.workshop import Workshop
from recgraph.train.task import Cases, Events, Note, Scores, System, Task

ITEMS = 30


def cases(users: int, at: int) -> Cases:
    """User i has the items i, i + 1, … i + at - 1 and is asked for the next."""
    history = tuple((user + np.arange(at)) % ITEMS for user in range(users))
    target = np.array([(user + at) % ITEMS for user in range(users)], np.int64)
    actions, times = (
        tuple(np.full(at, 2, np.int8) for _ in range(users)),
        tuple(np.arange(at, dtype=np.float64) for _ in range(users)),
    )
    return Cases(history, actions, times, target, np.arange(users), ("",) * users, np.full(users, 9.0))


def walks(users: int = 60) -> Task:
    item = np.concatenate([(user + np.arange(4)) % ITEMS for user in range(users)]).astype(np.int64)
    events = Events(
        np.repeat(np.arange(users), 4), item, np.tile(np.arange(4.0), users), np.full(4 * users, 2, np.int8)
    )
    ids = tuple(f"i{row}" for row in range(ITEMS))
    return Task(
        "walks",
        "loo",
        ids,
        ids,
        np.full(ITEMS, -1),
        np.full(ITEMS, -np.inf),
        events,
        cases(users, 4),
        cases(users, 5),
        None,
    )


def test_every_system_gets_as_many_trials_and_the_first_is_what_it_has(tmp_path: Path) -> None:
    told = tune(
        walks(),
        ["transitions", "item-knn"],
        Workshop(tuned={"item-knn": {"shrink": 7.0}}),
        Budget(trials=3),
        tmp_path / "trials.jsonl",
    )
    assert [len(trials) for trials in told.values()] == [3, 3]
    assert told["transitions"][0].settings == {}
    assert told["item-knn"][0].settings == {"shrink": 7.0}
    assert len({json.dumps(trial.settings) for trial in told["item-knn"]}) == 3
    assert told["transitions"][0].ndcg == 1.0  # after item i everybody took i + 1


def test_drawn_settings_are_those_of_the_seed_and_of_the_space() -> None:
    first, again, other = (settings_to_try("sasrec", {"heads": 4}, Budget(trials=5, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first[0] == other[0] == {"heads": 4}
    assert first[1:] != other[1:]
    for drawn in first[1:]:
        assert drawn.pop("heads") == 4
        assert all(value in tuning.SPACES["sasrec"][name] for name, value in drawn.items())


def test_every_setting_of_a_space_is_one_the_system_has() -> None:
    pytest.importorskip("torch", reason="needs recgraph[local]")
    for name, space in tuning.SPACES.items():
        for setting, values in space.items():
            for value in values:
                assert systems([name], Workshop(tuned={name: {setting: value}}))[name](7).name == name


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, task, budget = tmp_path / "trials.jsonl", walks(), Budget(trials=3)
    whole = tune(task, ["transitions"], Workshop(), budget, file)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")  # killed while the third line was written
    begun: list[str] = []
    again = tune(task, ["transitions"], Workshop(), budget, file, begun.append)
    assert [text.split(",")[0] for text in begun] == ["transitions: trial 3 of 3"]
    assert [trial.ndcg for trial in again["transitions"]] == [trial.ndcg for trial in whole["transitions"]]
    assert again["transitions"][:2] == whole["transitions"][:2]
    asked: list[str] = []
    tune(task, ["transitions"], Workshop(), replace(budget, share=0.5), file, asked.append)
    assert len(asked) == 3  # another question: nothing of the file answers it


def test_test_cases_are_taken_out_before_anything_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Spy(System):
        name = "transitions"

        def fit(self, task: Task, note: Note) -> None:
            seen.append(len(task.test))
            self.items = task.n_items

        def scores(self, cases: Cases) -> Scores:
            return np.zeros((len(cases), self.items), np.float32)

    monkeypatch.setattr(tuning.Entry, "make", lambda self, workshop, seed: Spy())
    tune(walks(), ["transitions"], Workshop(), Budget(trials=2), tmp_path / "trials.jsonl")
    assert seen == [0, 0]


def test_no_trial_begins_after_the_minutes(tmp_path: Path) -> None:
    file, budget = tmp_path / "trials.jsonl", Budget(trials=2, minutes=10)
    first = tune(walks(), ["transitions"], Workshop(), budget, file)["transitions"][0]
    file.write_text(json.dumps(asdict(replace(first, seconds=600.0))) + "\n", encoding="utf-8")
    assert len(tune(walks(), ["transitions"], Workshop(), budget, file)["transitions"]) == 1
    assert len(tune(walks(), ["transitions"], Workshop(), replace(budget, minutes=11), file)["transitions"]) == 2


def test_the_block_names_the_best_and_the_budget() -> None:
    yaml: Any = pytest.importorskip("ruamel.yaml", reason="needs recgraph[train]")
    tried: list[tuple[dict[str, Any], float]] = [
        ({}, 0.1),
        ({"dilations": [1, 4], "loss": "bce"}, 0.3),
        ({"dim": 9}, 0.3),
    ]
    trials = [Trial("nextitnet", settings, ndcg, 1.0, "") for settings, ndcg in tried]
    assert best(trials) is trials[1]
    block = as_block({"nextitnet": trials}, Budget(trials=3, minutes=10, share=0.3))
    assert yaml.YAML(typ="safe").load(block) == {"baselines": {"nextitnet": {"dilations": [1, 4], "loss": "bce"}}}
    assert "3 trials and 10 minutes a system, seed 7, on 0.3 of the users" in block
    assert "# 0.3000, trial 2 of 3" in block


def test_wrong_names_budgets_and_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'popularity' has no settings to be tuned"):
        tune(walks(), ["popularity"], Workshop(), Budget(), tmp_path / "trials.jsonl")
    for wrong in ({"trials": 0}, {"minutes": 0.0}, {"share": 1.5}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            Budget(**wrong)  # type: ignore[arg-type]
    (tmp_path / "trials.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="has a line that is no trial"):
        read_trials(tmp_path / "trials.jsonl")
