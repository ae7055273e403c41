"""What an ingest did, in numbers and in sentences: what was read, new, changed and rejected, and what a person should know of it."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from recgraph.store.columns import GENERAL_REASON, Rejected
from recgraph.store.ingest.staging import Reading

ALARM = 0.2  # of the rows rejected: above, the report is an alarm and the command fails


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did. `users` are those of the files' events; `items_unlisted` of `items_new` are named by events only, so have no
    title; `rejects` are noted in the store with file, line and reason, and `rows_lost` of them are not in it (the others were kept without one
    value). `rows` is what the files hold; `items_off_sale` are those that a complete feed no longer lists.
    `readings` say what each file was taken for."""

    format: str
    files: int
    users: int
    items_new: int
    events_read: int
    events_new: int
    exposures_new: int
    rejects: int
    seconds: float
    items_changed: int = 0
    items_unlisted: int = 0
    items_off_sale: int = 0
    rows: int = 0
    rows_lost: int = 0
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()

    @property
    def share_lost(self) -> float:
        """The share of the rows that are not in the store."""
        return self.rows_lost / self.rows if self.rows else 0.0

    @property
    def alarming(self) -> bool:
        """Whether so many rows were rejected that something is wrong with the files or with how they are read."""
        return self.share_lost > ALARM


def count_rejects(cursor: duckdb.DuckDBPyConnection) -> tuple[int, tuple[Rejected, ...]]:
    """Of `stage_rejects`: how many rows are lost, and all of them by reason, the most frequent first."""
    rows = cursor.execute(
        f"""SELECT {GENERAL_REASON} AS general, count(*) AS n, count(*) FILTER (NOT contains(reason, '; the item was kept')),
                arg_min(parse_filename(source) || ':' || line, (source, line)) FROM stage_rejects GROUP BY general ORDER BY n DESC, general"""  # noqa: S608 - a constant
    ).fetchall()
    return sum(int(row[2]) for row in rows), tuple(Rejected(str(row[0]), int(row[1]), str(row[3])) for row in rows)
