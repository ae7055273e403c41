"""What came back: a return takes back the purchase of the same shopper and thing that is nearest before it, in its own files or in the store.

The purchase then is no event; `returned` keeps it, so that reading its file again does not bring it in again. A return without a purchase
before it changes nothing and is counted.
"""

from __future__ import annotations

import duckdb

# Backwards in time, a return opens and the next purchase closes it. With s the returns less the purchases so far, a purchase that closes
# nothing is one at which the running maximum of -s grows. The n-th matched purchase from the end then belongs to the n-th return from the end.
_MATCH = """
    CREATE TEMP TABLE cancelled AS
    WITH bought AS ({purchases}), back AS ({returns}),
    steps AS (
        SELECT *, sum(CASE WHEN purchase THEN -1 ELSE 1 END) OVER w AS s, row_number() OVER w AS step
        FROM (SELECT *, TRUE AS purchase FROM bought SEMI JOIN back USING (user_id, item_id) UNION ALL SELECT *, FALSE FROM back)
        WINDOW w AS (PARTITION BY user_id, item_id ORDER BY ts DESC, purchase, place DESC ROWS UNBOUNDED PRECEDING)),
    tops AS (SELECT *, greatest(0, max(-s) OVER (PARTITION BY user_id, item_id ORDER BY step ROWS UNBOUNDED PRECEDING)) AS top FROM steps),
    closed AS (SELECT *, lag(top, 1, 0) OVER (PARTITION BY user_id, item_id ORDER BY step) = top AS matched FROM tops),
    found AS (SELECT place, user_id, item_id, row_number() OVER (PARTITION BY user_id, item_id ORDER BY step) AS number FROM closed
              WHERE purchase AND matched),
    numbered AS (SELECT *, row_number() OVER (PARTITION BY user_id, item_id ORDER BY ts DESC, place DESC) AS number FROM back)
    SELECT found.place AS purchase_place, numbered.place AS return_place, numbered.ts AS returned_at
    FROM found JOIN numbered USING (user_id, item_id, number);
"""
_MATCH_IN_FILES = _MATCH.format(
    purchases="SELECT rowid AS place, user_id, item_id, ts FROM stage_events WHERE action = 'purchase'",
    returns="SELECT rowid AS place, user_id, item_id, ts FROM stage_returns",
)
_MARK = """
    UPDATE stage_events SET returned_at = c.returned_at FROM cancelled c WHERE stage_events.rowid = c.purchase_place;
    DELETE FROM stage_returns WHERE rowid IN (SELECT return_place FROM cancelled);
    DROP TABLE cancelled;
"""
# Of the returns left, those that took back a purchase at an earlier ingest are done with.
_MATCH_IN_STORE = _MATCH.format(
    purchases="SELECT rowid AS place, user_id, item_id, ts FROM events WHERE action = 'purchase'",
    returns="""SELECT place, user_id, item_id, ts FROM stage_returns r
        ANTI JOIN returned d ON r.user_id = d.user_id AND r.item_id = d.item_id AND r.ts = d.returned_at""",
)
_TAKE_BACK = """
    INSERT INTO gone SELECT e.rowid AS place, e.user_id, e.seq, e.ts, e.item_id, e.query, e.position, c.returned_at
        FROM events e JOIN cancelled c ON e.rowid = c.purchase_place;
    INSERT INTO gone SELECT e.rowid, e.user_id, e.seq, e.ts, e.item_id, e.query, e.position, s.returned_at
        FROM (SELECT *, rowid, row_number() OVER (PARTITION BY user_id, ts, item_id, query, position ORDER BY seq) AS copy FROM events
              WHERE action = 'purchase' AND rowid NOT IN (SELECT place FROM gone)) e
        JOIN (SELECT *, row_number() OVER (PARTITION BY user_id, ts, item_id, query, position ORDER BY place) AS copy FROM stage_events
              WHERE returned_at IS NOT NULL) s
            ON e.user_id = s.user_id AND e.ts = s.ts AND e.item_id = s.item_id AND e.query = s.query AND e.position IS NOT DISTINCT FROM s.position
                AND e.copy = s.copy
        WHERE NOT EXISTS (SELECT 1 FROM returned d WHERE d.user_id = s.user_id AND d.item_id = s.item_id AND d.ts = s.ts
            AND d.returned_at = s.returned_at);
    DELETE FROM events WHERE rowid IN (SELECT place FROM gone);
    INSERT INTO returned SELECT * EXCLUDE (place) FROM gone;
    INSERT INTO returned SELECT s.user_id, NULL, s.ts, s.item_id, s.query, s.position, s.returned_at FROM stage_events s
        WHERE s.returned_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM returned d WHERE d.user_id = s.user_id AND d.item_id = s.item_id
            AND d.ts = s.ts AND d.query = s.query AND d.position IS NOT DISTINCT FROM s.position AND d.returned_at = s.returned_at);
"""
_GONE = """CREATE TEMP TABLE gone (place BIGINT, user_id VARCHAR, seq INTEGER, ts TIMESTAMP, item_id VARCHAR, query VARCHAR, position INTEGER,
    returned_at TIMESTAMP)"""


def match_in_files(cursor: duckdb.DuckDBPyConnection) -> None:
    """Marks the staged purchases that came back (`returned_at`) and leaves in `stage_returns` what found none."""
    cursor.execute(_MATCH_IN_FILES)
    cursor.execute(_MARK)


def take_back(cursor: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """In the caller's transaction: purchases of the store that came back leave `events` for `returned`. Gives how many did, and how many returns
    found no purchase, now or at an earlier ingest."""
    cursor.execute(_GONE)
    if not _number(
        cursor, "SELECT (SELECT count(*) FROM stage_returns) + (SELECT count(returned_at) FROM stage_events)"
    ):
        return 0, 0
    cursor.execute(_MATCH_IN_STORE)
    cursor.execute(_TAKE_BACK)
    alone = """SELECT count(*) FROM stage_returns r
        ANTI JOIN returned d ON r.user_id = d.user_id AND r.item_id = d.item_id AND r.ts = d.returned_at"""
    return _number(cursor, "SELECT count(*) FROM gone"), _number(cursor, alone)


def _number(cursor: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = cursor.execute(sql).fetchone()
    assert row is not None
    return int(row[0])
