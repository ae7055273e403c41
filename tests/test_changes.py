"""What a store says has changed since a revision, and the writes that a running process makes: events and products."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recgraph.errors import StoreError
from recgraph.store import changes
from recgraph.store.changes import Changes
from recgraph.store.db import Store
from recgraph.store.forget import forget_user
from recgraph.store.ingest.load import ingest
from recgraph.store.records import Event, Item

MakeStore = Callable[..., Store]
ITEMS = """
    item_id,title,category,brand,price
    D1,Red linen dress,dresses,Zed,49.90
    D2,,dresses,Zed,
    S1,White shirt,shirts,Aya,20
"""
EVENTS = """
    user_id,ts,action,item_id,query
    ann,2025-01-05T10:00:00,search,,red dress
    ann,2025-01-05T10:01:00,click,D1,red dress
    bob,2025-01-01,click,S1,
"""
NOON = datetime(2025, 2, 1, 12)


def click(user_id: str, item_id: str, ts: datetime = NOON) -> Event:
    return Event(user_id, 0, ts, "click", item_id)


def test_an_event_that_is_recorded_gets_the_next_number_and_is_in_the_history_at_once(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    later = Event("ann", 0, NOON + timedelta(seconds=1), "purchase", "D1", "red dress", 3)
    search = Event("ann", 0, NOON, "search", "", "shirt")
    recorded = store.record_events([later, search, click("eve", "S1")])
    assert [(e.user_id, e.seq, e.action) for e in recorded] == [
        ("ann", 4, "purchase"),
        ("ann", 3, "search"),
        ("eve", 1, "click"),
    ]
    assert store.history("ann")[2:] == [recorded[1], recorded[0]]
    assert store.has_user("eve")


def test_an_event_delivered_twice_under_one_id_is_recorded_once(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert len(store.record_events([click("ann", "D1"), click("ann", "S1")], ["m1", "m1"])) == 1
    before = store.revision()
    assert store.record_events([click("ann", "D1")], ["m1"]) == []
    assert store.revision() == before
    assert [e.item_id for e in store.record_events([click("ann", "S1")], ["m2"])] == ["S1"]
    assert len(store.history("ann")) == 4
    with pytest.raises(StoreError, match="1 events came with 2 ids"):
        store.record_events([click("ann", "D1")], ["a", "b"])


def test_a_file_read_later_does_not_add_what_was_recorded_already(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(ITEMS, EVENTS)
    store.record_events([click("ann", "S1")])
    store.close()
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nann,2025-02-01T12:00:00,click,S1\n")
    assert ingest(store.path, "tables", [tmp_path / "events.csv"]).events_new == 0


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event("ann", 0, NOON, "look", "D1"), "'look'; it must be one of search, click"),  # type: ignore[arg-type]
        (Event("ann", 0, NOON, "click"), "a click without one"),
        (Event("ann", 0, NOON, "search", "D1"), "a search with an item"),
        (Event("", 0, NOON, "click", "D1"), "has no user_id"),
        (Event("ann", 0, NOON.replace(tzinfo=UTC), "click", "D1"), "has an offset"),
    ],
)
def test_an_event_that_is_none_is_refused_and_nothing_is_written(
    make_store: MakeStore, event: Event, told: str
) -> None:
    store = make_store(ITEMS, EVENTS)
    with pytest.raises(StoreError, match=told):
        store.record_events([click("ann", "D1"), event])
    assert len(store.history("ann")) == 2


def test_a_product_that_only_an_event_names_is_history_where_there_is_a_catalogue(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    store.record_events([click("ann", "NEW")])
    assert store.items(["NEW"])["NEW"] == Item("NEW", first_seen=NOON, listed=False)
    assert store.catalogue().offered.tolist() == [True, True, False, True]


def test_what_is_given_of_a_product_is_written_and_the_rest_stays(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    changed = store.upsert_items(
        [
            {"item_id": "D1", "price": 29.9, "in_stock": False},
            {"item_id": "S1", "price": 20.0},
            {"item_id": "N1", "title": "Green coat", "price": 90, "attributes": {"key": "a", "value": "b"}},
        ]
    )
    assert changed == ["D1", "N1"]  # S1 costs what it did
    assert store.items(["D1", "N1"]) == {
        "D1": Item(
            "D1",
            "Red linen dress",
            "dresses",
            "Zed",
            price=29.9,
            in_stock=False,
            first_seen=datetime(2025, 1, 5, 10, 1),
        ),
        "N1": Item("N1", "Green coat", price=90.0, attributes={"key": "a", "value": "b"}),
    }
    store.upsert_items([{"item_id": "D1", "price": None, "brand": None}])
    assert (store.items(["D1"])["D1"].price, store.items(["D1"])["D1"].brand) == (None, "")
    with pytest.raises(StoreError, match="no field 'cost'"):
        store.upsert_items([{"item_id": "D1", "cost": 3}])
    with pytest.raises(StoreError, match="needs an item_id"):
        store.upsert_items([{"title": "Nameless"}])


def test_a_store_names_what_changed_since_a_revision(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    first = store.revision()
    assert store.changes_since(first) == Changes(first)
    store.record_events([click("ann", "D1"), click("ann", "NEW")])
    second = store.revision()
    store.upsert_items([{"item_id": "S1", "in_stock": False}])
    store.record_events([click("bob", "D1")])
    assert store.changes_since(first) == Changes(store.revision(), ("NEW", "S1"), (("ann", 3), ("ann", 4), ("bob", 2)))
    assert store.changes_since(second) == Changes(store.revision(), ("S1",), (("bob", 2),))
    assert store.changes_since("of another store") is None


def test_an_ingest_says_what_it_changed_and_a_large_one_that_it_is_everything(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(ITEMS, EVENTS)
    first = store.revision()
    (tmp_path / "items.csv").write_text("item_id,title,price\nD1,,39.90\nN1,New coat,5\n")
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nann,2025-03-01,click,N1\n")
    (tmp_path / "exposures.csv").write_text("query,item_id,position,ts\nCoat ,N1,1,2025-03-01\n")
    ingest(store.path, "tables", [tmp_path / f"{name}.csv" for name in ("items", "events", "exposures")])
    assert store.changes_since(first) == Changes(store.revision(), ("D1", "N1"), (("ann", 3),), ("coat",))
    monkeypatch.setattr("recgraph.store.ingest.merge.MOST", 1)
    second = store.revision()
    (tmp_path / "items.csv").write_text("item_id,title,price\nD1,,9\nN1,,6\n")
    ingest(store.path, "tables", [tmp_path / "items.csv"])
    assert second != store.revision()
    assert store.changes_since(second) is None


def test_of_many_changes_the_oldest_are_dropped_and_then_everything_may_have_changed(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "KEPT", 4)
    store = make_store(ITEMS, EVENTS)
    revisions = [store.revision()]
    for price in range(1, 7):
        store.upsert_items([{"item_id": "D1", "price": price}])
        revisions.append(store.revision())
    assert store.changes_since(revisions[0]) is None
    assert store.changes_since(revisions[-2]) == Changes(revisions[-1], ("D1",))


def test_a_shopper_who_is_forgotten_is_in_no_change_and_under_no_id(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    store.record_events([click("ann", "D1")], ["m1"])
    before = store.revision()
    forget_user(store, "ann")
    assert store.changes_since(before) is None
    assert store._all("SELECT count(*) FROM event_ids")[0][0] == 0
    assert store._all("SELECT count(*) FROM changes WHERE key = 'ann'")[0][0] == 0


def test_the_revision_is_read_anew_only_when_somebody_can_have_written(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    first = store.revision()
    reading = store._database.reading
    store._database.reading = None  # type: ignore[assignment, method-assign]
    assert store.revision() == first
    store._database.reading = reading  # type: ignore[method-assign]
    with store.writing():
        store.record_events([click("ann", "D1")])
        assert store.revision() != first  # the writer sees its own
    with Store.open(store.path, write=True) as other:
        other.record_events([click("bob", "D1")])
        assert store.revision() == other.revision() != first


def test_names_of_untitled_products_are_put_together_as_an_item_puts_them(make_store: MakeStore) -> None:
    store = make_store(ITEMS + "X1,,,,5\n", EVENTS)
    items, catalogue = store.items(["D1", "D2", "S1", "X1"]), store.catalogue()
    assert catalogue.names == [items[item_id].name for item_id in catalogue.item_ids]


@pytest.mark.slow
def test_a_process_that_reads_makes_way_for_an_ingest_and_then_knows_the_new_revision(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """A serving process that read nothing just then kept every ingest waiting until it gave up."""
    store = make_store(ITEMS, EVENTS)
    store.close()
    code = f"""
