"""Whom a batch is for, in which shards: the table `users.parquet` of its folder, sorted by user, so that the events of a
shard lie side by side in the store.

    users.parquet: user_id, shard, events (how many the store has of them; 0: unknown)     unknown.csv: user_id

It is made by DuckDB, which spills to the disk: nobody holds all users in memory. What is recommended is unknown here.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from recgraph.errors import SettingsError, StoreError
from recgraph.store.batch.tables import in_memory, put_in_place
from recgraph.store.care.faults import translated
from recgraph.store.connection import PRIVATE, Terms
from recgraph.store.db import Store
from recgraph.store.parquet import OPTIONS, quoted

USERS, UNKNOWN = "users.parquet", "unknown.csv"
_GIVEN = "given.csv.new"  # the ids of a file, one a row, while they are read
_NAMED = 10  # unknown users that are told by name


@dataclass(frozen=True)
class Wanted:
    """How many users, in how many shards, how many of all those that were asked for are unknown, and the first of
    them."""

    users: int
    shards: int
    unknown: int
    some_unknown: tuple[str, ...]


def digest_of(file: Path) -> str:
    """What tells the ids of a file apart from those of another. SettingsError where it cannot be read."""
    digest = hashlib.sha256()
    for user_id in _ids(file):
        digest.update(user_id.encode() + b"\n")
    return digest.hexdigest()[:12]


def _ids(file: Path) -> Iterator[str]:
    """The ids in a file, one a line; blank lines are passed over."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from (line.strip() for line in lines if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The users cannot be read from {file}: {error}. Give a text file, one id a line."
        ) from None


def plan(store: Store, folder: Path, file: Path | None, size: int) -> Wanted:
    """Writes users.parquet and unknown.csv: the users of `file`, or all of the store, `size` in a shard. Where there is
    a users.parquet already, its shards keep the range of users that they have, so that each user stays in one file."""
    _write_ids(folder / _GIVEN, _ids(file) if file else ())
    new = folder / f"{USERS}.new"
    with (
        translated(store.path),
        store._database.opened_for(Terms(folder)),
        store._database.reading(fresh=True) as cursor,
    ):
        cursor.execute(_WANTED if file else _ALL, [str((folder / _GIVEN).absolute())] if file else [])
        if (folder / USERS).exists():
            cursor.execute(_BEGINNINGS, [str((folder / USERS).absolute())])
        if not (folder / USERS).exists() or not cursor.execute("SELECT 1 FROM beginnings LIMIT 1").fetchall():
            cursor.execute(_CUT, [size])
        cursor.execute(f"COPY ({_SHARDED}) TO {quoted(new.absolute())} {OPTIONS}")
        strangers = folder / f"{UNKNOWN}.new"
        cursor.execute(f"COPY ({_STRANGERS}) TO {quoted(strangers.absolute())} (FORMAT csv, HEADER, DELIMITER ',')")
        cursor.execute("DROP TABLE wanted")
        cursor.execute("DROP TABLE beginnings")
    (folder / _GIVEN).unlink(missing_ok=True)
    put_in_place(strangers, folder / UNKNOWN)
    put_in_place(new, folder / USERS)
    return wanted_in(folder)


# The table `beginnings` says with which user each shard begins; nobody comes before the first.
_ALL = "CREATE OR REPLACE TEMP TABLE wanted AS SELECT user_id, count(*) AS events FROM events GROUP BY user_id"
_WANTED = """CREATE OR REPLACE TEMP TABLE wanted AS
    SELECT given.user_id, coalesce(known.events, 0) AS events
    FROM (SELECT DISTINCT user_id FROM read_csv(?, header = true, columns = {'user_id': 'VARCHAR'}, quote = '"')) given
    LEFT JOIN (SELECT user_id, count(*) AS events FROM events GROUP BY user_id) known USING (user_id)"""
_BEGINNINGS = """CREATE OR REPLACE TEMP TABLE beginnings AS
    SELECT shard, CASE WHEN shard = min(shard) OVER () THEN '' ELSE begins END AS begins
    FROM (SELECT shard, min(user_id) AS begins FROM read_parquet(?) GROUP BY shard)"""
_CUT = """CREATE OR REPLACE TEMP TABLE beginnings AS
    SELECT place // ? AS shard, CASE WHEN shard = 0 THEN '' ELSE min(user_id) END AS begins
    FROM (SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS place FROM wanted) GROUP BY shard"""
_SHARDED = """SELECT user_id, shard::INTEGER AS shard, events
    FROM wanted ASOF JOIN beginnings ON wanted.user_id >= beginnings.begins ORDER BY user_id"""
_STRANGERS = "SELECT user_id FROM wanted WHERE events = 0 ORDER BY user_id"


def _write_ids(file: Path, ids: Iterator[str] | Sequence[str]) -> None:
    file.touch(PRIVATE)
    with file.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, quoting=csv.QUOTE_ALL)
        rows.writerows(itertools.chain([["user_id"]], ([user_id] for user_id in ids)))


def wanted_in(folder: Path) -> Wanted:
    """What `plan` wrote. StoreError where it is not there or damaged."""
    with _users_of(folder) as (cursor, file):
        row = cursor.execute(
            "SELECT count(*), coalesce(max(shard) + 1, 0), count(*) FILTER (events = 0) FROM read_parquet(?)", [file]
        ).fetchall()[0]
        some = cursor.execute(
            f"SELECT user_id FROM read_parquet(?) WHERE events = 0 ORDER BY user_id LIMIT {_NAMED}",  # noqa: S608 - a number
            [file],
        ).fetchall()
    return Wanted(int(row[0]), int(row[1]), int(row[2]), tuple(user_id for (user_id,) in some))


def users_of(folder: Path, shard: int) -> dict[str, int]:
    """The known users of a shard, in their order, and how many events there are of each."""
    with _users_of(folder) as (cursor, file):
        rows = cursor.execute(
            "SELECT user_id, events FROM read_parquet(?) WHERE shard = ? AND events > 0 ORDER BY user_id", [file, shard]
        ).fetchall()
    return {user_id: int(events) for user_id, events in rows}


def sizes(folder: Path) -> dict[int, int]:
    """How many users, unknown ones among them, each shard has."""
    with _users_of(folder) as (cursor, file):
        command = "SELECT shard, count(*) FROM read_parquet(?) GROUP BY shard ORDER BY shard"
        return {int(shard): int(users) for shard, users in cursor.execute(command, [file]).fetchall()}


@contextmanager
def _users_of(folder: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A cursor, and the name of users.parquet; what is wrong with that file is a StoreError."""
    try:
        with in_memory() as cursor:
            yield cursor, str(folder / USERS)
    except duckdb.Error as error:
        raise StoreError(
            f"{folder / USERS} cannot be read ({error}). Begin the batch anew: recgraph batch --again"
        ) from error
