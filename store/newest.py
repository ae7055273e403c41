"""The newest event that popularity looks back from. A wrong clock writes an event of the year 2099, and then nothing
was popular lately.

The rule: events of the future are left out as long as they are fewer than half of all; so are the newest that come two
years or more after all others, if they are at most one event in a thousand (or one alone) and the others at least
twenty times as many.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb

GAP = timedelta(days=730)
_FUTURE = timedelta(days=1)  # local times may be ahead of UTC
_FEW, _MANY = 1000, 20


def newest_event(cursor: duckdb.DuckDBPyConnection, now: datetime | None = None) -> tuple[datetime | None, int]:
    """Its time (None in a store without events), and how many events lie after it."""
    rows = cursor.execute(
        "SELECT date_trunc('day', ts) AS day, count(*), max(ts) FROM events GROUP BY day ORDER BY day"
    ).fetchall()
    days: list[tuple[datetime, int, datetime]] = [(day, int(count), last) for day, count, last in rows]
    total = sum(count for _, count, _ in days)
    limit = (now or datetime.now(UTC).replace(tzinfo=None)) + _FUTURE
    past = [row for row in days if row[0] <= limit]
    if 2 * sum(count for _, count, _ in past) > total:
        days = past
    left = sum(count for _, count, _ in days)
    tail = 0
    for place in range(len(days) - 1, 0, -1):
        tail += days[place][1]
        if tail > max(1, left // _FEW) or left - tail < _MANY * tail:
            break
        if days[place][0] - days[place - 1][0] >= GAP:
            days, left, tail = days[:place], left - tail, 0
    return (days[-1][2] if days else None), total - left
