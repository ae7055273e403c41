"""Snapshots: the same bytes for the same content, nothing lost on the way out and in, and nothing in them from after
the cut."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from recgraph.errors import StoreError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.parquet import read_table, write_table
from recgraph.store.records import Summary

ITEMS = """item_id,title,price,attributes
A,Linen shirt,20,"{""fit"": ""wide"", ""season"": ""summer""}"
B,"Boots, suede",90,
C,Scarf,,"""
EVENTS = """user_id,ts,action,item_id,query,position
u1,2025-01-01 10:00,search,,linen,
u1,2025-01-01 10:01,click,A,linen,1
u1,2025-02-01 09:00,search,,boots,
u1,2025-02-01 09:05,purchase,B,boots,2
u2,2025-01-15,click,C,,
u2,2025-03-01,purchase,A,,"""
EXPOSURES = """query,item_id,position,ts
linen,A,1,2025-01-01 10:00
boots,B,2,2025-02-01 09:00
boots,C,1,2025-01-20 12:00"""


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Store:
    return make_store(ITEMS, EVENTS, EXPOSURES)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_equal_stores_give_equal_bytes(shop: Store, make_store: Callable[..., Store], tmp_path: Path) -> None:
    snapshot.write(shop, tmp_path / "one")
    snapshot.write(make_store(ITEMS, EVENTS, EXPOSURES, name="again"), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_store_comes_back_as_it_was(shop: Store, tmp_path: Path) -> None:
    snapshot.write(shop, tmp_path / "one")
    with snapshot.open_folder(tmp_path / "one") as back:
        assert back.counts() == shop.counts()
        assert back.revision() == shop.revision()
        assert back.history("u1") == shop.history("u1")
        assert back.items(["A", "B", "C"]) == shop.items(["A", "B", "C"])
        assert back.query_products(["boots"]) == shop.query_products(["boots"])
        snapshot.write(back, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_nothing_from_the_cut_on_is_in_a_cut_snapshot(shop: Store, tmp_path: Path) -> None:
    rows = snapshot.write(shop, tmp_path / "cut", before=datetime(2025, 2, 1, 9))
    assert rows == {"items": 3, "events": 3, "exposures": 2}
    with snapshot.open_folder(tmp_path / "cut") as cut:
        assert max(event.ts for user in ("u1", "u2") for event in cut.history(user)) < datetime(2025, 2, 1, 9)
        assert cut.query_products(["boots"]) == {"boots": ["C"]}
        assert cut.revision() != shop.revision()


def test_each_user_can_have_a_cut_and_takes_along_what_their_searches_showed(shop: Store, tmp_path: Path) -> None:
    snapshot.write(shop, tmp_path / "cut", until={"u1": datetime(2025, 2, 1, 9)})
    with snapshot.open_folder(tmp_path / "cut") as cut:
        assert [event.seq for event in cut.history("u1")] == [1, 2]
        assert len(cut.history("u2")) == 2
        assert cut.query_products(["boots", "linen"]) == {"boots": ["C"], "linen": ["A"]}


def test_what_was_published_with_a_store_is_no_content(shop: Store, tmp_path: Path) -> None:
    with shop.writing():
        for key in ("published", "adapter", "core", "fusion", "ranking", "textformer", "name"):
            shop.set_meta(key, "x")
    snapshot.write(shop, tmp_path / "one")
    assert set(snapshot.meta(tmp_path / "one")) == {"name", "revision"}


def test_a_folder_that_is_no_snapshot_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="recgraph export"), snapshot.open_folder(tmp_path / "nowhere"):
        pass
    (tmp_path / "items.parquet").touch()
    with pytest.raises(StoreError, match=r"events\.parquet.* missing"):
        snapshot.check(tmp_path)


def test_a_snapshot_is_not_loaded_over_a_store(shop: Store, tmp_path: Path) -> None:
    snapshot.write(shop, tmp_path / "one")
    with pytest.raises(StoreError, match="exists already"):
        snapshot.load(tmp_path / "one", shop.path)


def test_summaries_come_back_sorted(tmp_path: Path) -> None:
    def made(user: str, block: int) -> Summary:
        return Summary(
            f"{user}{block}", user, "recurrent", 0, block, 5, (("Likes “linen”.", (1, 2)),), (1, 2), "profile", "3"
        )

    given = [made("u2", 0), made("u1", 1), made("u1", 0)]
    snapshot.write_summaries(tmp_path / "s.parquet", given)
    assert snapshot.read_summaries(tmp_path / "s.parquet") == [given[2], given[1], given[0]]
    snapshot.write_summaries(tmp_path / "none.parquet", [])
    assert snapshot.read_summaries(tmp_path / "none.parquet") == []


@pytest.mark.slow
def test_loaded_summaries_are_those_that_would_be_saved(make_store: Callable[..., Store], tmp_path: Path) -> None:
    made = Summary(
        "h", "u1", "recurrent", 1, 0, 5, (('Likes "linen".', (1, 2)), ("Wears M.", (2,))), (1, 2), "profile", "3"
    )
    snapshot.write_summaries(tmp_path / "s.parquet", [made])
    store = make_store(ITEMS)
    snapshot.load_summaries(store, tmp_path / "s.parquet")
    snapshot.load_summaries(store, tmp_path / "s.parquet")  # what is there already stays
    assert store.summary("h") == made
    assert store._all("SELECT text FROM summaries") == [(made.text,)]
    with pytest.raises(StoreError, match="no file"):
        snapshot.load_summaries(store, tmp_path / "none.parquet")


def test_a_table_keeps_every_kind_of_column_and_its_order(tmp_path: Path) -> None:
    columns = {
        "text": ["b", "ä'\"", None],
        "number": np.array([3, 1, 2], np.int32),
        "share": np.array([0.5, -1.0, 2.0]),
        "truth": np.array([True, False, True]),
        "when": [datetime(2025, 1, 1), datetime(2025, 1, 2, 3), datetime(1970, 1, 1)],
        "vector": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32),
        "numbers": [[1, 2], [], [3]],
        "words": [["a"], ["b", "c"], []],
    }
    write_table(tmp_path / "deep" / "t.parquet", columns)
    back = read_table(tmp_path / "deep" / "t.parquet")
    assert list(back) == list(columns)
    for name in ("text", "numbers", "words"):
        assert back[name] == columns[name]
    for name in ("number", "share", "truth", "vector"):
        np.testing.assert_array_equal(back[name], columns[name])
    assert back["when"].tolist() == columns["when"]


def test_an_empty_table_and_a_missing_file(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", {"key": [], "vector": np.zeros((0, 3), np.float32)})
    assert read_table(tmp_path / "t.parquet")["key"] == []
    with pytest.raises(StoreError, match="no file"):
        read_table(tmp_path / "none.parquet")
