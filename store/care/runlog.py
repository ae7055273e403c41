"""Taking runs out of a store's run log: those of a shopper, and old ones. The file is written anew afterwards, so that
what was deleted is not in it any more. How runs get into the log is in store/runs.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from recgraph.store.care.rewrite import rewritten
from recgraph.store.connection import Database
from recgraph.store.runs import RunLog


def forget(store: Path, user_id: str, queries: Sequence[str] = ()) -> int:
    """Takes out a shopper's runs, and those in which one of the queries, which were theirs alone, was remembered; how
    many."""
    # As json.dumps writes them, and as reasons quote them.
    marks = [f'"query": {json.dumps(query, ensure_ascii=False).lower()}' for query in queries]
    marks += [f"“{query.lower()}”" for query in queries]
    return _delete(
        store,
        "user_id = ? OR len(list_filter(?::VARCHAR[], lambda mark: contains(lower(record::VARCHAR), mark))) > 0",
        [user_id, marks],
    )


def prune(store: Path, older_than: timedelta) -> int:
    """Takes out the runs that are older; how many."""
    return _delete(store, "written < ?", [datetime.now(UTC).replace(tzinfo=None) - older_than])


def _delete(store: Path, condition: str, values: Sequence[object]) -> int:
    log = RunLog(store)
    log.write_waiting()
    log.take_over()
    place = log.place
    if not place.exists():
        return 0
    database = Database.acquire(place, write=True)
    try:
        with database.writing() as cursor:
            if not _has_runs(cursor):
                return 0
            command = f"DELETE FROM runs WHERE {condition} RETURNING run_id"  # noqa: S608 - one of the two above
            gone = cursor.execute(command, values).fetchall()
    finally:
        database.release(write=True)
    database = Database.acquire(place, write=False)
    try:
        rewritten(database, place)  # also where nothing was found: an earlier call may have been cut off here
    finally:
        database.release(write=False)
    return len(gone)


def _has_runs(cursor: duckdb.DuckDBPyConnection) -> bool:
    return cursor.execute("SELECT 1 FROM information_schema.tables WHERE table_name = 'runs'").fetchone() is not None
