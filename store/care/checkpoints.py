"""Checkpoint files as files: whether one is sound, and taking runs out of it, those of a shopper or old ones.

They are SQLite files with LangGraph's two tables; who wrote them and what a state holds is unknown here. A shopper's
runs are found by the bytes of the id, so that a run that only names the shopper goes too: a checkpoint is for resuming
a run that was cut off, and nothing else is lost with it.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recgraph.errors import StoreError

_MAGIC = b"SQLite format 3\0"
_EPOCH = datetime(1582, 10, 15, tzinfo=UTC)  # of the times in a UUID


def files_beside(store: Path) -> list[Path]:
    """The checkpoint files in the store's folder."""
    found = []
    for file in sorted(store.absolute().parent.iterdir()):
        try:
            if file.is_file() and _begins(file) and _is_ours(file):
                found.append(file)
        except OSError:
            continue
    return found


def _begins(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _is_ours(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as con:
            names = {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return {"checkpoints", "writes"} <= names


def problem(file: Path) -> str:
    """What is wrong with a checkpoint file, "" where it is sound."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as con:
            told = [str(text) for (text,) in con.execute("PRAGMA integrity_check(1)")]
            con.execute("SELECT count(*) FROM checkpoints").fetchall()
    except (sqlite3.Error, OSError) as error:
        return str(error)
    return "" if told == ["ok"] else told[0]


def forget(file: Path, user_id: str, words: Sequence[str] = ()) -> int:
    """Takes out the runs that name a shopper, or hold one of the words; how many. Their bytes leave the file."""
    marks = [text.encode("utf-8", "surrogatepass") for text in (user_id, *words)]
    threads = set[str]()
    with _open(file) as con:
        for mark in marks:
            for table, column in (("checkpoints", "checkpoint"), ("checkpoints", "metadata"), ("writes", "value")):
                rows = con.execute(f"SELECT DISTINCT thread_id FROM {table} WHERE instr({column}, ?)", [mark])  # noqa: S608
                threads |= {str(thread) for (thread,) in rows}
        _delete(con, sorted(threads))
    return len(threads)


def prune(file: Path, older_than: timedelta) -> int:
    """Takes out the runs whose newest checkpoint is older; how many."""
    until = datetime.now(UTC) - older_than
    with _open(file) as con:
        newest = con.execute("SELECT thread_id, max(checkpoint_id) FROM checkpoints GROUP BY thread_id").fetchall()
        threads = [str(thread) for thread, last in newest if _moment(str(last)) < until]
        _delete(con, threads)
    return len(threads)


def _moment(checkpoint_id: str) -> datetime:
    """When a checkpoint was made: its id is a UUID of version 6, which begins with that."""
    try:
        number = uuid.UUID(checkpoint_id).int
    except ValueError:
        return _EPOCH
    return _EPOCH + timedelta(microseconds=((number >> 80) << 12 | (number >> 64 & 0xFFF)) // 10)


def _delete(con: sqlite3.Connection, threads: Sequence[str]) -> None:
    con.execute("PRAGMA secure_delete = ON")
    for table in ("checkpoints", "writes"):
        con.executemany(f"DELETE FROM {table} WHERE thread_id = ?", [(thread,) for thread in threads])  # noqa: S608
    con.commit()
    con.execute("VACUUM")
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else the old pages stand in its log


@contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise StoreError(f"There is no checkpoint file {file}.")
    try:
        with closing(sqlite3.connect(file)) as con:
            yield con
    except sqlite3.Error as error:
        raise StoreError(
            f"The checkpoints {file} cannot be used ({error}). Nothing but resuming runs hangs on them: to set them "
            f"aside: recgraph doctor --deep --mend --checkpoint {file}"
        ) from error


def keep_latest(opened: sqlite3.Connection, thread: str, kind: str, threads: int) -> None:
    """Of a thread only its last state, which alone is gone on from; and of all threads whose names begin with `kind` the
    latest so many."""
    oldest = opened.execute(
        "SELECT thread_id FROM checkpoints WHERE substr(thread_id, 1, ?) = ? GROUP BY thread_id"
        " ORDER BY max(checkpoint_id) DESC LIMIT -1 OFFSET ?",
        (len(kind), kind, threads),
    ).fetchall()
    last = "(SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?)"
    for table in ("checkpoints", "writes"):
        past = f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_id < {last}"  # noqa: S608 - names of ours
        opened.execute(past, (thread, thread))
        opened.executemany(f"DELETE FROM {table} WHERE thread_id = ?", oldest)  # noqa: S608
    opened.commit()
