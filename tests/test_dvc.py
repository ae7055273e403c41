"""The pipeline under DVC itself, on a tiny simulated shop in a git repository of its own; only the adapters are
stand-ins (slow)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from recgraph.tools.llm.adapter_sets import WEIGHTS, AdapterCard
from recgraph.train.pipeline import TRAINED
from recgraph.train.prepare import read_facts

pytestmark = [pytest.mark.dvc, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parent.parent
SMALL: dict[str, dict[str, Any]] = {
    "shop": {"shoppers": 60, "products": 200, "events": 2500, "days": 150},
    "prepare": {"valid_days": 20, "test_days": 20},
    "id_embeddings": {"epochs": 1},
    "title_embeddings": {"cases": 20},
    "textformer": {"dim": 16, "epochs": 1},
    "examples": {"train_cases": 8, "valid_cases": 2, "test_cases": 2, "held_out": 0.5, "shops": []},
}


class Project:
    """A checkout in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params = YAML()
        for name in ("train", "store", "tools", "graph"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder / name)
        (folder / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
        self.change(SMALL)
        self.call("git", "init", "-q")
        self.commit()

    def call(self, *command: str) -> str:
        """Standard output of a command run in the project; its failure fails the test with what it printed."""
        beside = str(Path(sys.executable).parent)
        environ = {
            **os.environ,
            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "COLUMNS": "300",
        }
        environ |= {
            f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def dvc(self, *words: str) -> str:
        return self.call("dvc", *words)

    def repro(self, *words: str) -> list[str]:
        """The stages that ran."""
        return re.findall(r"Running stage '(.*?)'", self.dvc("repro", *words))

    def change(self, values: dict[str, dict[str, Any]]) -> None:
        file = self.folder / "params.yaml"
        params = self.params.load(file.read_text())
        for stage, block in values.items():
            params[stage].update(block)
        with file.open("w") as opened:
            self.params.dump(params, opened)

    def commit(self) -> None:
        self.call("git", "add", "--all")
        self.call("git", "commit", "-qm", "state")

    def dirty(self) -> str:
        return self.call("git", "status", "--porcelain")

    def shipped(self) -> dict[str, str]:
        """What came with the checkout and training might overwrite: the adapters, and the parts of `recgraph demo`."""
        files = [file for top in ("adapters", "train/shop/shipped") for file in (self.folder / top).rglob("*")]
        names = [str(file.relative_to(self.folder)) for file in sorted(files) if file.is_file()]
        return {name: self.hash_of(name) for name in names}

    def hash_of(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything made once. The adapters are stand-ins that the stage finds there and keeps, as a clone does the shipped
    ones."""
    made = Project(tmp_path_factory.mktemp("project"))
    made.repro("prepare")
    cut = read_facts(made.folder / "data" / "prepare" / "time")["fitted_before"]
    for task in TRAINED:
        for name in (f"adapters/default/{task}/adapter_config.json", f"metrics/sft/default/{task}.json"):
            (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (made.folder / name).write_text("{}\n")
        target = made.folder / "adapters" / "default" / task
        shutil.copy(ROOT / "adapters" / "default" / task / WEIGHTS, target)
        card = AdapterCard.read(ROOT / "adapters" / "default" / task)
        assert card is not None
        replace(card, data={**card.data, "fitted_before": cut}).write(target)
        (made.folder / f"metrics/sft/default/{task}_cost.json").write_text("{}\n")
        (made.folder / f"metrics/sft/default/{task}_loss.csv").write_text("step,phase,loss\n1,first,2.0\n2,first,1.0\n")
    shipped = made.shipped()
    ran = made.repro()
    assert {"examples", *(f"sft@{task}" for task in TRAINED), "publish"} <= set(ran)
    assert "parts" not in ran
    assert made.shipped() == shipped
    made.commit()
    return made


def test_a_second_repro_does_nothing_and_leaves_no_trace(project: Project) -> None:
    assert project.repro() == []
    assert project.dirty() == ""
    assert "data" not in project.call("git", "ls-files").split("\n")[0]


def test_a_run_over_the_published_store_writes_nothing_into_it(project: Project) -> None:
    before = project.hash_of("recgraph.duckdb")
    told = json.loads(
        project.call("recgraph", "run", "--user", "U123", "--query", "wool cardigan", "--llm", "none", "--json")
    )
    assert len(told["items"]) == 10
    for paradigm in ("recurrent", "hierarchical"):
        project.call("recgraph", "run", "--user", "U123", "--llm", "none", "--json", "--paradigm", paradigm)
    assert project.hash_of("recgraph.duckdb") == before
    assert project.repro() == []


def test_a_changed_parameter_reruns_only_what_depends_on_it(project: Project) -> None:
    project.change({"evaluate": {"cases": 10}})
    assert project.repro() == ["evaluate"]
    assert json.loads(project.dvc("status", "--json")) == {}


def test_the_rank_of_an_adapter_concerns_its_training_alone(project: Project) -> None:
    file = project.folder / "params.yaml"
    before = file.read_text()
    params = project.params.load(before)
    params["presets"]["default"]["recommend"]["rank"] = 3
    with file.open("w") as opened:
        project.params.dump(params, opened)
    try:
        assert list(json.loads(project.dvc("status", "--json"))) == ["sft@recommend"]
    finally:
        file.write_text(before)


def test_other_examples_train_no_adapter_anew_that_came_with_the_clone(project: Project) -> None:
    """Another processor rounds other last digits into the examples: every first `dvc repro` there would have trained
    the shipped adapters for half a day, and put what came out in their place."""
    before = project.shipped()
    project.change({"examples": {"seed": 8}})
    ran = project.repro()
    assert "examples" in ran
    assert any(name.startswith("sft@") for name in ran)
    assert project.shipped() == before
    assert json.loads(project.dvc("status", "--json")) == {}
    project.change({"examples": {"seed": 7}})
    project.repro()


def test_metrics_plots_and_params_can_be_asked_for(project: Project) -> None:
    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    assert set(shown) >= {"metrics/evaluate.json", "metrics/id_embeddings.json", "metrics/title_embeddings.json"}
    assert {"popularity", "transitions", "titles", "core", "fused", "paper"} <= set(
        shown["metrics/evaluate.json"]["data"]["all"]
    )
    project.change({"evaluate": {"seed": 11}})
    assert "evaluate.seed" in project.dvc("params", "diff")
    project.change({"evaluate": {"seed": 7}})
    assert {"Recall@k of retrieval", "metrics/id_embeddings_loss.csv"} <= {
        name.split("::")[-1] for name in _plots(project)
    }
    artifact = project.call(
        "python", "-c", "from dvc.repo import Repo; print(Repo('.').artifacts.read()['dvc.yaml']['recommend'].path)"
    )
    assert artifact.strip() == "adapters/default/recommend"


def _plots(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.dvc("plots", "show", "--json"))["data"]
    return found


def test_an_experiment_changes_a_parameter_once(project: Project) -> None:
    project.commit()
    project.dvc("exp", "run", "-S", "evaluate.cases=5", "-n", "fewer", "evaluate")
    told = json.loads((project.folder / "metrics" / "evaluate.json").read_text())
    assert told["cases"]["all"] <= 5
    assert "fewer" in project.dvc("exp", "list")


def test_killed_and_gone_outs_come_back_from_the_cache(project: Project) -> None:
    shutil.rmtree(project.folder / "data" / "memory")
    project.dvc("checkout")
    assert (project.folder / "data" / "memory" / "queries.parquet").is_file()
