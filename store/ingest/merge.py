"""From the waiting room into the store, in the caller's transaction: only what is new, nothing twice, stable event numbers.

An event is known by (user, time, action, item, query, position) and its occurrence number among equal ones; so a file read again adds
nothing, and a grown file adds what it grew by. Items are updated where the source says something else; an empty value never erases.
An item that no catalogue lists is known by its events alone: once there was a catalogue, it is history and never recommended (`listed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import duckdb

from recgraph.store.changes import MOST, Change, Kind, new_revision
from recgraph.store.ingest.returns import take_back
from recgraph.store.newest import newest_event


@dataclass(frozen=True)
class Merged:
    """What changed. `items_unlisted` of `items_new` are only named by events or exposures and got a row without a title; `items_off_sale` are
    those that a complete feed no longer lists. `notes` are sentences for people."""

    users: int
    items_new: int
    items_changed: int
    items_unlisted: int
    events_new: int
    exposures_new: int
    items_off_sale: int = 0
    notes: tuple[str, ...] = ()


# The side database has read the files (store/ingest/side.py); a row's place there is its order.
_WAITING = """
    CREATE OR REPLACE TEMP VIEW stage_items AS SELECT * FROM side.stage_items;
    CREATE OR REPLACE TEMP VIEW stage_events AS SELECT *, rowid AS place FROM side.stage_events;
    CREATE OR REPLACE TEMP VIEW stage_returns AS SELECT *, rowid AS place FROM side.stage_returns;
    CREATE OR REPLACE TEMP VIEW stage_exposures AS SELECT *, rowid AS place FROM side.stage_exposures;
    CREATE OR REPLACE TEMP VIEW seen AS SELECT * FROM side.seen;
"""
_FIRST_CATALOGUE = """
    UPDATE items SET listed = FALSE;
    INSERT INTO meta VALUES ('catalogue', 'given');
"""
_ITEMS = """
    CREATE TEMP TABLE unlisted AS SELECT item_id FROM seen ANTI JOIN stage_items USING (item_id) ANTI JOIN items USING (item_id);
    CREATE TEMP TABLE changed AS
        SELECT i.item_id,
            if(s.title <> '', s.title, i.title) AS title, if(s.category <> '', s.category, i.category) AS category,
            if(s.brand <> '', s.brand, i.brand) AS brand, if(s.color <> '', s.color, i.color) AS color,
            if(s.size <> '', s.size, i.size) AS size, coalesce(s.price, i.price) AS price,
            if(s.description <> '', s.description, i.description) AS description,
            if(coalesce(cardinality(s.attributes), 0) > 0, s.attributes, i.attributes) AS attributes,
            if(s.parent_id <> '', s.parent_id, i.parent_id) AS parent_id, coalesce(s.first_seen, i.first_seen) AS first_seen,
            coalesce(s.in_stock, i.in_stock) AS in_stock, i.first_seen_given OR s.first_seen IS NOT NULL AS first_seen_given,
            TRUE AS listed
        FROM stage_items s JOIN items i USING (item_id)
        EXCEPT SELECT * FROM items;
    CREATE TEMP TABLE added AS SELECT s.*, TRUE AS listed FROM stage_items s ANTI JOIN items USING (item_id);
    INSERT INTO added (item_id, title, category, brand, color, size, description, parent_id, listed)
        SELECT item_id, '', '', '', '', '', '', '', NOT EXISTS (SELECT 1 FROM meta WHERE key = 'catalogue') FROM unlisted ORDER BY item_id;
"""
_WRITE_ITEMS = """
    UPDATE items SET title = c.title, category = c.category, brand = c.brand, color = c.color, size = c.size, price = c.price,
        description = c.description, attributes = c.attributes, parent_id = c.parent_id, first_seen = c.first_seen, in_stock = c.in_stock,
        first_seen_given = c.first_seen_given, listed = TRUE FROM changed c WHERE items.item_id = c.item_id;
    UPDATE items SET first_seen = seen.ts FROM seen
        WHERE items.item_id = seen.item_id AND NOT first_seen_given AND (first_seen IS NULL OR seen.ts < first_seen);
    INSERT INTO items BY NAME SELECT item_id, title, category, brand, color, size, price, description, attributes, parent_id,
        coalesce(first_seen, seen.ts) AS first_seen, coalesce(in_stock, TRUE) AS in_stock, first_seen IS NOT NULL AS first_seen_given, listed
        FROM added LEFT JOIN seen USING (item_id) ORDER BY item_id;
"""
# What a feed that says it is whole does not name.
_OFF_SALE = """
    CREATE TEMP TABLE delisted AS SELECT item_id FROM items ANTI JOIN stage_items USING (item_id) WHERE listed;
    UPDATE items SET listed = FALSE FROM delisted WHERE items.item_id = delisted.item_id;
