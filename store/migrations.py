"""The schema's history: numbered functions, each applied once, in its own place in the order, and recorded in `meta`.

To change the schema, append a function to MIGRATIONS; never edit one that was released. Version 1 is schema.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import duckdb

from recgraph.errors import StoreError


def _first(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute((files("recgraph.store") / "schema.sql").read_text(encoding="utf-8"))


# In a store of before, what has no more than its id was named by events alone: it is history, where the others are a
# catalogue.
CATALOGUE_GIVEN = (
    "INSERT INTO meta SELECT 'catalogue', 'given' WHERE EXISTS (SELECT 1 FROM items WHERE title <> '' OR NOT listed)"
)


def _listed(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("ALTER TABLE items ADD COLUMN listed BOOLEAN DEFAULT TRUE")
    cursor.execute(
        """UPDATE items SET listed = FALSE
           WHERE title = '' AND category = '' AND brand = '' AND color = '' AND price IS NULL AND description = ''
               AND coalesce(cardinality(attributes), 0) = 0 AND EXISTS (SELECT 1 FROM items WHERE title <> '')"""
    )
    cursor.execute(CATALOGUE_GIVEN)
    # Purchases that came back, out of `events`: reading their file again must not bring them in again.
    cursor.execute(
        """CREATE TABLE returned (user_id VARCHAR NOT NULL, seq INTEGER, ts TIMESTAMP NOT NULL,
               item_id VARCHAR NOT NULL, query VARCHAR NOT NULL, position INTEGER, returned_at TIMESTAMP NOT NULL)"""
    )


def _changes(cursor: duckdb.DuckDBPyConnection) -> None:
    # What each revision changed (store/changes.py), and under which ids events came that were recorded one by one.
    cursor.execute(
        """CREATE TABLE changes (number BIGINT NOT NULL, revision VARCHAR NOT NULL, kind VARCHAR NOT NULL, key VARCHAR NOT NULL, seq INTEGER);
           CREATE TABLE event_ids (event_id VARCHAR PRIMARY KEY, user_id VARCHAR NOT NULL, seq INTEGER NOT NULL)"""
    )


TABLES = frozenset(
    "items events exposures summaries embeddings rejects meta returned changes event_ids".split()
)  # of the newest schema
MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [_first, _listed, _changes]


def schema_version(cursor: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The schema version of an open store: 0 for a file without any table. Raises StoreError for somebody else's DuckDB
    file, and for one in which a view stands where a table should: it could read what is no part of the store."""
    kinds = dict(
        cursor.execute(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'main'"
        ).fetchall()
    )
    tables = set(kinds)
    if not tables:
        return 0
    row = (
        cursor.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        if {"meta", "events", "items"} <= tables
        else None
    )
    if row is None:
        raise StoreError(
            f"{path} is a DuckDB file, but no recgraph store (tables: {', '.join(sorted(tables)[:5])}). Name another "
            "file with --store."
        )
    views = sorted(name for name in TABLES & tables if kinds[name] != "BASE TABLE")
    if views:
        raise StoreError(
            f"{path} is no store that recgraph made: {', '.join(views)} is a view, not a table. Make one from its rows: "
            "recgraph ingest PATH... --store NEW"
        )
    return int(row[0])


def check_version(version: int, path: Path) -> None:
    """Raises StoreError where the store is newer than this program."""
    if version > len(MIGRATIONS):
        raise StoreError(
            f"The store {path} has schema version {version}; this recgraph knows up to version {len(MIGRATIONS)}. "
            "Run: pip install -U recgraph"
        )


def migrate(cursor: duckdb.DuckDBPyConnection, version: int) -> None:
    """Applies what is missing after `version`, within the caller's transaction."""
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        step(cursor)
        cursor.execute(
            "INSERT OR REPLACE INTO meta VALUES ('schema_version', ?), (?, ?)",
            [str(number), f"migration_{number:04d}", datetime.now(UTC).isoformat(timespec="seconds")],
        )
