"""What has changed in a store since a revision, and the two ways to change it while it serves: events as they happen,
and products that are new, cost something else or are sold out.

The table `changes` is written in the transaction of whatever made a new revision, a row for each product, event or
query it touched; more than MOST at once are one row "everything", and of many small ones the oldest go. So who keeps
something fitted on the store (tools/live.py) learns what to make anew, or that it is all. What is made of it is unknown
here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Literal

import duckdb

from recgraph.errors import StoreError
from recgraph.store.records import Event, Item

Kind = Literal["item", "event", "query", "everything"]
Change = tuple[Kind, str, int | None]  # kind, item_id or user_id or query key, the event's seq

MOST = 20_000  # changes of one revision that are named one by one
KEPT = 100_000  # rows of `changes` that are kept, the newest
_AT_ONCE = 100  # values written out in one look-up
_INSERT_EVENTS = """INSERT INTO events SELECT unnest(?::VARCHAR[]), unnest(?::INTEGER[]), unnest(?::TIMESTAMP[]),
    unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::INTEGER[])"""
ACTIONS = ("search", "click", "cart", "purchase")
TEXTS = ("title", "category", "brand", "color", "size", "description", "parent_id")


@dataclass(frozen=True)
class Changes:
    """What differs between two revisions: `item_ids` new or changed, the `events` that came (user_id, seq), and the
    `queries` (lower case) of which results were stored."""

    revision: str
    item_ids: tuple[str, ...] = ()
    events: tuple[tuple[str, int], ...] = ()
    queries: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.item_ids) + len(self.events) + len(self.queries)


def revision(cursor: duckdb.DuckDBPyConnection) -> str:
    """The store's revision; "empty" before the first ingest."""
    row = cursor.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
    return str(row[0]) if row else "empty"


def since(cursor: duckdb.DuckDBPyConnection, known: str) -> Changes | None:
    """What came after the revision `known`; None where that is not known, or is too much to name."""
    now = revision(cursor)
    if now == known:
        return Changes(now)
    row = cursor.execute(
        "SELECT max(number) FILTER (revision = ?), arg_max(revision, number) FROM changes", [known]
    ).fetchone()
    if row is None or row[0] is None or row[1] != now:
        return None
    rows = cursor.execute(
        "SELECT DISTINCT kind, key, seq FROM changes WHERE number > ? ORDER BY kind, key, seq", [row[0]]
    ).fetchall()
    if any(kind == "everything" for kind, _, _ in rows):
        return None
    return Changes(
        now,
        tuple(key for kind, key, _ in rows if kind == "item"),
        tuple((key, int(seq)) for kind, key, seq in rows if kind == "event"),
        tuple(key for kind, key, _ in rows if kind == "query"),
    )


def new_revision(cursor: duckdb.DuckDBPyConnection, content: object, changed: Sequence[Change] | None) -> str:
    """In the caller's transaction: the next revision, made from the one before and `content`, so that the same writes
    give the same revision everywhere; and what it `changed` (None: everything)."""
    before = cursor.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
    digest = hashlib.sha256(f"{before}|{content}".encode()).hexdigest()[:12]
    note(cursor, str(before[0]) if before else "empty", digest, changed)
    cursor.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", [digest])
    return digest


def note(cursor: duckdb.DuckDBPyConnection, before: str, after: str, changed: Sequence[Change] | None) -> None:
    """Writes into `changes` what lies between two revisions."""
    row = cursor.execute("SELECT max(number), arg_max(revision, number), count(*) FROM changes").fetchone()
    number, newest, rows = row if row and row[0] is not None else (0, None, 0)
    if newest != before:  # a store that was filled from a snapshot, or before there was this table
        number += 1
        cursor.execute("INSERT INTO changes VALUES (?, ?, 'everything', '', NULL)", [number, before])
    if changed is None or len(changed) > MOST:
        changed = [("everything", "", None)]
    if changed:  # in one statement: row by row 6,000 of them took three quarters of an ingest's time
        cursor.execute(
            "INSERT INTO changes SELECT ?, ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::INTEGER[])",
            [number + 1, after, *(list(column) for column in zip(*changed, strict=True))],
        )
    if rows + len(changed) > KEPT:
        cursor.execute(
            """DELETE FROM changes WHERE number < (SELECT min(number) FROM
                   (SELECT number FROM changes ORDER BY number DESC LIMIT ?))""",
            [KEPT // 2],
        )


def set_meta(cursor: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
    """In the caller's transaction: a fact that is kept with the store. It makes no new revision."""
    cursor.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])


# ── Events as they happen ─────────────────────────────────────────────────────────────────────────────────────────────