"""
_EVENTS = """
    CREATE TEMP TABLE fresh_events AS
    WITH numbered AS (SELECT *, row_number() OVER (PARTITION BY user_id, ts, action, item_id, query, position ORDER BY returned_at, place) AS copy
                      FROM stage_events),
        there AS (SELECT user_id, ts, action, item_id, query, position FROM events
                  UNION ALL SELECT user_id, ts, 'purchase', item_id, query, position FROM returned),
        known AS (SELECT *, count(*) AS copies FROM there SEMI JOIN stage_events USING (user_id) GROUP BY ALL)
    SELECT n.* EXCLUDE (returned_at)
    FROM numbered n LEFT JOIN known k ON n.user_id = k.user_id AND n.ts = k.ts AND n.action = k.action AND n.item_id = k.item_id
        AND n.query = k.query AND n.position IS NOT DISTINCT FROM k.position WHERE n.copy > coalesce(k.copies, 0) AND n.returned_at IS NULL;
"""
_WRITE_EVENTS = """
    INSERT INTO events
    WITH last AS (SELECT user_id, max(seq) AS seq
                  FROM (SELECT user_id, seq FROM events UNION ALL SELECT user_id, seq FROM returned)
                  SEMI JOIN fresh_events USING (user_id) GROUP BY user_id)
    SELECT f.user_id, coalesce(last.seq, 0) + row_number() OVER (PARTITION BY f.user_id ORDER BY f.ts, f.place) AS number,
        f.ts, f.action, f.item_id, f.query, f.position
    FROM fresh_events f LEFT JOIN last USING (user_id) ORDER BY f.user_id, number;
"""
# Rows after the sorted part that a history may have to look through: 4 of DuckDB's blocks.
TAIL = 4 * 122_880
_SORT_EVENTS = """
    CREATE TEMP TABLE sorted_events AS SELECT * FROM events ORDER BY user_id, seq;
    DELETE FROM events;
    INSERT INTO events SELECT * FROM sorted_events;
    DROP TABLE sorted_events;
"""
_EXPOSURES = """
    CREATE TEMP TABLE fresh_exposures AS
    WITH numbered AS (SELECT *, lower(trim(query)) AS query_key,
                          row_number() OVER (PARTITION BY query, item_id, position, ts ORDER BY place) AS copy FROM stage_exposures),
        known AS (SELECT query, item_id, position, ts, count(*) AS copies FROM exposures GROUP BY ALL)
    SELECT n.* FROM numbered n LEFT JOIN known k USING (query, item_id, position, ts) WHERE n.copy > coalesce(k.copies, 0);
    INSERT INTO exposures SELECT query, item_id, position, ts, query_key FROM fresh_exposures ORDER BY query_key, ts, position;
"""
_CHECKSUM = """
    SELECT (SELECT bit_xor(hash(user_id, ts, action, item_id, query, position, copy)) FROM fresh_events),
        (SELECT bit_xor(hash(query, item_id, position, ts, copy)) FROM fresh_exposures),
        (SELECT bit_xor(hash(item_id, title, category, brand, color, size, price, description, parent_id, first_seen, in_stock)) FROM
            (SELECT * FROM added UNION ALL BY NAME SELECT * FROM changed))
"""
_LEFT = "SELECT (SELECT bit_xor(hash(item_id)) FROM delisted), (SELECT bit_xor(hash(user_id, item_id, ts)) FROM gone)"
# An id of the events that a spreadsheet robbed of its zeros is in the catalogue with them.
_LOST_ZEROS = """
    SELECT count(*), min(u.item_id), min_by(i.item_id, u.item_id) FROM unlisted u JOIN items i ON ltrim(u.item_id, '0') = ltrim(i.item_id, '0')
    WHERE regexp_full_match(u.item_id, '\\d+') AND i.listed AND i.item_id NOT IN (SELECT item_id FROM unlisted)
