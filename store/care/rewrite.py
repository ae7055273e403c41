"""Writes a database file anew, table by table: without the blocks that were freed, which DuckDB leaves in the file with
all that was deleted in them, or with what can still be read of a damaged one.

The new file is made beside the old one and takes its place when it is complete. It knows tables by name only.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb

from recgraph.errors import StoreBusy, StoreReadOnly
from recgraph.store.care.faults import LOG, check_complete, check_writable, translate
from recgraph.store.connection import CONFIG, PRIVATE, WANTED, Database, is_merged_beside
from recgraph.store.parquet import quoted

REWRITING = ".rewriting"  # after the file's name: the new one, until it takes its place
WAIT = 60.0  # seconds to wait for other processes


def rewritten(database: Database, path: Path, wait: float = WAIT) -> None:
    """Writes the file of an open database anew, once no other process has it open. StoreBusy after `wait` seconds,
    StoreReadOnly where it does not fit on the disk; then the file is as it was."""
    check_writable(path)
    database.replace(lambda place: _replace(place, time.monotonic() + wait))


def _replace(path: Path, until: float) -> None:
    beside = path.with_name(path.name + REWRITING)
    _remove(beside)
    with duckdb.connect(config=CONFIG) as con:
        try:
            _attach_alone(con, path, until)
            # What is in its log goes into the file first, so that letting it go writes and deletes nothing.
            con.execute("CHECKPOINT old")
            con.execute(f"ATTACH {quoted(beside)} AS fresh")
            beside.chmod(PRIVATE)
            con.execute("COPY FROM DATABASE old TO fresh")
            con.execute("DETACH fresh")
            _put(beside, path)
        except duckdb.Error as error:
            raise translate(error, path) from error
        finally:
            path.with_name(path.name + WANTED).unlink(missing_ok=True)
            _remove(beside)


def _attach_alone(con: duckdb.DuckDBPyConnection, path: Path, until: float) -> None:
    """Other processes that read make way, as they do for an ingest."""
    while True:
        try:
            con.execute(f"ATTACH {quoted(path)} AS old")
            if not is_merged_beside(path):
                return
            con.execute("DETACH old")
            error: duckdb.Error = duckdb.IOException("Could not set lock: an ingest is at work")
        except duckdb.IOException as busy:
            error = busy
        reason = translate(error, path)
        if time.monotonic() >= until or not isinstance(reason, StoreBusy):
            raise reason from error
        path.with_name(path.name + WANTED).touch()
        time.sleep(0.05)


def _put(beside: Path, path: Path) -> None:
    check_complete(beside)
    if path.exists():
        beside.chmod(stat.S_IMODE(path.stat().st_mode))
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


def _remove(file: Path) -> None:
    for one in (file, file.with_name(file.name + LOG)):
        one.unlink(missing_ok=True)


def salvaged(damaged: Path, target: Path, tables: Sequence[str]) -> dict[str, int | None]:
    """Fills the tables of a store at `target`, which is whole and empty, with the rows of a damaged file; those of each
    table, None where it cannot be read: it is left as it is. StoreError where the file cannot even be opened."""
    found: dict[str, int | None] = {}
    with duckdb.connect(config=CONFIG) as con:
        try:
            con.execute(f"ATTACH {quoted(damaged)} AS old (READ_ONLY)")
            con.execute(f"ATTACH {quoted(target)} AS fresh")
        except duckdb.Error as error:
            raise translate(error, damaged) from error
        for table in tables:
            try:
                con.begin()
                con.execute(f"DELETE FROM fresh.{table}")  # noqa: S608 - constants
                con.execute(f"INSERT INTO fresh.{table} BY NAME SELECT * FROM old.{table}")  # noqa: S608 - constants
                row = con.execute(f"SELECT count(*) FROM fresh.{table}").fetchone()  # noqa: S608 - constants
                con.commit()
                found[table] = int(row[0]) if row else 0
            except duckdb.Error as error:
                con.rollback()
                if "no space" in str(error).lower():
                    raise StoreReadOnly(f"What can be read of {damaged} does not fit beside it ({error}).") from None
                found[table] = None
    return found


def readable(path: Path, tables: Sequence[str]) -> dict[str, str]:
    """What is wrong with each table, "" where all of it can be read: every block's checksum is looked at. StoreError
    where the file cannot be opened."""
    found: dict[str, str] = {}
    with duckdb.connect(config=CONFIG) as con:
        try:
            con.execute(f"ATTACH {quoted(path)} AS old (READ_ONLY)")
        except duckdb.Error as error:
            raise translate(error, path) from error
        for table in tables:
            try:
                con.execute(f"SELECT bit_xor(hash(one)) FROM old.{table} AS one").fetchall()  # noqa: S608 - constants
                found[table] = ""
            except duckdb.Error as error:
                found[table] = str(error).splitlines()[0]
    return found