def record_events(cursor: duckdb.DuckDBPyConnection, events: Sequence[Event], ids: Sequence[str] = ()) -> list[Event]:
    """In the caller's transaction; see `Store.record_events`."""
    _check_ids(events, ids)
    return list(_record(cursor, events, ids).values())


def record_batches(
    cursor: duckdb.DuckDBPyConnection, batches: Sequence[tuple[Sequence[Event], Sequence[str]]]
) -> list[list[Event]]:
    """As `record_events` for each batch, all with ids, at the cost of one: fifty of one event took 2.4 s one by one and
    0.3 s so."""
    for events, ids in batches:
        _check_ids(events, ids)
    placed = _record(cursor, [e for events, _ in batches for e in events], [one for _, ids in batches for one in ids])
    written: list[list[Event]] = []
    start = 0
    for events, _ in batches:
        written.append([placed[place] for place in range(start, start + len(events)) if place in placed])
        start += len(events)
    return written


def _check_ids(events: Sequence[Event], ids: Sequence[str]) -> None:
    if ids and len(ids) != len(events):
        raise StoreError(f"{len(events)} events came with {len(ids)} ids; give each event one, or none at all.")


def _record(cursor: duckdb.DuckDBPyConnection, events: Sequence[Event], ids: Sequence[str]) -> dict[int, Event]:
    """The events that are new, by their places among `events`, in that order."""
    for one in events:
        _check(one)
    fresh = _unheard(cursor, events, ids)
    order = sorted(fresh, key=lambda place: (events[place].user_id, events[place].ts, place))
    last = _last_numbers(cursor, {events[place].user_id for place in order})
    placed: dict[int, Event] = {}
    for place in order:
        one = events[place]
        last[one.user_id] = last.get(one.user_id, 0) + 1
        placed[place] = Event(one.user_id, last[one.user_id], one.ts, one.action, one.item_id, one.query, one.position)
    if not placed:
        return {}
    written = [placed[place] for place in order]
    cursor.execute(_INSERT_EVENTS, _columns(_row(one) for one in written))
    if ids:
        cursor.execute(
            "INSERT INTO event_ids SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::INTEGER[])",
            _columns((ids[place], placed[place].user_id, placed[place].seq) for place in order),
        )
    new = _see(cursor, written)
    told = [(e.user_id, e.seq, e.ts.isoformat(), e.action, e.item_id, e.query, e.position) for e in written]
    changed: list[Change] = [("event", e.user_id, e.seq) for e in written]
    new_revision(cursor, f"record|{told}", [*changed, *(("item", item_id, None) for item_id in new)])
    return {place: placed[place] for place in fresh}


def _check(event: Event) -> None:
    if event.action not in ACTIONS:
        raise StoreError(f"The action of an event is '{event.action}'; it must be one of {', '.join(ACTIONS)}.")
    if not event.user_id:
        raise StoreError(f"An event of {event.ts} has no user_id; every event is somebody's.")
    if event.ts.tzinfo is not None:
        raise StoreError(f"The time {event.ts.isoformat()} of an event has an offset; give it as UTC without one.")
    if (event.action == "search") == bool(event.item_id):
        what = "a search with an item" if event.item_id else f"a {event.action} without one"
        raise StoreError(
            f"The event of {event.user_id} at {event.ts} is {what}; a search names a query, all others an item."
        )


def _unheard(cursor: duckdb.DuckDBPyConnection, events: Sequence[Event], ids: Sequence[str]) -> list[int]:
    """The places of the events whose id was not recorded before; of an id given twice, the first."""
    if not ids:
        return list(range(len(events)))
    known = {
        event_id
        for (event_id,) in cursor.execute(
            "SELECT event_id FROM event_ids SEMI JOIN (SELECT unnest(?::VARCHAR[]) AS event_id) USING (event_id)",
            [list(ids)],
        ).fetchall()
    }
    first = {event_id: place for place, event_id in reversed(list(enumerate(ids)))}
    return [place for place, event_id in enumerate(ids) if event_id not in known and first[event_id] == place]


def _row(event: Event) -> tuple[object, ...]:
    return (event.user_id, event.seq, event.ts, event.action, event.item_id, event.query, event.position)


def _columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """For one statement: row by row fifty events took fifteen times as long."""
    return [list(column) for column in zip(*rows, strict=True)]


