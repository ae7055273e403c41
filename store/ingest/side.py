"""Where an ingest reads its files: a side database in a folder beside the store, so that the store is locked only while it is merged.

    shop.duckdb          readers use it all the time but for the merge
    shop.duckdb.ingest/  the side database and mended copies of files; swept by the next ingest where a killed one left it
    shop.duckdb.lock     held by the ingest at work; a second one waits for it

It knows neither formats nor rows: `load.py` says what is read into it, `merge.py` what becomes of that.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from recgraph.errors import StoreBusy
from recgraph.store.care.faults import check_writable, translated
from recgraph.store.connection import CONFIG, INGEST_FOLDER, Database, Terms

WAIT = 300.0  # seconds that an ingest waits for another one, and then for the readers, before it gives up
# What DuckDB may hold before it writes to disk beside the store; its own bookkeeping and Python come on top.
MEMORY_LIMIT = "4GB"


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
