"""One store for several processes: a real owner, served through DuckDB's Quack, and this process beside it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.db import Store
from recgraph.store.facets import FacetReader
from recgraph.store.forget import ERASING, forget_item, forget_user
from recgraph.store.live.kept import KeptReader
from recgraph.store.live.writer import StoreWriter
from recgraph.store.records import Event, Summary
from recgraph.store.shared.address import Address, extension_files, parse_address
from recgraph.store.shared.calls import packed, unpacked
from recgraph.store.shared.owner import Owner
from recgraph.store.shared.session import literal, rendered

try:
    extension_files()
except StoreError as missing:
    pytest.skip(str(missing), allow_module_level=True)

NOON = datetime(2025, 6, 1, 12)


class Served:
    """A store and its owner, a process of its own."""

    def __init__(self, file: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.file, self.address = file, f"quack:127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "recgraph.cli", "store", "serve", str(self.file), "--port", str(self.port)]
        self.owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.owner.stdout is not None
        assert "is served at" in self.owner.stdout.readline()

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.owner.send_signal(how)
        self.owner.wait(30)
        assert self.owner.stdout is not None
        self.owner.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("shared") / "shop.duckdb"
    with Store.create(file) as store:
        store.upsert_items([{"item_id": f"I{n}", "title": f"Olive jumper {n}", "price": n + 0.5} for n in range(20)])
        store.record_events([Event("U1", 0, NOON, "click", "I1"), Event("U1", 0, NOON, "search", "", "warm jumper")])
    shop = Served(file)
    yield shop
    shop.stop()


@pytest.fixture
def store(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RECGRAPH_STORE_TOKEN_FILE", f"{served.file}.token")
    with Store.open(served.address) as opened:
        yield opened


def click(user: str, item: str = "I1") -> Event:
    return Event(user, 0, NOON, "click", item)


def test_a_shared_store_reads_as_its_file_does(store: Store) -> None:
    assert [e.item_id or e.query for e in store.history("U1")] == ["I1", "warm jumper"]
    assert store.items(["I3", "none"])["I3"].price == 3.5
    assert list(store.catalogue().item_ids)[:2] == ["I0", "I1"]
    assert store.has_user("U1")
    assert not store.has_user("U1' OR '1' = '1")
    with FacetReader(store) as facets:
        assert facets.ids()[0] == b"I0"


@pytest.mark.slow
def test_a_write_is_seen_by_the_next_read_of_every_process(store: Store, served: Served) -> None:
    reader = KeptReader(store)
    assert reader.history("U2") == []
    code = (
        "from datetime import datetime; from recgraph.store.db import Store; from recgraph.store.records import Event\n"
        f"with Store.open('{served.address}') as s:\n"
        "    s.record_events([Event('U2', 0, datetime(2025, 6, 1), 'click', 'I2')], ['other-1'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [e.item_id for e in reader.history("U2")] == ["I2"]
    assert store.changes_since("nothing of this") is None


def test_an_event_delivered_twice_is_there_once_and_gets_the_users_next_number(store: Store) -> None:
    assert [e.seq for e in store.record_events([click("U3"), click("U3", "I2")], ["a", "b"])] == [1, 2]
    assert store.record_events([click("U3")], ["a"]) == []
    assert [e.item_id for e in store.history("U3")] == ["I1", "I2"]


def test_many_threads_write_at_once_and_each_gets_its_own_answer(store: Store) -> None:
    answers: dict[int, list[Event]] = {}
    writer = StoreWriter(store)

    def work(n: int) -> None:
        answers[n] = writer.record_events([click(f"T{n}", f"I{n % 20}")], [f"t{n}"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert {n: (one[0].user_id, one[0].seq) for n, one in answers.items()} == {n: (f"T{n}", 1) for n in range(40)}


def test_a_wrong_event_is_refused_and_holds_up_no_other(store: Store) -> None:
    with pytest.raises(StoreError, match="must be one of search"):
        store.record_events([Event("U4", 0, NOON, "stare", "I1")], ["wrong"])  # type: ignore[arg-type]
    assert store.record_events([click("U4")], ["right"])


def test_products_facts_summaries_and_vectors_are_written_through_the_owner(store: Store) -> None:
    given = {"item_id": "N'1", "title": "A $5 'what?'\n\0", "attributes": {"key": "v", "map": "?"}, "first_seen": NOON}
    assert store.upsert_items([given]) == ["N'1"]
    found = store.items(["N'1"])["N'1"]
    assert (found.title, found.attributes, found.first_seen) == (given["title"], given["attributes"], NOON)
    summary = Summary("hash", "U1", "flat", 0, 0, 2, (("Likes olive.", (1,)),), (1, 2), "profile", "1")
    store.save_summaries([summary])
    assert store.summary("hash") == summary
    vectors = np.array([[1, 2.5], [3, -4]], np.float32)
    with store.writing():
        store.save_vectors("title", "m", ["k1", "k2"], vectors)
        store.set_meta("currency", "EUR")
    assert (store.all_vectors("title", "m")[1] == vectors).all()
    assert store.meta("currency") == "EUR"


def test_a_block_that_fails_has_written_nothing(store: Store) -> None:
    def fail() -> None:
        with store.writing():
            store.set_meta("half", "done")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.meta("half") is None


def test_a_shared_store_takes_no_sql_that_writes(store: Store) -> None:
    with pytest.raises(StoreError, match="written by its owner alone"), store.writing():
        store._all("DELETE FROM events")


def test_what_needs_the_file_is_refused_before_anything_is_done(store: Store) -> None:
    with pytest.raises(StoreError, match="stop `recgraph store serve`"):
        forget_item(store, "I1")
    assert store.items(["I1"])["I1"].title


@pytest.mark.slow
def test_a_shopper_is_forgotten_through_the_owner_who_writes_the_file_anew(store: Store, served: Served) -> None:
    store.record_events([click("Forgotten-4711")], ["gone-4711"])
    inode = served.file.stat().st_ino
    assert forget_user(store, "Forgotten-4711")["events"] == 1
    until(lambda: served.file.stat().st_ino != inode)
    until(lambda: not held_up(store))
    assert not store.has_user("Forgotten-4711")
    assert store.meta(ERASING) is None
    assert store.record_events([click("U7")], ["goes-on"])


def until(right: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not right():
        assert time.monotonic() < end
        time.sleep(0.05)


def held_up(store: Store) -> bool:
    try:
        return store.meta(ERASING) is not None
    except StoreBusy:
        return True


def test_the_server_reaches_no_file_but_the_store(store: Store) -> None:
    with pytest.raises(StoreError, match="disabled by configuration"):
        store._all("SELECT * FROM read_text('/etc/hostname')")


def test_who_has_another_token_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECGRAPH_STORE_TOKEN", "x" * 32)
    with pytest.raises(StoreError, match="refuses the token"):
        Store.open(served.address)
    monkeypatch.delenv("RECGRAPH_STORE_TOKEN")
    with pytest.raises(StoreError, match="there is none"):
        Store.open(served.address)
    assert Path(f"{served.file}.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_killed_owner_loses_nothing_that_was_answered_and_its_users_go_on(store: Store, served: Served) -> None:
    store.record_events([click("U5")], ["before"])
    served.stop(signal.SIGKILL)
    with pytest.raises(StoreBusy, match="recgraph store serve"):
        store.history("U5")
    late: list[list[Event]] = []
    waiting = threading.Thread(target=lambda: late.append(store.record_events([click("U5", "I2")], ["after"])))
    waiting.start()
    served.start()
    waiting.join(60)
    assert [e.item_id for e in store.history("U5")] == ["I1", "I2"]
    assert len(late[0]) == 1


@pytest.mark.slow
def test_a_killed_user_leaves_nothing_open(store: Store, served: Served) -> None:
    code = (
        "import time; from recgraph.store.db import Store\n"
        f"s = Store.open('{served.address}')\n"
        "with s.writing():\n    s.set_meta('killed', 'yes'); print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        other.kill()
    store.set_meta("currency", "USD")
    assert store.meta("killed") is None
    assert store.meta("currency") == "USD"


@pytest.mark.slow
def test_the_owner_makes_way_for_an_ingest(store: Store, served: Served, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,ts,action,item_id\nU6,2025-06-02 10:00:00,click,I4\n")
    command = [sys.executable, "-m", "recgraph.cli", "ingest", str(tmp_path), "--store", str(served.file)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            assert [e.item_id for e in store.history("U6")] == ["I4"]
            break
        except StoreBusy:
            continue
    assert store.record_events([click("U6")], ["on"])


@pytest.mark.parametrize("text", ["quack:", "quack:a b", "quack:h:0", "quack:h:99999", "quack:h'; DROP", "quack:-h"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(StoreError, match="no address of a shared store"):
        parse_address(text)


def test_an_address_elsewhere_has_to_be_wanted(tmp_path: Path) -> None:
    assert not parse_address("quack:shop.example:9000").is_local
    with pytest.raises(StoreError, match="TLS proxy"):
        Owner(tmp_path / "s.duckdb", Address("0.0.0.0"))


def test_parameters_become_literals_where_they_are_parameters() -> None:
    sql = """SELECT '?', "?", $user, ? -- why?\nFROM t WHERE a = ?"""
    assert rendered(sql, ["it's", None]) == """SELECT '?', "?", $user, 'it''s' -- why?\nFROM t WHERE a = NULL"""
    assert rendered("SELECT $user || '$user'", {"user": "u"}) == "SELECT 'u' || '$user'"
    assert literal("a\0b") == "('a' || chr(0) || 'b')"
    assert literal([True, 2, 0.5]) == "[true, 2, '0.5'::DOUBLE]"
    with pytest.raises(TypeError):
        literal(object())


def test_what_is_sent_comes_back_the_same() -> None:
    event = Event("U", 1, NOON, "click", "I", "", 3)
    given = [event, {"event": [1], "map": {"a": NOON}}, None, 1.5, "é\0'"]
    assert unpacked(packed(given)) == given
    with pytest.raises(ValueError, match="nothing that is sent"):
        unpacked('{"code": "print()"}')


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreError, match="pip install 'recgraph"):
        extension_files()