def _in_parts(values: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """("?, ?", values) of so many values at once: written-out ones use the index and the zone maps, and one statement of
    many costs a tenth of many statements."""
    wanted = list(values)
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        yield ", ".join("?" * len(part)), part


def _last_numbers(cursor: duckdb.DuckDBPyConnection, users: Iterable[str]) -> dict[str, int]:
    """Each known user's highest event number."""
    found: dict[str, int] = {}
    for table in ("events", "returned"):
        for marks, part in _in_parts(users):
            command = f"SELECT user_id, max(seq) FROM {table} WHERE user_id IN ({marks}) GROUP BY user_id"  # noqa: S608 - marks
            for user_id, seq in cursor.execute(command, part).fetchall():
                found[user_id] = max(int(seq), found.get(user_id, 0))
    return found


def _see(cursor: duckdb.DuckDBPyConnection, events: Sequence[Event]) -> list[str]:
    """Gives products that only events name a row, as an ingest does, and says which are new; keeps the time at which
    each was first seen."""
    seen: dict[str, datetime] = {}
    for one in events:
        if one.item_id:
            seen[one.item_id] = min(one.ts, seen.get(one.item_id, one.ts))
    known: dict[str, tuple[datetime | None, bool]] = {}
    for marks, part in _in_parts(seen):
        command = f"SELECT item_id, first_seen, first_seen_given FROM items WHERE item_id IN ({marks})"  # noqa: S608 - marks
        known |= {item_id: (first, given) for item_id, first, given in cursor.execute(command, part).fetchall()}
    new = []
    for item_id, ts in seen.items():
        row = known.get(item_id)
        if row is None:
            cursor.execute(
                """INSERT INTO items (item_id, first_seen, listed)
                   SELECT ?, ?, NOT EXISTS (SELECT 1 FROM meta WHERE key = 'catalogue')""",
                [item_id, ts],
            )
            new.append(item_id)
        elif not row[1] and (row[0] is None or ts < row[0]):
            cursor.execute("UPDATE items SET first_seen = ? WHERE item_id = ?", [ts, item_id])
    return new


# ── Products ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def upsert_items(cursor: duckdb.DuckDBPyConnection, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the caller's transaction; see `Store.upsert_items`."""
    last = {str(one.get("item_id") or ""): one for one in items}
    known = Item.__dataclass_fields__
    touched = []
    for item_id, given in last.items():
        strange = [name for name in given if name not in known]
        if not item_id or strange:
            wrong = f"has no field '{strange[0]}'" if strange else "needs an item_id"
            raise StoreError(f"A product {wrong}. Its fields: {', '.join(known)}.")
        _check_values(item_id, given)
        if _upsert(cursor, item_id, {name: value for name, value in given.items() if name != "item_id"}):
            touched.append(item_id)
    if touched:
        if not cursor.execute("SELECT 1 FROM meta WHERE key = 'catalogue'").fetchone():
            cursor.execute("INSERT INTO meta VALUES ('catalogue', 'given')")
        told = [(item_id, sorted((k, str(v)) for k, v in last[item_id].items())) for item_id in sorted(touched)]
        new_revision(cursor, f"upsert|{told}", [("item", item_id, None) for item_id in touched])
    return touched


_KINDS: dict[str, tuple[type, ...]] = {
    "price": (int, float),
    "in_stock": (bool,),
    "listed": (bool,),
    "attributes": (Mapping,),
    "first_seen": (datetime,),
}


def _check_values(item_id: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        kinds = _KINDS.get(name, (str, int, float))
        is_price = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if value is None or (isinstance(value, kinds) and (name != "price" or is_price)):
            continue
        kind = "finite number" if name == "price" else " or ".join(one.__name__ for one in kinds)
        raise StoreError(f"The {name} of product '{item_id}' is {value!r:.80}; it must be a {kind}, or None.")


def _upsert(cursor: duckdb.DuckDBPyConnection, item_id: str, given: dict[str, Any]) -> bool:
    """Whether anything changed."""
    values: dict[str, Any] = {
        name: "" if value is None and name in TEXTS else value for name, value in {"listed": True, **given}.items()
    }
    if values.get("first_seen") is not None:
        values["first_seen_given"] = True
    # A dict is given as two lists: DuckDB reads one with the keys "key" and "value" as something else.
    marks = {name: "map(?::VARCHAR[], ?::VARCHAR[])" if name == "attributes" else "?" for name in values}
    parts: list[Any] = []
    for name, value in values.items():
        told = {str(key): str(one) for key, one in (value or {}).items()} if name == "attributes" else {}
        parts += [list(told), list(told.values())] if name == "attributes" else [value]
    before = cursor.execute("SELECT * FROM items WHERE item_id = ?", [item_id]).fetchone()
    if before is None:
        columns, fill = ", ".join(["item_id", *marks]), ", ".join(["?", *marks.values()])
        cursor.execute(f"INSERT INTO items ({columns}) VALUES ({fill})", [item_id, *parts])  # noqa: S608 - field names
        return True
    sets = ", ".join(f"{name} = {mark}" for name, mark in marks.items())
    cursor.execute(f"UPDATE items SET {sets} WHERE item_id = ?", [*parts, item_id])  # noqa: S608 - field names
    return cursor.execute("SELECT * FROM items WHERE item_id = ?", [item_id]).fetchone() != before
