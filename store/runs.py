"""The run log: one row a recommendation, in a second DuckDB file beside the store (`shop.duckdb` ->
`shop.runs.duckdb`), and the queue of those that are not written yet.

A second file, so that logging a run never takes the store away from its readers. It is open only while something is
read or written, so that several processes can log in turn. As opening it takes longer than an answer, answers leave
their runs in a `RunQueue`, which writes what has gathered in a second in one opening; who reads the log in the same
process sees these too. It knows nothing of what a run record means: it keeps it as JSON.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from recgraph.errors import StoreBusy, StoreError, UnknownRun
from recgraph.store.care.faults import check_writable, translate
from recgraph.store.connection import Database

GATHERED = 1.0  # seconds that runs gather before they are written
_NAMED = 5  # runs, where one is asked for that is not there
_LAST_TRIES = 3  # at the close, each of which waits PATIENCE for the lock of another process
MOST_WAITING = 1000  # runs, of some 10 kB; where the log cannot be written for so long, the oldest go
_log = logging.getLogger(__name__)
_INSERT = """INSERT INTO runs SELECT unnest(?::TIMESTAMP[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]),
    unnest(?::VARCHAR[])::JSON"""
Run = tuple[datetime, Mapping[str, object]]  # when it was, UTC, and its record


class RunLog:
    """The run log that belongs to the store at `path`; `place` is its own file. Making the object touches no disk."""

    def __init__(self, path: str | Path) -> None:
        self.place = Path(os.path.expanduser(path)).with_suffix(".runs.duckdb")
        self._misnamed = self.place.with_suffix(".runs.duckdb")  # where version 0.1.0 put it, the suffix twice

    def append(self, record: Mapping[str, object]) -> None:
        """Keeps one run, now. Raises StoreBusy or StoreReadOnly; the caller's answer does not depend on it."""
        self.write([(_now(), record)])

    def write(self, runs: Sequence[Run]) -> None:
        """Keeps runs, all or none, in one opening of the file. Raises as `append`."""
        self.take_over()
        database = Database.acquire(self.place, write=True)
        try:
            with database.writing() as cursor:
                cursor.execute(
                    "CREATE TABLE IF NOT EXISTS runs (written TIMESTAMP NOT NULL, run_id VARCHAR, user_id VARCHAR, "
                    "record JSON NOT NULL)"
                )
                columns = [list(column) for column in zip(*(_row(*run) for run in runs), strict=True)]
                cursor.execute(_INSERT, columns)  # one statement: other processes wait meanwhile
        except duckdb.Error as error:  # e.g. a table of another shape under the log's name
            raise translate(error, self.place) from error
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
        """The newest runs first, as they were given; those that this process has not written yet among them, if they
        can be written. [] where nothing was logged yet."""
        return self._read("SELECT record FROM runs ORDER BY written DESC, rowid DESC LIMIT ?", limit)

    def find(self, run_id: str) -> dict[str, Any]:
        """The run of an id, as it was given. UnknownRun where it is not there."""
        rows = self._read("SELECT record FROM runs WHERE run_id = ? ORDER BY written DESC LIMIT 1", run_id)
        if rows:
            return rows[0]
        newest = ", ".join(str(run.get("run_id")) for run in self.recent(_NAMED))
        there = f"The newest of those that are: {newest}." if newest else "Nothing is logged yet."
        raise UnknownRun(f"Run '{run_id}' is not in the run log {self.place}. {there}")

    def _read(self, command: str, value: object) -> list[dict[str, Any]]:
        """The records that a command gives; [] where nothing was logged yet."""
        self.write_waiting()
        place = self.place if self.place.exists() else self._misnamed
        if not place.exists():
            return []
        database = Database.acquire(place, write=False)
        try:
            with database.reading() as cursor:
                made = cursor.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'runs'").fetchone()
                rows = cursor.execute(command, [value]).fetchall() if made else []  # not yet: killed at the first run
        finally:
            database.release(write=False)
        return [json.loads(text) for (text,) in rows]

    def write_waiting(self) -> None:
        """Writes what this process has not written yet, if that is possible."""
        for queue in _all_queues():
            if queue.log.place.absolute() == self.place.absolute():
                queue.flush()


class RunQueue:
    """Runs on their way into a log, written by a thread that lives as long as some wait. Thread-safe.

    `close` and the end of the process write what waits. A process that is killed loses it: the runs of the last second,
    or those since another process holds the log. Of these the oldest go where there are more than MOST_WAITING;
    `trouble` says why runs wait longer than they should, and so does a warning in the log of the program.
    """

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.trouble, self._held = "", False
        self.after_fork()
        _queues[id(self)] = self

    def after_fork(self) -> None:
        """A forked child begins with an empty queue: what waited is its parent's to write, and so is the thread."""
        self._waiting: deque[Run] = deque()
        self._state, self._writing = threading.Condition(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, record: Mapping[str, object]) -> None:
        """Leaves one run to be written. Raises StoreReadOnly where the file or its folder cannot be written at all."""
        check_writable(self.log.place)
        with self._state:
            self._waiting.append((_now(), record))
            self._drop_oldest()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="recgraph-runs", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Writes what waits, now, if that is possible."""
        with self._writing:
            with self._state:
                runs, self._waiting = list(self._waiting), deque()
            if not runs:
                return
            try:
                self.log.write(runs)
            except (StoreError, OSError) as error:
                with self._state:
                    self._waiting.extendleft(reversed(runs))
                    self._drop_oldest()
                    # A log that others are writing into is written a moment later; that is no trouble yet.
                    told = self._held or not isinstance(error, StoreBusy)
                    self._held = True
                    if told and not self.trouble:
                        _log.warning("Runs wait to be logged: %s", error)
                    self.trouble = str(error) if told else self.trouble
            else:
                self.trouble, self._held = "", False

    def close(self) -> None:
        """Writes what waits; what cannot be written even now is lost, with a warning."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        for _ in range(_LAST_TRIES):
            self.flush()
            if not self._waiting:
                return
        with self._state:
            if self._waiting:
                _log.warning("Runs that are not in the run log: %d (%s)", len(self._waiting), self.trouble)
                self._waiting.clear()

    def _write_on(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._closed, GATHERED)
            self.flush()
            with self._state:
                if self._closed or not self._waiting:
                    self._thread = None
                    return

    def _drop_oldest(self) -> None:
        if over := max(0, len(self._waiting) - MOST_WAITING):
            why = self.trouble or "they come faster than they can be written"
            _log.warning("Runs that will not be in the run log: %d (%s)", over, why)
            for _ in range(over):
                self._waiting.popleft()


_queues: weakref.WeakValueDictionary[int, RunQueue] = weakref.WeakValueDictionary()


def _all_queues() -> list[RunQueue]:
    return [queue for one in _queues.valuerefs() if (queue := one()) is not None]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _row(at: datetime, record: Mapping[str, object]) -> tuple[object, ...]:
    """As the table has it. Half a character, of which some ids are made, is no text to the database: "?" stands in."""
    text = json.dumps(dict(record), ensure_ascii=False, default=str)
    names = (str(record[name]) if name in record else None for name in ("run_id", "user_id"))
    return (at, *(one if one is None else one.encode(errors="replace").decode() for one in (*names, text)))


def _close_all() -> None:
    for queue in _all_queues():
        queue.close()


def _empty_all() -> None:
    for queue in _all_queues():
        queue.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_empty_all)
