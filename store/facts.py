"""Facts that are kept with a store, in its table `meta`: its currency, whether it is simulated, what built it."""

from __future__ import annotations

import duckdb


def set_meta(cursor: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
    """In the caller's transaction."""
    cursor.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])
