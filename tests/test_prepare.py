"""The splits: no fitted part sees what comes after, and a case's history ends before what led to its target."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from recgraph.errors import SettingsError, StoreError
from recgraph.store import snapshot
from recgraph.store.cases import listed_since, targets
from recgraph.store.db import Store
from recgraph.train import prepare
from recgraph.train.prepare import Case, read_cases, starts

PARAMS: dict[str, Any] = {
    "data": "shop.duckdb",
    "split": "time",
    "prepare": {"start": "search", "valid_days": 2, "test_days": 2},
}
ITEMS = """item_id,title,first_seen
A,Linen shirt,2025-01-01
B,Boots,
C,Scarf,
D,Gloves,"""
EVENTS = """user_id,ts,action,item_id,query
u1,2025-01-01 10:00,search,,linen
u1,2025-01-01 10:01,click,A,linen
u1,2025-01-01 10:02,purchase,A,linen
u1,2025-01-08 12:00,search,,boots
u1,2025-01-08 12:01,click,B,boots
u1,2025-01-08 12:02,search,,warm boots
u1,2025-01-08 12:05,purchase,B,boots
u1,2025-01-10 08:00,purchase,C,linen
u2,2025-01-06 23:59,search,,gloves
u2,2025-01-07 00:01,purchase,D,gloves
u2,2025-01-09 09:00,purchase,D,"""


@pytest.fixture
def folder(make_store: Callable[..., Store], tmp_path: Path) -> Path:
    make_store(ITEMS, EVENTS)
    return tmp_path


def run(folder: Path, **changed: Any) -> Path:
    prepare.run(
        {**PARAMS, **{name: value for name, value in changed.items() if name in PARAMS}}, folder, lambda _: None
    )
    return folder / "data" / "prepare"


def test_the_search_of_the_same_visit_led_to_a_target(make_store: Callable[..., Store]) -> None:
    found = targets(make_store(ITEMS, EVENTS))
    assert found.item_id.tolist() == ["A", "B", "C", "D", "D"]
    # C's search was nine days before: another visit
    assert found.query.tolist() == ["linen", "boots", "", "gloves", ""]
    assert starts(found, "search").tolist()[1] == datetime(2025, 1, 8, 12)
    assert starts(found, "purchase").tolist()[1] == datetime(2025, 1, 8, 12, 5)
    with pytest.raises(SettingsError, match=r"prepare\.start is 'click'"):
        starts(found, "click")


@pytest.mark.slow
def test_a_shop_without_purchases_predicts_every_event_with_an_item(make_store: Callable[..., Store]) -> None:
    found = targets(
        make_store(ITEMS, "user_id,ts,action,item_id,query\nu,2025-01-01,click,A,warm\nu,2025-01-02,click,B,")
    )
    # no searches at all: the events' own query stays
    assert (found.item_id.tolist(), found.query.tolist()) == (["A", "B"], ["warm", ""])


def test_the_time_split_cuts_everybody_at_one_midnight(folder: Path) -> None:
    out = run(folder)
    facts = json.loads((out / "time" / "split.json").read_text())
    assert (facts["valid_from"], facts["test_from"], facts["fitted_before"]) == (
        "2025-01-07T00:00:00",
        "2025-01-09T00:00:00",
        "2025-01-07T00:00:00",
    )
    cases = read_cases(out / "time")
    assert [(case.part, case.user_id, case.seq) for case in cases] == [
        ("test", "u1", 8),
        ("test", "u2", 3),
        ("train", "u1", 3),
        ("valid", "u1", 7),
    ]
    assert facts["counts"]["dropped_cases"] == 1  # u2 searched before midnight and bought after it
    assert cases[3] == Case("valid", "u1", datetime(2025, 1, 8, 12), "boots", "B", datetime(2025, 1, 8, 12, 5), 7, True)
    assert [case.cold for case in cases] == [True, True, False, True]
    assert read_cases(out / "time", "valid") == [cases[3]]


def test_the_train_snapshot_knows_nothing_from_the_cut_on(folder: Path) -> None:
    with snapshot.open_folder(run(folder) / "time" / "train") as train:
        assert [event.seq for event in train.history("u1")] == [1, 2, 3]
        assert all(event.ts < datetime(2025, 1, 7) for event in train.history("u2"))
        assert train.counts()["items"] == 4


def test_leave_one_out_holds_back_the_last_two_and_keeps_those_with_fewer_than_three(folder: Path) -> None:
    out = run(folder)
    cases = read_cases(out / "loo")
    assert [(case.part, case.user_id, case.seq) for case in cases] == [
        ("test", "u1", 8), ("train", "u1", 3), ("train", "u2", 2), ("train", "u2", 3), ("valid", "u1", 7),
    ]  # fmt: skip
    assert json.loads((out / "loo" / "split.json").read_text())["fitted_before"] is None
    with snapshot.open_folder(out / "loo" / "train") as train:
        # not the click on the boots: it belongs to the held-out visit
        assert [event.seq for event in train.history("u1")] == [1, 2, 3]
        assert len(train.history("u2")) == 3


@pytest.mark.slow
def test_a_basket_of_a_day_is_in_no_history_where_only_days_are_known(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    lines = [f"u,2025-01-{day:02},purchase,{item}," for day, item in ((1, "A"), (2, "B"), (3, "C"), (3, "D"))]
    store = make_store(ITEMS, ["user_id,ts,action,item_id,query", *lines])
    run(tmp_path, split="loo")
    (test,) = read_cases(tmp_path / "data" / "prepare" / "loo", "test")
    assert (test.item_id, [event.item_id for event in store.history("u", test.as_of)]) == ("D", ["A", "B"])


def test_a_second_run_writes_the_same_bytes(folder: Path) -> None:
    def content() -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted((folder / "data").rglob("*"))
            if path.is_file()
        }

    run(folder)
    before = content()
    run(folder)
    assert content() == before


@pytest.mark.slow
def test_a_set_without_a_clock_has_no_time_split_and_says_so(make_store: Callable[..., Store], tmp_path: Path) -> None:
    lines = [f"u,1970-01-01 00:00:{place:02},click,{item}," for place, item in enumerate("ABCD", 1)]
    make_store(ITEMS, ["user_id,ts,action,item_id,query", *lines])
    with pytest.raises(SettingsError, match=r"no time split.*split=loo"):
        run(tmp_path)
    assert not (tmp_path / "data" / "prepare" / "time").exists()
    assert [case.item_id for case in read_cases(run(tmp_path, split="loo") / "loo", "test")] == ["D"]


def test_wrong_params_and_missing_inputs_are_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"prepare\.test_days is 0"):
        run(folder, prepare={"start": "search", "valid_days": 2, "test_days": 0})
    with pytest.raises(StoreError, match="recgraph train shop"):
        run(folder, data="data/shop")
    with pytest.raises(StoreError, match="no store at"):
        run(folder, data="elsewhere.duckdb")
    with pytest.raises(SettingsError, match="split is 'random'"):
        run(folder, split="random")


def test_an_item_is_listed_from_the_beginning_unless_the_source_says_when(make_store: Callable[..., Store]) -> None:
    assert listed_since(make_store(ITEMS, EVENTS)).tolist() == [datetime(2025, 1, 1), *[datetime(1970, 1, 1)] * 3]