from recgraph.store.db import Store
store = Store.open({str(store.path)!r})
print(store.revision(), flush=True)
input()
print(store.revision(), len(store.history("ann")), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as reader:
        assert reader.stdout is not None
        before = reader.stdout.readline().strip()
        (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nann,2025-03-01,click,S1\n")
        ingest(store.path, "tables", [tmp_path / "events.csv"], wait=20)
        after, events = reader.communicate("\n")[0].split()
    with Store.open(store.path) as again:
        assert (after, events) == (again.revision(), "3")
    assert before != after
    assert not store.path.with_name(store.path.name + ".wanted").exists()


def test_a_file_that_took_the_place_of_a_store_is_read_from_then_on(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(ITEMS, EVENTS)
    other = make_store(ITEMS, EVENTS.replace("ann", "zoe"), name="other")
    other.close()
    assert not store.has_user("zoe")
    other.path.replace(store.path)
    for _ in range(50):
        if store.has_user("zoe"):
            break
        time.sleep(0.02)
    assert store.has_user("zoe")


def test_changes_are_looked_up_once_for_all_who_follow_the_store(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked, original = make_store(ITEMS, EVENTS), list[str](), changes.since

    def since(cursor: Any, known: str) -> Changes | None:
        asked.append(known)
        return original(cursor, known)

    monkeypatch.setattr(changes, "since", since)
    first = store.revision()
    store.record_events([click("ann", "S1")])
    second = store.revision()
    found = [store.changes_since(first) for _ in range(3)]
    assert (len(asked), found[0] == found[1] == found[2]) == (1, True)
    store.record_events([click("bob", "D1")])
    later = store.changes_since(first)
    assert later is not None
    assert {user for user, _ in later.events} == {"ann", "bob"}
    one = store.changes_since(second)
    assert one is not None
    assert [user for user, _ in one.events] == ["bob"]
    assert asked == [first, first, second]
