"""Events that a shop keeps in PostgreSQL, brought into a recgraph store: each row once, however many programs write.

    python examples/postgres_events.py "host=db dbname=shop user=reader" shop.duckdb     # as often as you like

It needs DuckDB's extension: pip install duckdb-extension-postgres-scanner==1.5.5 (the version of your duckdb). Give the
password as PostgreSQL's own programs take it, in PGPASSWORD or ~/.pgpass. The table is `TABLE`; your services insert
into it.

A row's number is given before its transaction ends, so a later number may be seen earlier: whoever goes by numbers
loses rows. Here a row carries its transaction; read are those of all transactions before the oldest that still runs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import duckdb

from recgraph.store.ingest.load import ingest

TABLE = """CREATE TABLE events (
    event_id text PRIMARY KEY,  -- of the sender's making: an event that is sent again is refused
    user_id text NOT NULL,
    ts timestamptz NOT NULL DEFAULT now(),
    action text NOT NULL CHECK (action IN ('search', 'click', 'cart', 'purchase')),
    item_id text, query text, position integer,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE INDEX ON events (tx)"""
_ENDED = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_ROWS = """SELECT user_id, ts AT TIME ZONE 'UTC' AS ts, action, item_id, query, position FROM events
    WHERE tx >= '{start}'::xid8 AND tx < '{end}'::xid8 ORDER BY user_id, ts"""


def take(where: str, store: Path) -> int:
    """Ingests what was committed since the last time; how many events are new in the store. Where it is killed, the
    next call does the same again, which changes nothing."""
    mark = store.with_suffix(".taken")
    start = int(mark.read_text()) if mark.exists() else 0
    spec = importlib.util.find_spec("duckdb_extension_postgres_scanner")
    places = spec.submodule_search_locations if spec else None
    if not places:
        sys.exit(f"pip install duckdb-extension-postgres-scanner=={duckdb.__version__}")
    rows = store.with_suffix(".new.parquet")
    with duckdb.connect() as con:
        con.load_extension(f"{places[0]}/extensions/v{duckdb.__version__}/postgres_scanner.duckdb_extension")
        con.execute(f"ATTACH '{where.replace(chr(39), chr(39) * 2)}' AS shop (TYPE postgres, READ_ONLY)")
        ((end,),) = con.execute("FROM postgres_query('shop', ?)", [_ENDED]).fetchall()
        sql = _ROWS.format(start=start, end=end).replace("'", "''")
        con.execute(f"COPY (FROM postgres_query('shop', '{sql}')) TO '{rows}' (FORMAT parquet)")
        ((count,),) = con.execute("SELECT count(*) FROM read_parquet(?)", [str(rows)]).fetchall()
    new = ingest(store, "tables", [_named(rows)]).events_new if count else 0
    mark.write_text(str(end))
    return new


def _named(rows: Path) -> Path:
    """The file under the name by which the `tables` reader knows events."""
    folder = rows.with_suffix("")
    folder.mkdir(exist_ok=True)
    return rows.replace(folder / "events.parquet").parent


if __name__ == "__main__":
    print(f"{take(sys.argv[1], Path(sys.argv[2])):,} new events")
