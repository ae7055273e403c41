"""Rankings as files: what goes out comes back, what is no ranking is refused with its line, and what is missing or
unknown is a miss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recgraph.errors import SettingsError, StoreError
from recgraph.evaluation.ask import Options, ask, measure_lists
from recgraph.evaluation.compare import evaluate
from recgraph.evaluation.rankings import case_ids, read_rankings, write_rankings
from recgraph.store.db import Store
from recgraph.store.parquet import write_table
from recgraph.train.metrics import MISS, recall
from recgraph.train.task import Task, read_task

ITEMS = ["item_id,title", "A,Shirt", "B b,Boots", "C#1,Scarf", "50%,Half", "Ä,Umlaut", "F,Hat"]


@pytest.fixture
def task(make_store: Callable[..., Store]) -> Task:
    """Two users, whose last purchases F and A are to be predicted."""
    bought = {"ann lee": ("A", "B b", "C#1", "F"), "bob#2": ("F", "B b", "50%", "Ä", "A")}
    events = [
        f"{user},2025-01-{day:02},purchase,{item}"
        for user, items in bought.items()
        for day, item in enumerate(items, 1)
    ]
    return read_task(make_store(ITEMS, ["user_id,ts,action,item_id", *events]), "shop", "loo")


def rows(task: Task, *items: str) -> list[int]:
    return [task.item_ids.index(item) for item in items]


def written(folder: Path, *lines: str) -> Path:
    file = folder / "mine.run"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def places_of(task: Task, file: Path, seen: str = "ranked") -> list[int]:
    return measure_lists(read_rankings(file, task), ask(task, Options(seen=seen))).places.better.tolist()


def test_a_case_is_named_by_its_user_and_event(task: Task) -> None:
    assert case_ids(task, task.test) == ["ann%20lee#4", "bob%232#5"]
    with pytest.raises(SettingsError, match="name no users and events"):
        case_ids(replace(task, user_ids=()), task.test)


@pytest.mark.parametrize("file", ["out/mine.parquet", "out/mine.run"])
def test_what_goes_out_comes_back(task: Task, tmp_path: Path, file: str) -> None:
    first = np.array([[*rows(task, "B b", "C#1", "50%", "Ä"), -1], rows(task, "A", "F", "Ä", "50%", "B b")])
    write_rankings(tmp_path / file, task, task.test, first, "my system")
    back = read_rankings(tmp_path / file, task)
    assert back.name == "mine"
    assert [items.tolist() for items, _ in back.lists.values()] == [first[0, :4].tolist(), first[1].tolist()]
    assert [level.tolist() for _, level in back.lists.values()] == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert list(back.lists) == case_ids(task, task.test)


def test_a_user_with_one_case_needs_no_event_number(task: Task, tmp_path: Path) -> None:
    assert places_of(task, written(tmp_path, "ann%20lee Q0 A 1 2 x", "ann%20lee Q0 F 2 1 x")) == [1, MISS]
    write_table(tmp_path / "a.parquet", {"user": ["ann lee", "bob#2"], "items": [["A", "F"], ["A"]]})
    assert places_of(task, tmp_path / "a.parquet") == [1, 0]


def test_a_user_with_several_cases_needs_one(make_store: Callable[..., Store], tmp_path: Path) -> None:
    events = [
        "user_id,ts,action,item_id",
        "u,2025-01-01,purchase,A",
        "u,2025-05-01,purchase,F",
        "u,2025-05-02,purchase,A",
    ]
    task = read_task(make_store(ITEMS, events), "shop", "time")
    assert case_ids(task, task.test) == ["u#2", "u#3"]
    with pytest.raises(StoreError, match=r"mine\.run, line 1: u has several cases; name one of them .* u#SEQ"):
        read_rankings(written(tmp_path, "u Q0 A 1 1 x"), task)
    assert places_of(task, written(tmp_path, "u#3 Q0 A 1 1 x")) == [MISS, 0]


def test_equal_scores_of_a_run_are_ties(task: Task, tmp_path: Path) -> None:
    """F first of three equals is as good as last of them: the chance to be the first is a third."""
    file = written(tmp_path, "ann%20lee#4 Q0 F 1 0 x", "ann%20lee#4 Q0 A 2 0 x", "ann%20lee#4 Q0 50% 3 0 x")
    found = measure_lists(read_rankings(file, task), ask(task, Options(seen="ranked")))
    assert recall(found.places, 1).tolist() == [pytest.approx(1 / 3), 0.0]


def test_the_score_orders_a_run_whatever_the_order_of_lines(task: Task, tmp_path: Path) -> None:
    assert places_of(task, written(tmp_path, "ann%20lee#4 Q0 F 2 0.5 x", "ann%20lee#4 Q0 A 1 0.7 x")) == [1, MISS]


def test_what_the_user_had_makes_room_and_what_nobody_sells_does_not(task: Task, tmp_path: Path) -> None:
    """A was bought by ann, so it is no candidate; Z is no product and stays where the user would see it."""
    file = written(tmp_path, "ann%20lee#4 Q0 A 1 9 x", "ann%20lee#4 Q0 Z 2 8 x", "ann%20lee#4 Q0 F 3 7 x")
    assert places_of(task, file, "ranked")[0] == 2
    assert places_of(task, file, "excluded")[0] == 1
    found = measure_lists(read_rankings(file, task), ask(task, Options()))
    assert found.invalid.tolist() == [1 / 10, 0.0]
    assert found.first[0].tolist() == [-1, *rows(task, "F"), *[-1] * 8]


def test_missing_cases_are_missed_and_unknown_ones_counted(task: Task, tmp_path: Path) -> None:
    file = written(tmp_path, "ann%20lee#4 Q0 F 1 1 x", "carl#1 Q0 F 1 1 x")
    (line,) = evaluate(task, {}, runs=[read_rankings(file, task)]).lines
    assert (line.missing_cases, line.unknown_cases) == (1, 1)
    assert line.metrics["recall@1"].mean == 1 / 2
    with pytest.raises(SettingsError, match="has a list for none of the 2 cases; is it of this store and split"):
        evaluate(task, {}, runs=[read_rankings(written(tmp_path, "carl#1 Q0 F 1 1 x"), task)])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bob%232 Q0 A 1 0.5", "line 3: 5 words; a run has six a line"),
        ("bob%232 Q0 A first 0.5 x", "line 3: rank 'first' or score '0.5' is not a number"),
        ("bob%232 Q0 A 1 nan x", "line 3: the score is not a number"),
        ("ann%20lee Q0 F 3 0.5 x", r"line 3: item F stands in the list of ann%20lee#4 twice"),
        ("ann%20lee Q0 Ä 3 9.5 x", "line 1: rank 1 has a smaller score than rank 3"),
    ],
)
def test_a_bad_line_is_named(task: Task, tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        read_rankings(written(tmp_path, "ann%20lee#4 Q0 A 1 0.9 x", "ann%20lee Q0 F 2 0.8 x", line), task)


def test_bad_parquet_files_are_told(task: Task, tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    write_table(file, {"user": ["ann lee"], "ranking": [["A"]]})
    with pytest.raises(StoreError, match="has no column items but user, ranking"):
        read_rankings(file, task)
    write_table(file, {"user": ["ann lee", "bob#2"], "items": [["A"], ["F", "F"]]})
    with pytest.raises(StoreError, match="row 2: item F stands in the list twice"):
        read_rankings(file, task)
    write_table(file, {"user": ["ann lee", "ann lee"], "seq": np.array([4, 4]), "items": [["A"], ["F"]]})
    with pytest.raises(StoreError, match="row 2: the second list of case ann%20lee#4"):
        read_rankings(file, task)
    write_table(file, {"user": ["ann lee"], "items": ["A"]})
    with pytest.raises(StoreError, match="row 1: user or items is missing, or items is no list"):
        read_rankings(file, task)
    write_table(file, {"user": np.array([], object), "items": np.array([], object)})
    with pytest.raises(StoreError, match="has no ranking in it"):
        read_rankings(file, task)
    file.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StoreError, match="cut off"):
        read_rankings(file, task)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="neither a Parquet file nor text"):
        read_rankings(file, task)
    with pytest.raises(StoreError, match="There is no file"):
        read_rankings(tmp_path / "none.run", task)
