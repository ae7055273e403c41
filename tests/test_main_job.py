"""The main job with every part real: the simulated shop and the real data sets, the real 135 M model, the installed
command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recgraph.graph.recommender import Recommender
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.records import EPOCH

COMMAND = [sys.executable, "-m", "recgraph.cli"]


def recgraph(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, **given)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller simulated shop, made by the command."""
    from recgraph.train.shop.year import make_demo

    path = tmp_path_factory.mktemp("demo") / "shop.duckdb"
    make_demo(path, seed=7, shoppers=200, products=600, events=6000)
    return path


@pytest.mark.llm
def test_the_command_recommends_ten_real_products_with_reasons(shop: Path) -> None:
    asked = ("--user", "U123", "--query", "chunky wool cardigan", "--llm", "default")
    done = recgraph("run", *asked, "--json", "--store", str(shop))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len({line["item_id"] for line in found["items"]}) == 10
    assert found["degraded"] == []
    assert found["prediction"]["item_id"]
    assert all(line["reason"] and 0 <= line["yes"] <= 1 for line in found["items"])
    with Store.open(shop) as store:
        assert set(store.items([line["item_id"] for line in found["items"]])) == {
            line["item_id"] for line in found["items"]
        }


@pytest.mark.llm
def test_the_panel_says_that_the_shop_is_simulated(shop: Path) -> None:
    asked = ("--user", "U123", "--llm", "default", "--store", str(shop))
    done = recgraph("run", *asked, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "imulated" in done.stdout
    assert "Summary" in done.stdout
    assert "\x1b[" not in done.stdout  # no colours in a pipe


@pytest.mark.llm
def test_a_run_killed_half_way_loses_nothing_and_resumes(shop: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "runs.sqlite"
    arguments = [
        "run",
        "--user",
        "U123",
        "--query",
        "boots",
        "--llm",
        "default",
        "--json",
        "--store",
        str(shop),
        "--checkpoint",
        str(checkpoint),
        "--paradigm",
        "hierarchical",
    ]
    with Store.open(shop) as store:
        before = store.counts()
    running = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while time.monotonic() < end and not (checkpoint.exists() and checkpoint.stat().st_size > 0):
        time.sleep(0.02)
    time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    with Store.open(shop) as store:
        after = store.counts()
    # Embeddings and summaries are only ever added, in transactions of their own; everything else is as it was.
    assert all(
        after[name] >= before[name] if name in ("embeddings", "summaries") else after[name] == before[name]
        for name in before
    )
    done = recgraph(*arguments)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["items"]) == 10


@pytest.mark.llm
def test_the_llm_answers_in_the_asked_for_form(shop: Path) -> None:
    with Recommender.open(shop, llm="default") as recommender:
        users = [row.user_id for row in recommender.store.users(limit=6)]
        found = [recommender.recommend(user, "linen shirt") for user in users]
    assert all(one.prediction and one.prediction.valid for one in found)
    assert all(len({line.yes for line in one.items}) > 1 for one in found)  # the scores tell candidates apart


def check(recommender: Recommender, user: str, as_of: datetime | None) -> None:
    """Ten distinct items that exist, none of the future, each reason with evidence that exists."""
    found = recommender.recommend(user, as_of=as_of)
    ids = [line.item.item_id for line in found.items]
    known = recommender.store.items(ids)
    assert len(ids) == len(set(ids)) == len(known) == 10
    events = {event.seq: event for event in recommender.store.history(user)}
    if as_of is not None:
        assert all(item.first_seen is not None and item.first_seen < as_of for item in known.values())
    for line in found.items:
        assert all(seq in events and (as_of is None or events[seq].ts < as_of) for seq in line.event_seqs)
        assert line.reason


@pytest.fixture(scope="module")
def beauty(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("beauty") / "beauty.duckdb"
    started = time.perf_counter()
    report = ingest(path, "sequences", [data_folder / "amazon-beauty-2014"])
    assert (report.users, report.items_new, report.events_new) == (22_363, 12_101, 198_502)
    assert time.perf_counter() - started < 10
    return path


@pytest.mark.data
def test_two_hundred_users_of_beauty_get_ten_real_products_of_the_past(beauty: Path) -> None:
    with Recommender.open(beauty, llm="none") as recommender:
        rows = recommender.store.users(limit=22_363)[::111][:200]
        assert len(rows) == 200
        for row in rows:
            check(recommender, row.user_id, None)
            check(recommender, row.user_id, EPOCH + timedelta(seconds=row.events))


@pytest.mark.data
@pytest.mark.llm
def test_beauty_is_answered_with_the_llm(beauty: Path) -> None:
    with Recommender.open(beauty, llm="default") as recommender:
        for user in ("A1YJEY40YUW4SE", *[row.user_id for row in recommender.store.users(limit=4)]):
            check(recommender, user, EPOCH + timedelta(seconds=5))


def first_lines(source: Path, target: Path, count: int) -> Path:
    """The first lines of a real file, so that a test need not embed twenty thousand titles."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(encoding="utf-8") as lines:
        target.write_text("".join(line for _, line in zip(range(count), lines, strict=False)), encoding="utf-8")
    return target


@pytest.mark.data
@pytest.mark.parametrize("format", ["open-ecommerce", "uci-eshop", "mind"])
def test_the_other_real_sets_are_answered(format: str, data_folder: Path, tmp_path: Path) -> None:
    store, sample = tmp_path / "real.duckdb", tmp_path / "sample"
    paths = {
        "open-ecommerce": lambda: [
            first_lines(data_folder / "fashion-purchases" / "purchases.csv", sample / "purchases.csv", 2000)
        ],
        "uci-eshop": lambda: [data_folder / "eshop-clothing-2008"],
        "mind": lambda: [
            first_lines(data_folder / "mind-sample" / name, sample / name, count)
            for name, count in (("news.tsv", 2500), ("behaviors.tsv", 300))
        ],
    }[format]()
    assert recgraph("ingest", format, *map(str, paths), "--store", str(store)).returncode == 0
    with Store.open(store) as opened:
        user = opened.users(limit=1)[0].user_id
    done = recgraph("run", "--user", user, "--llm", "none", "--json", "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["items"]) == 10
