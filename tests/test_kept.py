"""What is kept of a store in memory: it is read once, follows what is written, and stays small."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_ITEMS

from recgraph.store.db import Store
from recgraph.store.forget import forget_user
from recgraph.store.live import kept
from recgraph.store.live.kept import KeptReader
from recgraph.store.records import Event, Summary

NOON = datetime(2025, 7, 1, 12)
SUMMARY = Summary("h", "U1", "recurrent", 0, 0, 1, (("Likes olive.", (1,)),), (1,), "profile", "1")
OTHER_PROCESS = """
import sys
from datetime import datetime
from recgraph.store.db import Store
from recgraph.store.records import Event
with Store.open(sys.argv[1], write=True) as store:
    store.upsert_items([{"item_id": "S1OLIV", "price": 2.5, "in_stock": False}, {"item_id": "NEW", "title": "New"}])
    store.record_events([Event("U1", 0, datetime(2025, 7, 1, 12), "purchase", "NEW")])
"""


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Iterator[Store]:
    with make_store(SHOP_ITEMS, SHOP_EVENTS) as made:
        yield made


@pytest.fixture
def reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the store was asked."""
    asked: list[str] = []
    original = Store._all

    def _all(self: Store, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return original(self, sql, values)

    monkeypatch.setattr(Store, "_all", _all)
    return asked


def test_what_was_read_is_not_read_again(store: Store, reads: list[str]) -> None:
    reader = KeptReader(store)

    def read() -> tuple[object, ...]:
        nobody, bought = reader.history("nobody", limit=3), reader.bought("U1")
        return reader.history("U1"), reader.history("U1", limit=3), reader.items(["S1OLIV", "K2OLIV"]), bought, nobody

    first = read()
    assert len(reads) in (5, 6)  # a history of more than its limit is asked for twice
    reads.clear()
    assert read() == first
    assert reads == []
    here = store.history("U1"), store.history("U1", limit=3), store.items(["S1OLIV", "K2OLIV"]), store.bought("U1"), []
    assert first == here


def test_a_moment_and_an_unknown_product_are_asked_of_the_store(store: Store) -> None:
    reader, moment = KeptReader(store), store.history("U1")[1].ts
    for _ in range(2):
        assert reader.history("U1", moment, 2) == store.history("U1", moment, 2)
        assert reader.bought("U1", moment) == store.bought("U1", moment)
        assert reader.items(["none", "S1OLIV", "S1OLIV"]) == store.items(["S1OLIV"])


def test_what_was_written_is_read_anew_and_nothing_else(store: Store, reads: list[str]) -> None:
    reader = KeptReader(store)
    bought, offered = set(reader.bought("U1")), reader.offered()
    assert offered == int(store.catalogue().offered.sum())
    before = reader.history("U1", limit=500), reader.history("U2"), reader.items(["S1OLIV", "K2OLIV"])
    store.record_events([Event("U1", 0, NOON, "purchase", "NEW")])
    store.upsert_items([{"item_id": "S1OLIV", "price": 1.5, "in_stock": False}])
    reads.clear()
    assert [reader.offered(), reader.offered()] == [offered - 1] * 2
    assert len(reads) == 1
    reads.clear()
    assert reader.history("U1", limit=500)[-1].ts == NOON
    assert set(reader.bought("U1")) == bought | {"NEW"}
    assert (reader.items(["S1OLIV"])["S1OLIV"].price, reader.items(["S1OLIV"])["S1OLIV"].offered) == (1.5, False)
    assert len(reads) == 3
    assert (reader.history("U2"), reader.items(["K2OLIV"])["K2OLIV"]) == (before[1], before[2]["K2OLIV"])
    assert len(reads) == 3


@pytest.mark.slow
def test_what_another_process_writes_is_read(make_store: Callable[..., Store]) -> None:
    made = make_store(SHOP_ITEMS, SHOP_EVENTS)
    made.close()
    with Store.open(made.path) as store:
        reader = KeptReader(store)
        bought = set(reader.bought("U1"))
        assert reader.items(["S1OLIV", "NEW"])["S1OLIV"].offered
        before = reader.history("U1", limit=500)
        store._database._switch(None)  # as where an ingest of another process asks for the file
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(made.path)], check=True)
        assert reader.items(["S1OLIV", "NEW"])["NEW"].title == "New"
        assert (reader.items(["S1OLIV"])["S1OLIV"].price, reader.items(["S1OLIV"])["S1OLIV"].offered) == (2.5, False)
        assert len(reader.history("U1", limit=500)) == len(before) + 1
        assert set(reader.bought("U1")) == bought | {"NEW"}


