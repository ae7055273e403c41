"""What disks do: damage, orphaned logs, full disks, files of others. Each gives ten products or a sentence with a
command, and `doctor --deep --mend` mends what can be."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder

from recgraph.cli import main
from recgraph.doctor.examine import deep
from recgraph.errors import StoreError, StoreReadOnly
from recgraph.graph.recommender import Recommender
from recgraph.settings import Settings, load_settings
from recgraph.store import snapshot
from recgraph.store.care import health, rewrite
from recgraph.store.care.health import Finding, examine
from recgraph.store.care.leftovers import found as leftovers_of
from recgraph.store.db import Store
from recgraph.store.ingest import side
from recgraph.store.ingest.load import ingest
from recgraph.store.runs import RunLog

MakeStore = Callable[..., Store]


@pytest.fixture
def shop(make_store: MakeStore) -> Path:
    """A closed store that answered once: with summaries, a run log and a checkpoint file."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    assert ask(store.path) == []
    return store.path


def ask(path: Path) -> list[str]:
    """What ten products had to do without."""
    settings = load_settings({}, "/nonexistent", store=str(path), llm="none")
    checkpoint = str(path.with_name("runs.sqlite"))
    with Recommender(Store.open(path), settings, FakeEncoder(), None, checkpoint=checkpoint) as recommender:
        found = recommender.recommend("U2", "linen shirt")
    assert len(found.items) >= 9
    return list(found.degraded)


def broken(path: Path, *checkpoints: Path) -> list[Finding]:
    return [one for one in examine(path, checkpoints) if one.ok is False]


def flip(file: Path, place: int, bytes_: int = 1) -> None:
    data = bytearray(file.read_bytes())
    for at in range(place, min(place + bytes_, len(data))):
        data[at] ^= 0x10
    file.write_bytes(data)


# ── Damage ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_flipped_bits_at_sixty_places_give_a_sentence_or_the_whole_store(shop: Path) -> None:
    """22 of 60 gave a traceback of DuckDB's."""
    with Store.open(shop) as store:
        right = (store.counts(), store.history("U1"), store.catalogue().item_ids, store.memory_queries())
    whole, draw = shop.read_bytes(), random.Random(0)
    for _ in range(60):
        shop.write_bytes(whole)
        flip(shop, draw.randrange(len(whole)), draw.choice([1, 1, 64, 4096]))
        try:
            with Store.open(shop) as store:
                found = (store.counts(), store.history("U1"), store.catalogue().item_ids, store.memory_queries())
            assert found == right
        except StoreError as error:
            assert "recgraph" in str(error) or "pip install" in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["shop.runs.duckdb", "runs.sqlite"])
@pytest.mark.parametrize("damage", ["text", "cut", "folder", "zeros"])
def test_a_damaged_log_or_checkpoint_file_costs_no_answer_and_is_set_aside(shop: Path, name: str, damage: str) -> None:
    file = shop.with_name(name)
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "zeros":
        flip(file, 0, 20_000)
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 3)
    else:
        file.write_text("no database\n" * 900)
    [note] = ask(shop)
    assert note.startswith("save: this run ")
    assert "recgraph doctor --deep" in note
    [check] = [one for one in deep(Settings(store=str(shop)), [shop.with_name("runs.sqlite")]) if one.ok is False]
    assert f"mv {file}" in check.mend
    mended = deep(Settings(store=str(shop)), [shop.with_name("runs.sqlite")], mend=True)
    assert all(one.ok for one in mended)
    assert file.with_name(f"{name}.damaged").exists()
    assert ask(shop) == []


def test_a_damaged_checkpoint_of_a_run_is_none(shop: Path) -> None:
    file = shop.with_name("runs.sqlite")
    data = bytearray(file.read_bytes())
    for at in range(8192, len(data), 4096):  # in the middle of pages, where values stand
        data[at - 1500] ^= 1
    file.write_bytes(data)
    assert all(note.startswith("save: ") for note in ask(shop))


@pytest.mark.slow
def test_what_can_be_read_of_a_damaged_store_is_saved_and_the_damaged_file_kept(make_store: MakeStore) -> None:
    rows = [f"U{n},2025-01-01,click,S1OLIV,query number {n},1" for n in range(3000)]
    store = make_store(SHOP_ITEMS, [SHOP_EVENTS.splitlines()[0], *rows])
    path, saved = store.path, 0
    before = (store.history("U7"), store.catalogue().item_ids)
    store.close()
    whole = path.read_bytes()
    for place in range(12288 + 5000, len(whole), 262_144):  # each block once
        path.write_bytes(whole)
        flip(path, place)
        for one in broken(path):
            try:
                told = one.mend() if one.mend else ""
            except StoreError as error:
                assert "recgraph ingest PATH..." in str(error)  # noqa: PT017
                continue
            saved += "kept" in told
            with Store.open(path) as mended:
                assert (mended.history("U7"), mended.catalogue().item_ids) == before
            assert broken(path) == []
            assert [*path.parent.glob("shop.duckdb.damaged*")]
    assert saved


