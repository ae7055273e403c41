"""From the waiting room into the store, in the caller's transaction: only what is new, nothing twice, stable event numbers.

An event is known by (user, time, action, item, query, position) and its occurrence number among equal ones; so a file read again adds
nothing, and a grown file adds what it grew by. Items are updated where the source says something else; an empty value never erases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Merged:
    """What changed. `items_unlisted` of `items_new` are only named by events or exposures and got a row without a title."""

    users: int
    items_new: int
    items_changed: int
    items_unlisted: int
    events_new: int
    exposures_new: int


_ITEMS = """
    DELETE FROM stage_items WHERE rowid NOT IN (SELECT max(rowid) FROM stage_items GROUP BY item_id);
    CREATE TEMP TABLE seen AS SELECT item_id, min(ts) AS ts FROM
        (SELECT item_id, ts FROM stage_events WHERE item_id <> '' UNION ALL SELECT item_id, ts FROM stage_exposures) GROUP BY item_id;
    CREATE TEMP TABLE unlisted AS SELECT item_id FROM seen ANTI JOIN stage_items USING (item_id) ANTI JOIN items USING (item_id);
    INSERT INTO stage_items (item_id) SELECT item_id FROM unlisted;
    CREATE TEMP TABLE changed AS
        SELECT i.item_id,
            if(s.title <> '', s.title, i.title) AS title, if(s.category <> '', s.category, i.category) AS category,
            if(s.brand <> '', s.brand, i.brand) AS brand, if(s.color <> '', s.color, i.color) AS color,
            if(s.size <> '', s.size, i.size) AS size, coalesce(s.price, i.price) AS price,
            if(s.description <> '', s.description, i.description) AS description,
            if(coalesce(cardinality(s.attributes), 0) > 0, s.attributes, i.attributes) AS attributes,
            if(s.parent_id <> '', s.parent_id, i.parent_id) AS parent_id, coalesce(s.first_seen, i.first_seen) AS first_seen,
            coalesce(s.in_stock, i.in_stock) AS in_stock, i.first_seen_given OR s.first_seen IS NOT NULL AS first_seen_given
        FROM stage_items s JOIN items i USING (item_id)
        EXCEPT SELECT * FROM items;
    CREATE TEMP TABLE added AS SELECT s.* FROM stage_items s ANTI JOIN items USING (item_id);
"""
_WRITE_ITEMS = """
    UPDATE items SET title = c.title, category = c.category, brand = c.brand, color = c.color, size = c.size, price = c.price,
        description = c.description, attributes = c.attributes, parent_id = c.parent_id, first_seen = c.first_seen, in_stock = c.in_stock,
        first_seen_given = c.first_seen_given FROM changed c WHERE items.item_id = c.item_id;
    UPDATE items SET first_seen = seen.ts FROM seen
        WHERE items.item_id = seen.item_id AND NOT first_seen_given AND (first_seen IS NULL OR seen.ts < first_seen);
    INSERT INTO items SELECT item_id, title, category, brand, color, size, price, description, attributes, parent_id,
        coalesce(first_seen, seen.ts), coalesce(in_stock, TRUE), first_seen IS NOT NULL FROM added LEFT JOIN seen USING (item_id) ORDER BY item_id;
"""
_EVENTS = """
    CREATE TEMP TABLE fresh_events AS
    WITH numbered AS (SELECT *, rowid AS place,
                          row_number() OVER (PARTITION BY user_id, ts, action, item_id, query, position ORDER BY rowid) AS copy FROM stage_events),
        known AS (SELECT user_id, ts, action, item_id, query, position, count(*) AS copies
                  FROM events SEMI JOIN stage_events USING (user_id) GROUP BY ALL)
    SELECT n.* FROM numbered n LEFT JOIN known k ON n.user_id = k.user_id AND n.ts = k.ts AND n.action = k.action AND n.item_id = k.item_id
        AND n.query = k.query AND n.position IS NOT DISTINCT FROM k.position WHERE n.copy > coalesce(k.copies, 0);
"""
_WRITE_EVENTS = """
    INSERT INTO events
    WITH last AS (SELECT user_id, max(seq) AS seq FROM events SEMI JOIN fresh_events USING (user_id) GROUP BY user_id)
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
                          row_number() OVER (PARTITION BY query, item_id, position, ts ORDER BY rowid) AS copy FROM stage_exposures),
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


def merge(cursor: duckdb.DuckDBPyConnection, format_name: str, sources: list[str], progress: Callable[[str], None]) -> Merged:
    """Writes the staged rows; the rejects of `sources` replace those of an earlier reading. Sets `meta` revision where anything changed."""
    progress("writing items")
    cursor.execute(_ITEMS)
    cursor.execute(_WRITE_ITEMS)
    progress("writing events")
    cursor.execute(_EVENTS)
    cursor.execute(_WRITE_EVENTS)
    _keep_sorted(cursor)
    progress("writing exposures")
    cursor.execute(_EXPOSURES)
    cursor.execute("DELETE FROM rejects WHERE source IN (SELECT unnest(?::VARCHAR[]))", [sources])
    cursor.execute("INSERT INTO rejects SELECT source, line, reason, raw FROM stage_rejects ORDER BY source, line")
    row = cursor.execute(
        """SELECT (SELECT count(DISTINCT user_id) FROM stage_events), (SELECT count(*) FROM added), (SELECT count(*) FROM changed),
               (SELECT count(*) FROM unlisted), (SELECT count(*) FROM fresh_events), (SELECT count(*) FROM fresh_exposures)"""
    ).fetchone()
    assert row is not None
    merged = Merged(*(int(number) for number in row))
    if merged.items_new or merged.items_changed or merged.events_new or merged.exposures_new:
        _set_revision(cursor, format_name)
    progress("committing")
    return merged


def _keep_sorted(cursor: duckdb.DuckDBPyConnection) -> None:
    """Many small ingests each add a sorted run; once they are long together, the whole table is sorted anew (5.9 million events: 10 s)."""
    row = cursor.execute(
        """SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM fresh_events),
               coalesce((SELECT value::BIGINT FROM meta WHERE key = 'events_sorted'), 0)"""
    ).fetchone()
    assert row is not None
    total, fresh, in_order = (int(number) for number in row)
    if fresh == total:
        in_order = total
    elif total - in_order > TAIL:
        cursor.execute(_SORT_EVENTS)
        in_order = total
    cursor.execute("INSERT OR REPLACE INTO meta VALUES ('events_sorted', ?)", [str(in_order)])


def _set_revision(cursor: duckdb.DuckDBPyConnection, format_name: str) -> None:
    """The new revision is made from the old one and the new content, so that the same ingests give the same revision everywhere."""
    before = cursor.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
    content = cursor.execute(_CHECKSUM).fetchone()
    digest = hashlib.sha256(f"{before}|{format_name}|{content}".encode()).hexdigest()[:12]
    cursor.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", [digest])