def test_a_history_read_before_an_event_is_not_kept_after_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread read it, an event came, another thread saw the event, then the first one would have kept it."""
    reader, original = KeptReader(store), Store.history

    def history(self: Store, user_id: str, *given: Any) -> list[Event]:
        found = original(self, user_id, *given)
        monkeypatch.setattr(Store, "history", original)
        store.record_events([Event(user_id, 0, NOON, "click", "S1OLIV")])
        reader.history(user_id)
        return found

    monkeypatch.setattr(Store, "history", history)
    reader.history("U1")
    assert reader.history("U1")[-1].ts == NOON


@pytest.mark.slow
def test_no_thread_reads_what_was_before_its_own_event(store: Store) -> None:
    reader, wrong = KeptReader(store), list[str]()

    def shop(user: str) -> None:
        for number in range(1, 15):
            store.record_events([Event(user, 0, NOON.replace(minute=number), "click", "S1OLIV")])
            store.upsert_items([{"item_id": user, "price": float(number)}])
            if len(reader.history(user, limit=500)) != number or reader.items([user])[user].price != number:
                wrong.append(f"{user} {number}")

    threads = [threading.Thread(target=shop, args=(f"T{number}",)) for number in range(4)]
    with Store.open(store.path, write=True):  # which spares each write the opening
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert wrong == []


def test_nothing_is_kept_of_a_shopper_who_was_forgotten(make_store: Callable[..., Store]) -> None:
    made, called = make_store(SHOP_ITEMS, SHOP_EVENTS), list[int]()
    made.close()
    with Store.open(made.path, write=True) as store:
        reader = KeptReader(store, lambda: called.append(1))
        reader.made([SUMMARY])
        store.save_summaries([SUMMARY])
        assert reader.summary("h") == SUMMARY
        assert reader.history("U1")
        assert reader.history("U2")
        assert called == []
        forget_user(store, "U1")
        assert reader.history("U1") == []
        assert reader.summary("h") is None
        assert reader.bought("U1") == []
        assert called == [1]
        assert "U2" not in reader._histories.values


def test_what_is_kept_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ITEMS", 3)
    monkeypatch.setattr(kept, "EVENTS", 2)
    monkeypatch.setattr(kept, "SUMMARIES", 1)
    reader, ids = KeptReader(store), store.catalogue().item_ids
    assert len(reader.items(ids)) == len(ids)
    assert (len(reader._items.values), reader._items.total) == (3, 3)
    for user in ("U1", "U2", "nobody", "no one"):
        reader.history(user)
    assert list(reader._histories.values) == ["nobody", "no one"]  # what is empty is not for nothing
    reader.made([SUMMARY, replace(SUMMARY, input_hash="i")])
    assert list(reader._summaries.values) == ["i"]


def test_a_summary_that_is_not_in_the_store_yet_is_known(store: Store) -> None:
    reader = KeptReader(store)
    assert reader.summary("h") is None
    reader.made([SUMMARY])
    assert reader.summary("h") == SUMMARY
    store.upsert_items([{"item_id": "S1OLIV", "price": 1.5}])
    assert reader.summary("h") == SUMMARY
