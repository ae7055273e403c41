"""The Store: what it hands out, who may write when, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from within import within

from recgraph.errors import StoreBusy, StoreError, StoreReadOnly
from recgraph.store import connection, migrations
from recgraph.store.care import pending, runlog
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest
from recgraph.store.records import Event, Item, Summary
from recgraph.store.runs import RunLog, RunQueue

MakeStore = Callable[..., Store]
ITEMS = """
    item_id,title,category,brand,color,price,first_seen,parent_id
    D1,Red linen dress,dresses,Zed,red,49.90,2025-01-01,D
    D2,Blue linen dress,dresses,Zed,blue,49.90,2025-03-01,D
    S1,White shirt,shirts,Aya,white,,,
    X1,,bags,Aya,black,10,,
"""
EVENTS = """
    user_id,ts,action,item_id,query,position
    ann,2025-01-05T10:00:00,search,,red dress,
    ann,2025-01-05T10:01:00,click,D1,red dress,2
    ann,2025-01-05T10:01:00,click,S1,,
    ann,2025-02-01,purchase,D1,,
    bob,2025-01-01,click,S1,White Shirt ,1
    bob,2025-03-02,cart,D2,,
"""


SUMMARY = Summary("kept", "ann", "recurrent", 0, 0, 4, (("Likes “red”.", (1, 2)),), (1, 2, 4), "profile", "1")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)


@contextmanager
def _other_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`, which must print "ready" and then wait for its input to close."""
    process = subprocess.Popen(
        [sys.executable, "-c", code + "\nprint('ready', flush=True)\ninput()"], stdin=-1, stdout=-1, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_history_is_in_order_strictly_before_a_moment_and_limited_to_the_newest(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert [(e.seq, e.action, e.item_id) for e in store.history("ann", before=datetime(2025, 2, 1))] == [
        *((1, "search", ""), (2, "click", "D1"), (3, "click", "S1")),
    ]
    assert [(e.seq, e.action, e.item_id) for e in store.history("ann")][3:] == [(4, "purchase", "D1")]
    assert store.history("ann")[1] == Event("ann", 2, datetime(2025, 1, 5, 10, 1), "click", "D1", "red dress", 2)
    assert [e.seq for e in store.history("ann", before=datetime(2025, 1, 5, 10, 1))] == [1]
    assert [e.seq for e in store.history("ann", limit=2)] == [3, 4]
    assert store.history("ann", limit=0) == []
    assert store.history("nobody") == []


def test_users_are_listed_by_activity_and_found_in_any_case(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert [(row.user_id, row.events, row.purchases) for row in store.users()] == [("ann", 4, 1), ("bob", 2, 0)]
    assert [row.user_id for row in store.users(like="BO")] == ["bob"]
    assert (store.has_user("ann"), store.has_user("an")) == (True, False)


def test_items_come_with_their_attributes_and_unknown_ids_are_left_out(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    found = store.items(["D1", "nothing", "D1", "X1"])
    assert found["D1"] == Item(
        "D1", "Red linen dress", "dresses", "Zed", "red", price=49.9, parent_id="D", first_seen=datetime(2025, 1, 1)
    )
    assert sorted(found) == ["D1", "X1"]
    assert found["X1"].name == "black Aya bags (untitled product X1)"
    assert store.items([]) == {}


def test_items_are_found_by_all_words_in_any_order_and_by_category(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert [item.item_id for item in store.find_items("dress LINEN")] == ["D1", "D2"]
    assert [item.item_id for item in store.find_items("aya", category="Shirt")] == ["S1"]
    assert [item.item_id for item in store.find_items(limit=1)] == ["D1"]
    assert store.find_items("dress%") == []


def test_the_catalogue_and_the_sequences_count_items_alike(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    catalogue, sequences = store.catalogue(), store.sequences()
    assert catalogue.item_ids == ["D1", "D2", "S1", "X1"]
    assert catalogue.titles[3] == ""
    assert catalogue.names[3] == "black Aya bags (untitled product X1)"
    assert catalogue.first_seen.tolist() == [
        datetime(2025, 1, 1),
        datetime(2025, 3, 1),
        datetime(2025, 1, 1),
        datetime(1970, 1, 1),
    ]
    assert catalogue.in_stock.all()
    rows = [
        (sequences.user_ids[u], catalogue.item_ids[i], int(a))
        for u, i, a in zip(sequences.user, sequences.item, sequences.action, strict=True)
    ]
    assert rows == [("ann", "D1", 0), ("ann", "S1", 0), ("ann", "D1", 2), ("bob", "S1", 0), ("bob", "D2", 1)]
    assert (sequences.user.dtype, sequences.item.dtype, sequences.action.dtype) == (np.int32, np.int32, np.int8)
    assert sequences.ts.dtype == np.dtype("datetime64[us]")
    early = store.sequences(before=datetime(2025, 1, 5))
    assert [early.user_ids[u] for u in early.user] == ["bob"]


def test_an_empty_store_answers_everything_with_nothing(make_store: MakeStore) -> None:
    store = make_store()
    assert set(store.counts().values()) == {0}
    assert (store.users(), store.popular(days=7), store.memory_queries(), store.catalogue().item_ids) == (
        [],
        [],
        [],
        [],
    )
    assert len(store.sequences().user) == 0
    assert store.all_vectors("title", "m")[1].shape == (0, 0)
    assert store.revision() == "empty"


def test_popular_items_weigh_purchases_most_and_may_look_back_only_some_days(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert store.popular() == [("D1", 1 + 3), ("D2", 2), ("S1", 2)]
    assert store.popular(days=10) == [("D2", 2)]
    assert store.popular(before=datetime(2025, 1, 10), limit=1) == [("S1", 2)]
    assert store.popular(before=datetime(2025, 2, 2), days=5) == [("D1", 3)]


def test_counts_and_attribute_values_tell_what_is_inside(make_store: MakeStore) -> None:
    counts = make_store(ITEMS, EVENTS).counts()
    assert (counts["users"], counts["items"], counts["events"], counts["searches"]) == (2, 4, 6, 1)
    assert (counts["clicks"], counts["carts"], counts["purchases"]) == (3, 1, 1)
    assert make_store(ITEMS, EVENTS, name="second").attribute_values() == {
        "brand": {"Zed", "Aya"},
        "category": {"dresses", "shirts", "bags"},
        "color": {"red", "blue", "white", "black"},
    }


EXPOSURES = """
    query,item_id,position,ts
    red dress,D2,1,2025-01-01
    red dress,D1,2,2025-01-01
    RED Dress,D1,1,2025-02-01
    red dress,D2,4,2025-02-01
    shirt,S1,1,2025-03-01
"""


def test_query_products_are_ordered_by_mean_position_and_know_only_the_past(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS, EXPOSURES)
    assert store.memory_queries() == ["red dress", "shirt"]
    # Mean positions: D1 (2 + 1) / 2 = 1.5, D2 (1 + 4) / 2 = 2.5; before February D2 stood first.
    assert store.query_products([" Red dress", "unheard of"]) == {" Red dress": ["D1", "D2"], "unheard of": []}
    assert store.query_products(["red dress"], before=datetime(2025, 1, 15)) == {"red dress": ["D2", "D1"]}
    assert store.query_products(["red dress"], limit=1) == {"red dress": ["D1"]}
    assert store.memory_queries(before=datetime(2025, 3, 1)) == ["red dress"]
    assert store.query_products([]) == {}


def test_without_exposures_the_queries_of_events_that_name_an_item_are_the_memory(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    assert store.memory_queries() == ["red dress", "White Shirt"]
    assert store.query_products(["white shirt"]) == {"white shirt": ["S1"]}


@pytest.mark.slow
def test_vectors_come_back_as_they_were_and_a_second_save_replaces(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    numbers = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    keys = [f"k{n:03d}" for n in range(300)][::-1]
    store.save_vectors("title", "m", keys, numbers)
    store.save_vectors("title", "other model", ["k000"], numbers[:1])
    found, all_numbers = store.all_vectors("title", "m")
    assert found == sorted(keys)
    assert np.array_equal(all_numbers, numbers[::-1])
    store.save_vectors("title", "m", ["k000", "new"], np.ones((2, 8), np.float32))
    some = store.vectors("title", "m", ["k000", "k299", "absent"])
    assert sorted(some) == ["k000", "k299"]
    assert np.array_equal(some["k000"], np.ones(8))
    assert np.array_equal(some["k299"], numbers[0])
    assert store.counts()["embeddings"] == 302


def test_summaries_are_kept_once_with_the_events_behind_each_sentence(make_store: MakeStore) -> None:
    store = make_store(ITEMS, EVENTS)
    summary = Summary(
        "hash", "ann", "recurrent", 0, 0, 4, (("Likes “red”.", (1, 2)), ("Buys.", (4,))), (1, 2, 4), "profile", "1"
    )
    store.save_summaries([summary])
    store.save_summaries([summary, summary])
    store.take_waiting()
    assert store.summary("hash") == summary
    assert store.summary("another") is None
    assert store.counts()["summaries"] == 1


def _write_and_fail(store: Store) -> None:
    store.set_meta("a", "3")
    store.set_meta("c", "3")
    raise KeyError


def test_a_reading_store_writes_in_a_block_and_all_of_it_or_nothing(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    with store.writing():
        store.set_meta("a", "1")
        with store.writing():
            store.set_meta("b", "2")
        assert store.meta("b") == "2"
    with pytest.raises(KeyError), store.writing():
        _write_and_fail(store)
    assert (store.meta("a"), store.meta("b"), store.meta("c")) == ("1", "2", None)


@pytest.mark.slow
def test_threads_read_the_state_before_while_another_writes_and_writers_take_turns(make_store: MakeStore) -> None:
    store, seen, errors = make_store(ITEMS, EVENTS), [], []

    def read() -> None:
        seen.append(store.meta("n"))

    def write(number: int) -> None:
        try:
            for _ in range(3):
                with store.writing():
                    store.set_meta("n", str(int(store.meta("n") or 0) + 1))
                assert len(store.history("ann")) == 4
        except (StoreError, duckdb.Error) as error:
            errors.append(error)

    with store.writing():
        store.set_meta("n", "0")
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(timeout=10)
    assert seen == [None]
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert errors == []
    assert store.meta("n") == "12"


def test_an_ingest_into_a_store_that_is_open_for_reading_is_seen_by_it(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(ITEMS, EVENTS)
    before = store.revision()
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\ncia,2025-05-05,click,D1\n")
    ingest(store.path, "tables", [tmp_path / "events.csv"])
    assert store.has_user("cia")
    assert store.revision() != before


def test_a_missing_store_names_the_commands_that_make_one_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"recgraph demo --store .*none\.duckdb.* recgraph ingest"):
        Store.open(tmp_path / "none.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "text.duckdb", tmp_path / "other.duckdb"
    text.write_text("hello " * 2000)
    with duckdb.connect(str(other)) as con:
        con.execute("CREATE TABLE accounts (n INTEGER)")
    with pytest.raises(StoreError, match="not a DuckDB file"):
        Store.open(text)
    for opening in (Store.open, Store.create):
        with pytest.raises(StoreError, match=r"no recgraph store \(tables: accounts\)"):
            opening(other)
    with duckdb.connect(str(other)) as con:
        assert con.execute("SHOW TABLES").fetchall() == [("accounts",)]


def test_a_store_of_a_newer_schema_names_both_versions_and_the_upgrade(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    store.set_meta("schema_version", "99")
    store.close()
    with pytest.raises(StoreError, match=r"version 99; .* up to version 3\. Run: pip install -U recgraph"):
        Store.open(store.path)


def test_an_older_schema_is_migrated_once_and_recorded(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(ITEMS)
    store.close()

    def fourth(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("ALTER TABLE items ADD COLUMN season VARCHAR DEFAULT 'any'")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, fourth])
    monkeypatch.setattr("recgraph.store.db.MIGRATIONS", migrations.MIGRATIONS)
    for _ in range(2):
        with Store.open(store.path) as again:
            assert again.meta("schema_version") == "4"
            assert again.meta("migration_0004") is not None
            assert again.counts()["items"] == 4


@pytest.mark.slow
def test_a_store_another_process_writes_is_busy_and_free_again_afterwards(
    make_store: MakeStore, impatient: None
) -> None:
    store = make_store(ITEMS, EVENTS)
    with _other_process(f"from recgraph.store.db import Store; store = Store.open({str(store.path)!r})"):
        assert store.has_user("ann")  # two processes may read
        with pytest.raises(StoreBusy, match="Another process is using"), store.writing():
            pass
        assert store.has_user("ann")  # and the refused writer reads on
    store.close()
    with (
        _other_process(f"from recgraph.store.db import Store; store = Store.open({str(store.path)!r}, write=True)"),
        pytest.raises(StoreBusy),
    ):
        Store.open(store.path)
    with Store.open(store.path) as free:
        assert free.has_user("ann")


@pytest.fixture
def read_only_store() -> Iterator[Path]:
    """A store in a folder nobody may write; root, who may always, becomes nobody meanwhile."""
    with tempfile.TemporaryDirectory(prefix="recgraph-test-") as name:
        folder = Path(name)
        Store.create(folder / "shop.duckdb").close()
        (folder / "a_sequence.txt").write_text("ann A B\n")
        (folder / "shop.duckdb").chmod(0o444)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder / "shop.duckdb"
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_read_only_disk_can_be_read_and_says_so_when_written(read_only_store: Path) -> None:
    with Store.open(read_only_store) as store:
        assert store.counts()["items"] == 0
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            store.set_meta("a", "b")
        assert store.meta("a") is None
    with pytest.raises(StoreReadOnly):
        RunLog(read_only_store).append({"run_id": "1"})
    with pytest.raises(StoreReadOnly):
        RunQueue(RunLog(read_only_store)).add({"run_id": "1"})
    with pytest.raises(StoreReadOnly):
        ingest(read_only_store, "sequences", [read_only_store.parent])
    with pytest.raises(StoreReadOnly):
        ingest(read_only_store.with_name("new.duckdb"), "sequences", [read_only_store.parent])


@pytest.mark.slow
def test_a_commit_lost_to_a_kill_is_there_or_not_but_reading_works_either_way(make_store: MakeStore) -> None:
    """A killed writer leaves a .wal beside the store; opening for reading must replay it."""
    store = make_store(ITEMS, EVENTS)
    store.close()
    code = f"from recgraph.store.db import Store; store = Store.open({str(store.path)!r}, write=True); store.set_meta('last', 'words')"
    with _other_process(code) as process:
        process.kill()
        process.wait()
    assert store.path.with_name(store.path.name + ".wal").exists()
    with Store.open(store.path) as again:
        assert again.meta("last") == "words"
        assert again.counts()["events"] == 6


def test_a_closed_store_says_so(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.counts()


def test_a_store_is_closed_when_the_write_of_another_thread_has_ended(make_store: MakeStore) -> None:
    """A server that was stopped while it warmed up closed the connection under the embeddings that it was writing, and
    died of it."""
    store, writes, go = make_store(ITEMS, EVENTS), threading.Event(), threading.Event()
    left: list[float] = []

    def write() -> None:
        with store._database.writing() as cursor:
            writes.set()
            go.wait(10)
            cursor.execute("SELECT count(*) FROM items").fetchall()
            left.append(time.monotonic())

    thread = threading.Thread(target=write)
    thread.start()
    writes.wait(10)
    threading.Timer(0.1, go.set).start()
    store.close()
    closed = time.monotonic()
    thread.join()
    assert left
    assert left[0] < closed


def test_the_run_log_is_a_file_of_its_own_and_gives_runs_back_newest_first(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    log = RunLog(store.path)
    assert log.recent() == []
    assert not log.place.exists()
    log.append({"run_id": "1", "user_id": "ann", "items": [{"title": "Kleid für Ärzte"}]})
    log.append({"run_id": "2", "at": datetime(2025, 1, 1)})
    assert log.place.name == "shop.runs.duckdb"
    assert log.recent() == [
        {"run_id": "2", "at": "2025-01-01 00:00:00"},
        {"run_id": "1", "user_id": "ann", "items": [{"title": "Kleid für Ärzte"}]},
    ]
    assert len(log.recent(limit=1)) == 1


@pytest.mark.slow
def test_readers_are_served_from_the_old_state_while_an_ingest_reads_and_while_it_merges(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """The lock was held while the files were read: readers of other processes failed for as long as that took."""
    store = make_store(ITEMS, EVENTS)
    store.close()
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d" / "events.csv").write_text("user_id,ts,action,item_id\ncia,2025-05-05,click,D1\n")
    child = """
import sys, time
from recgraph.store.ingest.load import ingest
def progress(step):
    if step in ("reading events.csv", "writing events"):
        print(step, flush=True)
        time.sleep(3)
ingest(sys.argv[1], "tables", [sys.argv[2]], progress=progress)
"""
    command = [sys.executable, "-c", child, str(store.path), str(tmp_path / "more.d")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading events.csv\n"
        with Store.open(store.path) as reader:
            assert not reader.has_user("cia")
        assert process.stdout.readline() == "writing events\n"
        with within(2):  # it merges for three
            reader = Store.open(store.path)
            assert not reader.has_user("cia")
        with reader:
            with pytest.raises(StoreBusy), reader._database.writing(patience=0):
                pass  # what is written now would be lost with the old file
            reader.save_summaries([SUMMARY])
            with pytest.raises(StoreBusy):
                reader.take_waiting(patience=0)
            assert len(pending.waiting(store.path)) == 1
            assert process.wait() == 0
            assert reader.has_user("cia")
            reader.set_meta("k", "v")
        with Store.open(store.path, write=True) as last:
            assert last._all("SELECT count(*) FROM summaries") == [(1,)]
            assert last.meta("k") == "v"
    assert [entry.name for entry in tmp_path.iterdir() if "ingest" in entry.name or "lock" in entry.name] == []


def test_a_reader_that_waited_for_an_ingest_is_served_when_it_ends(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder goes before its lock: a reader that saw that had waited longer than for anybody else, and failed."""
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    store = make_store(ITEMS)
    store.close()
    at_work = store.path.with_name(store.path.name + connection.INGEST_FOLDER)
    at_work.mkdir()
    real, tries = duckdb.connect, list[int]()

    def locked(*given: object, **named: object) -> object:
        tries.append(1)
        if len(tries) < 12:  # half a second and more
            raise duckdb.IOException("IO Error: Could not set lock on file")
        if len(tries) == 12:
            at_work.rmdir()
            raise duckdb.IOException("IO Error: Could not set lock on file")
        return real(*given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(duckdb, "connect", locked)
    with Store.open(store.path) as reader:
        assert reader.counts()["items"] > 0


@pytest.mark.slow
def test_two_ingests_into_one_store_queue_and_the_second_says_so_once(make_store: MakeStore, tmp_path: Path) -> None:
    store, steps = make_store(ITEMS, EVENTS), list[str]()
    store.close()
    for name in ("dan", "eva"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.csv").write_text(f"user_id,ts,action,item_id\n{name},2025-05-05,click,D1\n")
    waits = threading.Event()

    def first(step: str) -> None:
        if step.startswith("reading"):
            second.start()
            assert waits.wait(timeout=30)

    def queued(step: str) -> None:
        steps.append(step)
        waits.set()

    second = threading.Thread(
        target=ingest, args=(store.path, "tables", [tmp_path / "eva"]), kwargs={"progress": queued}
    )
    ingest(store.path, "tables", [tmp_path / "dan"], progress=first)
    second.join(timeout=30)
    with Store.open(store.path) as both:
        assert (both.has_user("dan"), both.has_user("eva")) == (True, True)
    assert [step for step in steps if step.startswith("waiting")] == [
        f"waiting for another ingest into {store.path.name} (up to 300 s)"
    ]


def test_a_run_log_under_the_doubled_name_is_taken_over_at_the_next_run(make_store: MakeStore) -> None:
    store = make_store(ITEMS)
    log = RunLog(store.path)
    doubled = RunLog(store.path.with_suffix(".runs.duckdb"))
    doubled.append({"run_id": "old", "user_id": "ann"})
    assert doubled.place.name == "shop.runs.runs.duckdb"
    assert [run["run_id"] for run in log.recent()] == ["old"]
    log.append({"run_id": "new", "user_id": "bob"})
    assert [run["run_id"] for run in log.recent()] == ["new", "old"]
    assert not doubled.place.exists()
    assert (runlog.forget(store.path, "ann"), runlog.forget(store.path, "ann")) == (1, 0)
    assert [run["run_id"] for run in log.recent()] == ["new"]


def test_a_store_of_schema_1_learns_which_items_events_alone_named(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        migrations._first(con.cursor())
        con.execute("INSERT INTO meta VALUES ('schema_version', '1')")
        con.execute(
            "INSERT INTO items (item_id, title, brand) VALUES ('A', 'Red tee', ''), ('B', '', ''), ('C', '', 'Zed')"
        )
    with Store.open(path) as store:
        assert store.catalogue().listed.tolist() == [True, False, True]
        assert store.meta("catalogue") == "given"


def test_a_module_that_is_missing_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB looked for pandas twice for each value of a list: 2.3 of the 3.4 seconds to a first answer where
    it is not installed."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for name in ("recgraph_missing", "json"):
        connection.mark_missing(name)
    assert sys.modules["recgraph_missing"] is None
    assert sys.modules["json"] is not None
    program = (
        "import sys, importlib.abc\nlooked = []\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        looked.append(name)\n"
        "import importlib.util\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'pandas' else found(name, *rest)\n"
        "import recgraph.store.connection, duckdb\nsys.meta_path.insert(0, Finder())\n"
        "duckdb.execute('SELECT unnest(?)', [['a'] * 100]).fetchall()\nprint(looked.count('pandas'))"
    )
    looked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert looked == ["0"]
