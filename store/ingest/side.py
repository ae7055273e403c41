"""Where an ingest reads its files: a side database in a folder beside the store, so that the store is locked only while it is merged.

    shop.duckdb          readers use it all the time
    shop.duckdb.ingest/  the side database, mended copies of files, and the copy of the store that is merged into; swept by the next ingest
                         where a killed one left it
    shop.duckdb.lock     held by the ingest at work; a second one waits for it

The copy takes the store's place when it is complete, so readers never wait. Meanwhile nobody may write into the store: a mark in the
folder says so (store/connection.py). Where the disk has no room for a copy, the store itself is merged into, and readers wait.

It knows neither formats nor rows: `load.py` says what is read into it, `merge.py` what becomes of that.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from recgraph.errors import StoreBusy
from recgraph.store.care.faults import LOG, check_complete, check_writable, set_orphaned_log_aside, translated
from recgraph.store.connection import CONFIG, INGEST_FOLDER, MERGING, Database, Terms

WAIT = 300.0  # seconds that an ingest waits for another one, and then for the readers, before it gives up
# What DuckDB may hold before it writes to disk beside the store; its own bookkeeping and Python come on top.
MEMORY_LIMIT = "4GB"
ROOM = 2**26  # bytes that stay free on the disk beside a copy of the store


@contextmanager
def side_folder(store: Path, wait: float, progress: Callable[[str], None]) -> Iterator[Path]:
    """The empty folder beside the store, for one ingest at a time; gone after the block. Raises StoreReadOnly, and StoreBusy after `wait`."""
    check_writable(store)
    lock = FileLock(store.with_name(store.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another ingest into {store.name} (up to {wait:.0f} s)")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise StoreBusy(
                f"Another ingest into {store} is at work, and was after {wait:.0f} s. Try again when it is done, or wait longer."
            ) from None
    folder = store.with_name(store.name + INGEST_FOLDER)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # While it is held: who waits for it sees that its file has gone, and makes a new one.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def side_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The side database in the folder, open; on closing it is one file, which `attached` reads."""
    place = folder / "side.duckdb"
    with translated(place), duckdb.connect(str(place), config=CONFIG) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        yield connection


def copy_to_merge(store: Path, folder: Path, wait: float) -> Path:
    """A copy of the store in the folder, whose writers are kept out from now until the folder goes; the store itself where the disk has no
    room for one, or where this process is writing into it. StoreBusy after `wait` seconds."""
    database = _acquired(store, wait)
    try:
        size = store.stat().st_size
        if database.is_written or shutil.disk_usage(folder).free < 3 * size + ROOM:
            return store
        with database.reading():  # while it is read nobody writes, and who comes after sees the mark
            (folder / MERGING).touch()
        return Path(shutil.copy(store, folder / store.name))
    finally:
        database.release(write=False)


def _acquired(store: Path, wait: float) -> Database:
    """The store, open for reading, without a log of a writer that died: what stands there is brought into the file."""
    until = time.monotonic() + wait
    while True:
        try:
            if store.with_name(store.name + LOG).exists():
                Database.acquire(store, write=True, patience=max(0.1, until - time.monotonic())).release(write=True)
            return Database.acquire(store, write=False)
        except StoreBusy:
            if time.monotonic() >= until:
                raise


def take_place(copy: Path, store: Path) -> None:
    """Puts a complete store in the place of another, or where there was none. Who reads the old one reopens soon, this process at once.
    StoreBusy where another process writes into the old one, StoreReadOnly where the disk had no room for all of the copy."""
    check_complete(copy)
    log = store.with_name(store.name + LOG)
    if store.exists():
        if log.exists():  # it would be read into the new one; taken away, a kill would cost the old one what stands in it
            Database.acquire(store, write=True).release(write=True)
        copy.chmod(stat.S_IMODE(store.stat().st_mode))
    else:
        set_orphaned_log_aside(store)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    copy.replace(store)
    Database.reopen(store)


@contextmanager
def attached(store: Path, folder: Path, wait: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of the store, locked for writing, inside one transaction, with the side database attached as `side`. Waits for readers."""
    database = Database.acquire(store, write=False)
    try:
        terms = Terms(folder, {"memory_limit": MEMORY_LIMIT})
        with database.opened_for(terms, write=True, patience=wait), database.reading(fresh=True) as cursor:
            quoted = str(folder / "side.duckdb").replace("'", "''")
            cursor.execute(f"ATTACH '{quoted}' AS side (READ_ONLY)")
            try:
                with database.writing(cursor):
                    yield cursor
            finally:
                cursor.execute("DETACH side")
    finally:
        database.release(write=False)