@pytest.mark.slow
def test_saving_a_damaged_store_keeps_what_only_its_log_holds_and_begins_again_after_a_kill(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed and stood in the log alone was lost, and each kill left the damaged file under one more name."""
    store = make_store(SHOP_ITEMS, SHOP_EVENTS)
    store.close()
    with duckdb.connect(str(store.path)) as con:
        con.execute("UPDATE items SET title = 'no view'; DROP VIEW shown; CREATE TABLE shown AS SELECT 1; DROP TABLE summaries")
    written = "import os; from recgraph.store.db import Store\n"
    written += f"s = Store.open({str(store.path)!r}, write=True); s.set_meta('only', 'in the log'); os._exit(0)"
    subprocess.run([sys.executable, "-c", written], check=True)
    assert store.path.with_name("shop.duckdb.wal").exists()
    with monkeypatch.context() as patch:
        patch.setattr(health, "salvaged", _killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # who is killed tidies nothing
        with pytest.raises(KeyboardInterrupt):
            health._salvage(store.path)
    assert "kept" in health._salvage(store.path)
    with Store.open(store.path) as mended:
        assert mended.meta("only") == "in the log"
    left = sorted(file.name for file in store.path.parent.glob("shop.duckdb*"))
    assert left == ["shop.duckdb", "shop.duckdb.damaged", "shop.duckdb.damaged.wal"]


def test_a_store_that_the_disk_had_no_room_for_never_takes_the_place_of_another(shop: Path, tmp_path: Path) -> None:
    """An ingest reported its rows as loaded, and the store was empty: they stood in a log that was thrown away."""
    before = shop.read_bytes()
    copy = tmp_path / "shop.duckdb.ingest" / "shop.duckdb"
    copy.parent.mkdir()
    Store.create(copy).close()
    copy.with_name("shop.duckdb.wal").write_bytes(b"committed, and not in the file")
    for put in (side.take_place, rewrite._put):
        with pytest.raises(StoreReadOnly, match=r"no room.*Free some space there: df -h"):
            put(copy, shop)
        assert shop.read_bytes() == before


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


# ── Logs of others, other files, full disks ───────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_log_of_a_store_that_is_gone_is_not_read_into_a_new_one(shop: Path, tmp_path: Path) -> None:
    """An ingest beside it reported success, and the store was empty."""
    log, killed = shop.with_name("shop.duckdb.wal"), "import os; from recgraph.store.db import Store\n"
    killed += f"s = Store.open({str(shop)!r}, write=True); s.set_meta('a', 'b'); os._exit(0)"
    subprocess.run([sys.executable, "-c", killed], check=True)
    assert log.exists()
    shop.unlink()
    [finding] = [one for one in broken(shop) if one.name == "store, log"]
    assert "of a store that is gone" in finding.found
    report = ingest(shop, "tables", [tmp_path / "shop-tables"])
    with Store.open(shop) as store:
        assert (store.counts()["events"], store.meta("a")) == (report.events_new, None)
    assert shop.with_name("shop.duckdb.wal.orphaned").exists()


def test_a_view_in_place_of_a_table_is_refused_and_sql_reaches_no_other_file(shop: Path, tmp_path: Path) -> None:
    """A store whose items were a view over read_text showed a file."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    with Store.open(shop) as store:
        for sql in (f"SELECT * FROM read_text('{secret}')", "SET threads = 1", "SET enable_external_access = true"):  # noqa: S608
            with pytest.raises(StoreError):
                store._all(sql)
    with duckdb.connect(str(shop)) as con:
        con.execute("ALTER TABLE rejects RENAME TO gone")
        con.execute(f"CREATE VIEW rejects AS SELECT filename AS source, 1 AS line, content AS reason, '' AS raw FROM read_text('{secret}')")  # noqa: S608
    with pytest.raises(StoreError, match=r"rejects is a view, not a table.*recgraph ingest"):
        Store.open(shop)


# No file may grow past what there is: what a quota does, and nearly what a full disk does.
_FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_health import ask
from recgraph.errors import RecgraphError
from recgraph.store.db import Store
from recgraph.store.ingest import side
from recgraph.store.ingest.load import ingest
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
print(ask(path))
with Store.open(path) as store:
    try:
        with store.writing():
            for n in range(200): store.set_meta(f"k{n}", "v" * 9_000)
    except RecgraphError as error: print(type(error).__name__, error)
    print(store.meta("k0"), len(store.history("U1")))
try: ingest(path, "tables", [path.with_name("big")])
except RecgraphError as error: print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_full_disk_costs_no_answer_and_is_told(shop: Path) -> None:
    shop.with_name("big").mkdir()
    rows = "".join(f"B{n},2025-01-01,click,I{n * 7919 % 9999}\n" for n in range(60_000))
    shop.with_name("big").joinpath("events.csv").write_text("user_id,ts,action,item_id\n" + rows)
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(shop), str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answered, written, kept, ingested = done.stdout.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert answered.startswith("[")
    assert written.startswith("StoreReadOnly")
    assert "its disk is full" in written
    assert kept == "None 7"
    assert ingested.split()[0] in ("StoreReadOnly", "StoreError", "IngestError")
    with Store.open(shop) as store:
        assert store.counts()["events"] == SHOP_EVENTS.count("\n") - 1
    assert broken(shop) == []


# ── What killed commands leave, and what the doctor finds sound ───────────────────────────────────────────────────────


def test_leftovers_that_nobody_uses_are_found_and_swept(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    (scratch / "recgraph-snapshot-abc").mkdir()
    (scratch / "somebody-else").mkdir()
    shop.with_name("shop.duckdb.ingest").mkdir()
    shop.with_name("shop.duckdb.tmp").mkdir()
    shop.with_name("shop.duckdb.rewriting").write_text("half")
    assert [one.place.name for one in leftovers_of(shop)] == ["shop.duckdb.ingest"]  # the others are young
    for place in (*scratch.iterdir(), *shop.parent.iterdir()):
        os.utime(place, (1, 1))
    with shop.with_name("shop.duckdb.rewriting").open():
        assert "shop.duckdb.rewriting" not in [one.place.name for one in leftovers_of(shop)]  # it is in use
    checks = deep(Settings(store=str(shop)), mend=True)
    assert sum(check.name == "leftovers" for check in checks) == 4
    assert leftovers_of(shop) == []
    assert [entry.name for entry in scratch.iterdir()] == ["somebody-else"]


@pytest.mark.slow
def test_a_cut_off_export_is_ended_or_forgotten_but_never_mixed(shop: Path, make_store: MakeStore, tmp_path: Path) -> None:
    """A kill between two files left the old events beside the new items."""
    other = make_store(SHOP_ITEMS, SHOP_EVENTS.replace("U1", "U9"), name="other")
    sides = {}
    for name, store in (("old", Store.open(shop)), ("new", other)):
        snapshot.write(store, tmp_path / name)
        sides[name] = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        store.close()
    for replaced in range(len(snapshot.FILES) + 1):
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"cut-{replaced}")
        for number, name in enumerate(snapshot.FILES):
            (folder / (name if number < replaced else f"{name}.new")).write_bytes(sides["new"][name])
        (folder / "replacing.new").touch()
        snapshot.check(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == sides["new"]
    half = shutil.copytree(tmp_path / "old", tmp_path / "half")
    (half / "items.parquet.new").write_bytes(b"half")
    os.utime(half / "items.parquet.new", (1, 1))
    with snapshot.open_folder(half) as store:
        assert store.has_user("U1")
    mended = deep(Settings(store=str(shop)), mend=True)
    assert {file.name: file.read_bytes() for file in half.iterdir()} == sides["old"]
    assert all(check.ok for check in mended)


def test_a_damaged_snapshot_is_named_with_the_command_that_makes_it_again(shop: Path) -> None:
    folder = shop.with_name("snap")
    with Store.open(shop) as store:
        snapshot.write(store, folder)
    flip(folder / "events.parquet", 20, 300)
    [finding] = broken(shop)
    assert (finding.name, finding.command, finding.mend) == ("snapshot", f"recgraph export {folder}", None)
    with pytest.raises(StoreError), snapshot.open_folder(folder):
        pass


def test_the_deep_doctor_finds_a_sound_shop_sound_and_says_what_it_read(shop: Path) -> None:
    RunLog(shop).append({"run_id": "1", "user_id": "U1"})
    found = [*examine(shop)]
    assert [(one.name, one.ok) for one in found] == [("store, blocks", True), ("run log", True), ("checkpoints", True)]
    wrong = CliRunner().invoke(main, ["doctor", "--mend", "--store", str(shop)])
    assert wrong.exit_code == 2
    assert "recgraph doctor --deep --mend" in wrong.output
