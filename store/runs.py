"""The run log: one row a recommendation, in a second DuckDB file beside the store (`shop.duckdb` ->
`shop.runs.duckdb`).

A second file, so that logging a run never takes the store away from its readers. It is opened, written and closed for
each row, so that several processes can log in turn. It knows nothing of what a run record means: it keeps it as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recgraph.store.connection import Database


class RunLog:
    """The run log that belongs to the store at `path`; `place` is its own file. Making the object touches no disk."""

    def __init__(self, path: str | Path) -> None:
        self.place = Path(path).expanduser().with_suffix(".runs.duckdb")
        self._misnamed = self.place.with_suffix(".runs.duckdb")  # where version 0.1.0 put it, the suffix twice

    def append(self, record: Mapping[str, object]) -> None:
        """Keeps one run. Raises StoreBusy or StoreReadOnly; the caller's answer does not depend on it."""
        self.take_over()
        database = Database.acquire(self.place, write=True)
        try:
            with database.writing() as cursor:
                cursor.execute(
                    "CREATE TABLE IF NOT EXISTS runs (written TIMESTAMP NOT NULL, run_id VARCHAR, user_id VARCHAR, "
                    "record JSON NOT NULL)"
                )
                text = json.dumps(dict(record), ensure_ascii=False, default=str)
                at = datetime.now(UTC).replace(tzinfo=None)
                cursor.execute(
                    "INSERT INTO runs VALUES (?, ?, ?, ?)", [at, record.get("run_id"), record.get("user_id"), text]
                )
        finally:
            database.release(write=True)

    def take_over(self) -> None:
        """Gives the log of version 0.1.0 its name of today."""
        if not self._misnamed.exists() or self.place.exists():
            return
        # Opened for writing once, so that nobody else has it open and what stands in its .wal is in the file.
        Database.acquire(self._misnamed, write=True).release(write=True)
        self._misnamed.replace(self.place)

    def recent(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest runs first, as they were given. [] where nothing was logged yet."""
        place = self.place if self.place.exists() else self._misnamed
        if not place.exists():
            return []
        database = Database.acquire(place, write=False)
        try:
            with database.reading() as cursor:
                rows = cursor.execute(
                    "SELECT record FROM runs ORDER BY written DESC, rowid DESC LIMIT ?", [limit]
                ).fetchall()
        finally:
            database.release(write=False)
        return [json.loads(text) for (text,) in rows]
