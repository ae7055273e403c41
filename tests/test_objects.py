"""Snapshots and tables in object storage, by fsspec's paths: the same as on a disk, whole or not at all, and no key in
what is said."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fsspec")
import fsspec
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from test_snapshot import EVENTS, EXPOSURES, ITEMS, files

from recgraph.cli import main
from recgraph.errors import StoreError
from recgraph.store import snapshot
from recgraph.store.db import Store
from recgraph.store.files.objects import CURRENT
from recgraph.store.parquet import read_table, write_table
from recgraph.store.records import Summary
from recgraph.train.prepare import run as prepare

FAR = "memory://bucket/shop"


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Store:
    return make_store(ITEMS, EVENTS, EXPOSURES)


def names(system: MemoryFileSystem) -> set[str]:
    return {path.rpartition("/")[2] for path in system.find("/bucket/shop")}


def test_a_snapshot_is_the_same_there_as_on_a_disk(shop: Store, memory: MemoryFileSystem, tmp_path: Path) -> None:
    assert snapshot.write(shop, FAR) == snapshot.write(shop, tmp_path / "disk")
    current = json.loads(memory.cat_file(f"/bucket/shop/{CURRENT}"))
    assert {name: memory.cat_file(f"/bucket/shop/{there}") for name, there in current.items()} == files(
        tmp_path / "disk"
    )
    assert snapshot.meta(FAR) == snapshot.meta(tmp_path / "disk")
    with snapshot.load(FAR, tmp_path / "loaded.duckdb") as loaded, snapshot.open_source(FAR) as opened:
        for store in (loaded, opened):
            assert store.history("u1") == shop.history("u1")
            assert store.counts() == shop.counts()


def test_a_path_of_this_machine_may_be_written_as_one(shop: Store, tmp_path: Path) -> None:
    snapshot.write(shop, f"file://{tmp_path}/disk")
    assert {*snapshot.FILES} == files(tmp_path / "disk").keys()
    with snapshot.open_source(f"file://{tmp_path}/disk") as opened:
        assert opened.counts() == shop.counts()


def test_a_snapshot_that_was_copied_there_is_read_by_its_own_names(
    shop: Store, memory: MemoryFileSystem, tmp_path: Path
) -> None:
    snapshot.write(shop, tmp_path / "disk")
    memory.put(f"{tmp_path}/disk/", "/bucket/shop/", recursive=True)
    with snapshot.open_source(FAR) as opened:
        assert opened.counts() == shop.counts()


def test_a_second_snapshot_takes_the_place_of_the_first_and_what_is_equal_is_not_sent_again(
    shop: Store, make_store: Callable[..., Store], memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.write(shop, FAR)
    memory.pipe_file("/bucket/shop/notes.txt", b"mine")
    sent: list[str] = []
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem,
        "put_file",
        lambda self, here, there, **how: (sent.append(there), put(self, here, there, **how)),
    )
    snapshot.write(make_store(ITEMS, EVENTS + "\nu3,2025-04-01,click,A,,", EXPOSURES, name="more"), FAR)
    assert {re.sub(r"-\w+\.", ".", one.rpartition("/")[2]) for one in sent} == {"events.parquet", "meta.json"}
    assert names(memory) == {*json.loads(memory.cat_file(f"/bucket/shop/{CURRENT}")).values(), CURRENT, "notes.txt"}
    with snapshot.open_source(FAR) as opened:
        assert opened.counts()["users"] == 3


def test_a_writer_that_is_cut_off_leaves_the_snapshot_of_before(
    shop: Store, make_store: Callable[..., Store], memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.write(shop, FAR)
    more = make_store(ITEMS, EVENTS + "\nu3,2025-04-01,click,A,,", EXPOSURES, name="more")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", _full)
        with pytest.raises(StoreError, match=r"memory://bucket/shop cannot be written \(OSError\)"):
            snapshot.write(more, FAR)
    with snapshot.open_source(FAR) as opened:
        assert opened.counts() == shop.counts()


def _full(*_: Any, **__: Any) -> None:
    raise OSError("no room for SECRET")


def test_a_reader_whose_files_are_replaced_meanwhile_reads_the_new_ones(
    shop: Store, make_store: Callable[..., Store], memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.write(shop, FAR)
    more = make_store(ITEMS, EVENTS + "\nu3,2025-04-01,click,A,,", EXPOSURES, name="more")
    get, replaced = MemoryFileSystem.get_file, list[bool]()

    def get_file(self: MemoryFileSystem, there: str, here: str, **how: Any) -> None:
        if not replaced:
            replaced.append(True)
            snapshot.write(more, FAR)
        get(self, there, here, **how)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    with snapshot.open_source(FAR) as opened:
        assert opened.counts() == more.counts()


def test_a_file_whose_content_is_another_one_is_refused(shop: Store, memory: MemoryFileSystem) -> None:
    snapshot.write(shop, FAR)
    there = json.loads(memory.cat_file(f"/bucket/shop/{CURRENT}"))["items.parquet"]
    memory.pipe_file(f"/bucket/shop/{there}", memory.cat_file(f"/bucket/shop/{there}")[:-9])
    with pytest.raises(StoreError, match="cannot be read"), snapshot.open_source(FAR):
        pass


def test_a_snapshot_that_is_not_there_is_said_to_be_missing(memory: MemoryFileSystem) -> None:
    with pytest.raises(StoreError, match="No snapshot"), snapshot.open_source(FAR):
        pass


def test_tables_and_summaries_go_there_and_back(shop: Store, memory: MemoryFileSystem) -> None:
    write_table(f"{FAR}/n.parquet", {"n": [1, 2]})
    assert read_table(f"{FAR}/n.parquet")["n"].tolist() == [1, 2]
    made = Summary("h", "u1", "recurrent", 0, 0, 2, (("Likes linen.", (1,)),), (1, 2), "m", "1")
    snapshot.write_summaries(f"{FAR}/summaries.parquet", [made])
    assert snapshot.read_summaries(f"{FAR}/summaries.parquet") == [made]
    with Store.open(shop.path, write=True) as store:
        snapshot.load_summaries(store, f"{FAR}/summaries.parquet")
        assert store.summary("h") == made
    with pytest.raises(StoreError, match=r"There is no file memory://bucket/shop/none\.parquet"):
        read_table(f"{FAR}/none.parquet")


def test_the_command_exports_there_and_training_begins_there(
    shop: Store, memory: MemoryFileSystem, tmp_path: Path
) -> None:
    shop.close()
    done = CliRunner().invoke(main, ["export", FAR, "--store", str(shop.path)])
    assert done.exit_code == 0, done.output
    assert f"{FAR}: 3 items, 6 events" in done.output
    params = {"data": FAR, "split": "loo", "prepare": {"start": "search", "valid_days": 30, "test_days": 30}}
    prepare(params, tmp_path, lambda _: None)
    with snapshot.open_folder(tmp_path / "data" / "prepare" / "all") as store:
        assert store.counts()["events"] == 6


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "s3://key:SECRET@bucket/shop?token=SECRET",
            "s3://bucket/shop needs a package that is not installed: pip install s3fs",
        ),
        ("gcs://bucket/shop", "gcs://bucket/shop needs a package that is not installed: pip install gcsfs"),
        (
            "nowhere://key:SECRET@bucket/shop",
            "nowhere://bucket/shop begins with 'nowhere', which fsspec does not know.",
        ),
    ],
)
def test_a_driver_that_is_missing_is_named_and_a_key_is_not(
    path: str, said: str, shop: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for driver in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, driver, None)
    for act in (lambda: snapshot.write(shop, path), lambda: snapshot.meta(path), lambda: read_table(f"{path}")):
        with pytest.raises(StoreError) as caught:
            act()
        assert str(caught.value) == said
        assert caught.value.__suppress_context__
    assert "SECRET" not in caplog.text


class BotoCoreError(Exception):
    """As a driver's own errors, which are no OSError."""


@pytest.mark.parametrize("error", [OSError("SECRET"), BotoCoreError("SECRET")])
def test_what_a_driver_says_is_not_repeated(
    error: Exception, memory: MemoryFileSystem, shop: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    exceptions = ModuleType("botocore.exceptions")
    exceptions.BotoCoreError, exceptions.ClientError = BotoCoreError, OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "botocore.exceptions", exceptions)
    snapshot.write(shop, FAR)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(StoreError, match=type(error).__name__) as caught:
        snapshot.meta(FAR)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
