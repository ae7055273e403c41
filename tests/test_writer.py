"""What a process that serves writes beside its answers: nobody waits for it, nothing is lost, others get the store."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from fakes import SHOP_EVENTS, SHOP_ITEMS

from recgraph.errors import StoreBusy, StoreError, StoreReadOnly
from recgraph.store.care import pending
from recgraph.store.db import Store
from recgraph.store.forget import forget_user
from recgraph.store.live import writer as module
from recgraph.store.live.writer import StoreWriter
from recgraph.store.records import Event, Summary

NOON = datetime(2025, 7, 1, 12)
SUMMARY = Summary("h", "U1", "recurrent", 0, 0, 1, (("Likes “olive”.", (1, 2)),), (1, 2), "profile", "1")
HOLD = "import sys; from recgraph.store.db import Store; Store.open(sys.argv[1], write=True); print(1, flush=True); input()"
ASK = "import sys; from recgraph.store.db import Store; print(len(Store.open(sys.argv[1]).history('U1')))"


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store(SHOP_ITEMS, SHOP_EVENTS)


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_summary_lies_beside_the_store_at_once_and_in_it_when_some_have_gathered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHERED", 0.05)
    writer, before = StoreWriter(store), store._database.generation
    for number in range(2):  # the second time the thread has ended
        writer.save_summaries([replace(SUMMARY, input_hash=f"h{number}")])
        assert len(pending.waiting(store.path)) == 1
        assert number or store._database.generation == before  # the store was not opened for it
        until(lambda: not pending.waiting(store.path))
        assert store.summary(f"h{number}") == replace(SUMMARY, input_hash=f"h{number}")
    writer.close()


def test_the_close_takes_in_what_waits(store: Store) -> None:
    writer = StoreWriter(store)
    for number in range(3):
        writer.save_summaries([replace(SUMMARY, input_hash=f"h{number}"), SUMMARY])
    writer.close()
    assert store.counts()["summaries"] == 4
    assert not pending.folder_of(store.path).exists()


def test_what_cannot_be_taken_in_waits_for_the_next_writer(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    writer = StoreWriter(store)
    store._database._switch(None)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store.path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        writer.save_summaries([SUMMARY])
        with caplog.at_level(logging.INFO):
            writer.close()
        assert "wait beside the store" in caplog.text
        other.communicate("\n")
    assert store.summary("h") is None
    with Store.open(store.path, write=True):
        assert store.summary("h") == SUMMARY


def test_a_summary_of_who_was_forgotten_meanwhile_is_not_taken_in(store: Store) -> None:
    writer = StoreWriter(store)
    forget_user(store, "U1")
    writer.save_summaries([SUMMARY, replace(SUMMARY, input_hash="i", user_id="U2")])
    writer.close()
    assert (store.summary("h"), store.counts()["summaries"]) == (None, 1)
    assert not pending.folder_of(store.path).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_store_that_nobody_can_write_leaves_nothing_beside_it(store: Store) -> None:
    store.path.chmod(0o400)
    with pytest.raises(StoreReadOnly):
        StoreWriter(store).save_summaries([SUMMARY])
    assert not pending.folder_of(store.path).exists()


@pytest.mark.slow
def test_others_get_the_store_when_no_event_came_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was held until the close."""
    monkeypatch.setattr(module, "HELD", 0.2)
    writer, known = StoreWriter(store), len(store.history("U1"))
    for number in range(1, 4):
        writer.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])
        assert store._database.is_written
        asked = subprocess.run([sys.executable, "-c", ASK, str(store.path)], capture_output=True, text=True, check=True)
        assert int(asked.stdout) == known + number
        assert not store._database.is_written
    writer.close()


def test_events_one_after_another_open_the_store_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, original = list[Path](), Store.open

    def counting(path: Path, write: bool = False) -> Store:
        opened.append(path)
        return original(path, write)

    monkeypatch.setattr(Store, "open", counting)
    writer = StoreWriter(store)
    for price in range(5):
        writer.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])
        writer.upsert_items([{"item_id": "S1OLIV", "price": price}])
    assert len(opened) == 1
    writer.close()
    assert not store._database.is_written
    with pytest.raises(StoreError, match="was closed"):
        writer.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])


def test_an_event_that_cannot_be_written_now_can_be_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.store.connection.PATIENCE", 0.1)
    writer = StoreWriter(store)
    store._database._switch(None)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store.path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreBusy):
            writer.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])
        other.communicate("\n")
    assert writer.record_events([Event("U1", 0, NOON, "click", "S1OLIV")])[0].ts == NOON
    writer.close()


def test_a_process_that_ends_waits_for_its_own_threads(tmp_path: Path) -> None:
    """Python stops a daemon thread where it is; one that was inside DuckDB just then, giving the store back, ended the
    process by SIGABRT after the answer was given."""
    code = """
import threading, time
import duckdb
start = time.monotonic()
from recgraph.store.live.beside import Beside
begun, ended = [], []

def ask(number, sql):
    begun.append(number)
    for _ in range(20): duckdb.connect().execute(sql).fetchall()
    ended.append(number)
    if number == 1: Beside("begun by another", lambda: ended.append(3)).start()

work = "SELECT sum(a * b) FROM range(300000) t(a), (SELECT 3 b)"
Beside("busy", lambda: ask(1, work)).start()
Beside("not yet", lambda: ask(2, work), after=60).start()
on_and_on = Beside("on and on", lambda: all(iter(lambda: on_and_on.pause(0.01), None)))
on_and_on.start()
asked = threading.Condition()

def wait():
    with asked: asked.wait(60)

def wake():
    with asked: asked.notify_all()

waits = Beside("waits for something of its own", wait, wake=wake)
waits.start()
while not begun: time.sleep(0.001)
import atexit
from recgraph.store.live import beside
atexit.unregister(beside._end)
atexit.register(lambda: print(begun, ended, on_and_on.is_alive(), time.monotonic() - start < 9))
atexit.register(beside._end)  # runs before the other
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1] [1, 3] False True\n", "")