"""


def merge(
    cursor: duckdb.DuckDBPyConnection, format_name: str, sources: list[str], progress: Callable[[str], None], complete: bool = False
) -> Merged:
    """Writes what waits in the attached database `side`; the rejects of `sources` replace those of an earlier reading. `complete` says that the
    items are the whole catalogue. Sets `meta` revision where anything changed."""
    progress("writing items")
    cursor.execute(_WAITING)
    if _number(cursor, "SELECT count(*) FROM stage_items") and not _number(cursor, "SELECT count(*) FROM meta WHERE key = 'catalogue'"):
        cursor.execute(_FIRST_CATALOGUE)
    cursor.execute(_ITEMS)
    cursor.execute(_WRITE_ITEMS)
    cursor.execute("CREATE TEMP TABLE delisted (item_id VARCHAR)" if not complete else _OFF_SALE)
    progress("writing events")
    cursor.execute(_EVENTS)
    cursor.execute(_WRITE_EVENTS)
    came_back, alone = take_back(cursor)
    _keep_sorted(cursor)
    progress("writing exposures")
    cursor.execute(_EXPOSURES)
    cursor.execute("DELETE FROM rejects WHERE source IN (SELECT unnest(?::VARCHAR[]))", [sources])
    cursor.execute("INSERT INTO rejects SELECT source, line, reason, raw FROM side.stage_rejects ORDER BY source, line")
    row = cursor.execute(
        """SELECT (SELECT count(DISTINCT user_id) FROM stage_events), (SELECT count(*) FROM added), (SELECT count(*) FROM changed),
               (SELECT count(*) FROM unlisted), (SELECT count(*) FROM fresh_events), (SELECT count(*) FROM fresh_exposures),
               (SELECT count(*) FROM delisted)"""
    ).fetchone()
    assert row is not None
    users, new, changed, unlisted, events, exposures, off_sale = (int(number) for number in row)
    merged = Merged(users, new, changed, unlisted, events, exposures, off_sale, tuple(_notes(cursor, came_back, alone)))
    if merged.items_new or merged.items_changed or merged.events_new or merged.exposures_new or merged.items_off_sale or came_back:
        _set_revision(cursor, format_name, _changed(cursor, merged, came_back))
    progress("committing")
    return merged


def _notes(cursor: duckdb.DuckDBPyConnection, came_back: int, alone: int) -> Iterator[str]:
    """What a person should know of the merged whole."""
    in_files = _number(cursor, "SELECT count(returned_at) FROM stage_events")
    if in_files or came_back:
        yield f"{max(in_files, came_back):,} purchases came back and do not count"
    if alone:
        yield f"{alone:,} returns have no purchase before them and change nothing"
    count, bare, full = cursor.execute(_LOST_ZEROS).fetchone() or (0, "", "")
    if count:
        told = f"only by zeros in front, such as {bare} and {full}: a spreadsheet may have cut them"
        yield f"{count:,} items of the events differ from listed ones {told}"
    moment, late = newest_event(cursor)
    if late and moment is not None:
        yield f"{late:,} events lie in the future or years after all others, so popularity looks back from {moment:%Y-%m-%d} and leaves them out"


def _number(cursor: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = cursor.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def _keep_sorted(cursor: duckdb.DuckDBPyConnection) -> None:
    """Many small ingests each add a sorted run; once they are long together, the whole table is sorted anew (5.9 million events: 10 s)."""
    row = cursor.execute(
        """SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM fresh_events),
               coalesce((SELECT value::BIGINT FROM meta WHERE key = 'events_sorted'), 0)"""
    ).fetchone()
    assert row is not None
    total, fresh, in_order = (int(number) for number in row)
    in_order = min(in_order, total)
    if fresh == total:
        in_order = total
    elif total - in_order > TAIL:
        cursor.execute(_SORT_EVENTS)
        in_order = total
    cursor.execute("INSERT OR REPLACE INTO meta VALUES ('events_sorted', ?)", [str(in_order)])


# Counted first: an ingest that changes more than is kept one by one need not list it.
_CHANGED = {
    "item": ("(SELECT item_id FROM added UNION SELECT item_id FROM changed UNION SELECT item_id FROM delisted)", "item_id, NULL"),
    "event": ("(SELECT user_id, seq FROM events SEMI JOIN fresh_events USING (user_id, ts, action, item_id, query))", "user_id, seq"),
    "query": ("(SELECT DISTINCT query_key FROM fresh_exposures)", "query_key, NULL"),
}


def _changed(cursor: duckdb.DuckDBPyConnection, merged: Merged, came_back: int) -> list[Change] | None:
    """What the ingest changed, one by one; None where that is too much, or where events went."""
    if came_back or merged.items_new + merged.items_changed + merged.items_off_sale + merged.events_new + merged.exposures_new > MOST:
        return None
    return [
        (cast(Kind, kind), str(key), seq)
        for kind, (table, columns) in _CHANGED.items()
        for key, seq in cursor.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()  # noqa: S608 - constants
    ]


def _set_revision(cursor: duckdb.DuckDBPyConnection, format_name: str, changed: list[Change] | None) -> None:
    """The new revision is made from the old one and the new content, so that the same ingests give the same revision everywhere."""
    content = cursor.execute(_CHECKSUM).fetchone()
    left = cursor.execute(_LEFT).fetchone()
    new_revision(cursor, f"{format_name}|{content}{left if left != (None, None) else ''}", changed)
