"""What the store hands out in bulk: whole columns as lists and numpy arrays, how they are read, and one line about a
user.

Reading goes from DuckDB's columns to numpy's: nothing is made in Python for each row but its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class UserRow:
    """One user in short: number of events and purchases, time of the first and the last event."""

    user_id: str
    events: int
    purchases: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Catalogue:
    """All n items in item_id order, column by column. `titles` as stored, `names` as shown; `first_seen` is 1970 where
    unknown. What is not `listed` is known by events alone and never recommended."""

    item_ids: Sequence[str]
    titles: Sequence[str]
    names: Sequence[str]
    parent_ids: Sequence[str]
    categories: Sequence[str]
    first_seen: npt.NDArray[np.datetime64]
    in_stock: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]

    @property
    def offered(self) -> npt.NDArray[np.bool_]:
        """What may be recommended."""
        return self.in_stock & self.listed


@dataclass(frozen=True)
class Sequences:
    """All events with an item, ordered by (user, ts, seq). `item` counts in catalogue order; `action` is 0 click, 1
    cart, 2 purchase.

    `user` counts from 0 in the order of `user_ids`, the users that have such events.
    """

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    ts: npt.NDArray[np.datetime64]
    action: npt.NDArray[np.int8]
    user_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of a source file that was not loaded, with the reason."""

    source: str
    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Rejected:
    """Rows rejected for one reason, and where the first of them stands: "events.csv:3"."""

    reason: str
    count: int
    example: str


# SQL: a reason without the values it names, so that equal ones are counted together; the name of an event says what is
# wrong with it.
GENERAL_REASON = (
    "CASE WHEN starts_with(reason, 'action ') THEN reason ELSE regexp_replace(reason, '''[^'']*''', '…') END"
)


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# As `Item.name` is put together (store/records.py).
_UNTITLED = """
    SELECT if(words <> '', words || ' (untitled product ' || item_id || ')', 'untitled product ' || item_id) AS name FROM
        (SELECT item_id, concat_ws(' ', nullif(color, ''), nullif(brand, ''), nullif(category, '')) AS words
         FROM items WHERE title = '') ORDER BY item_id
"""


def read_catalogue(cursor: duckdb.DuckDBPyConnection) -> Catalogue:
    """The whole catalogue; 2.4 million products share the text of equal categories and styles, and names that are
    titles."""
    columns = cursor.execute(
        """SELECT item_id, title, category, parent_id, coalesce(first_seen, TIMESTAMP '1970-01-01') AS first_seen, in_stock, listed
           FROM items ORDER BY item_id"""
    ).fetchnumpy()
    titles = _plain(columns["title"]).tolist()
    names, untitled = list(titles), [place for place, title in enumerate(titles) if not title]
    if untitled:
        for place, name in zip(untitled, _plain(cursor.execute(_UNTITLED).fetchnumpy()["name"]).tolist(), strict=True):
            names[place] = name
    return Catalogue(
        item_ids=_plain(columns["item_id"]).tolist(),
        titles=titles,
        names=names,
        parent_ids=_shared(columns["parent_id"]),
        categories=_shared(columns["category"]),
        first_seen=_plain(columns["first_seen"]).astype("datetime64[us]"),
        in_stock=_plain(columns["in_stock"]).astype(np.bool_),
        listed=_plain(columns["listed"]).astype(np.bool_),
    )


def read_sequences(cursor: duckdb.DuckDBPyConnection, before: datetime) -> Sequences:
    """Every event with an item before a moment."""
    columns = cursor.execute(
        """SELECT (dense_rank() OVER (ORDER BY user_id) - 1)::INTEGER AS "user", place.number AS item, ts,
               (CASE action WHEN 'click' THEN 0 WHEN 'cart' THEN 1 ELSE 2 END)::TINYINT AS action
           FROM events JOIN (SELECT item_id, (row_number() OVER (ORDER BY item_id) - 1)::INTEGER AS number FROM items) place USING (item_id)
           WHERE action <> 'search' AND ts < ? ORDER BY user_id, ts, seq""",
        [before],
    ).fetchnumpy()
    users = cursor.execute(
        "SELECT DISTINCT user_id FROM events WHERE action <> 'search' AND ts < ? ORDER BY user_id", [before]
    ).fetchnumpy()
    return Sequences(
        user=_plain(columns["user"]).astype(np.int32),
        item=_plain(columns["item"]).astype(np.int32),
        ts=_plain(columns["ts"]).astype("datetime64[us]"),
        action=_plain(columns["action"]).astype(np.int8),
        user_ids=_plain(users["user_id"]).tolist(),
    )


def _plain(column: Any) -> npt.NDArray[Any]:
    """DuckDB hands out masked arrays where a column could be NULL; ours cannot."""
    return np.asarray(column.data if isinstance(column, np.ma.MaskedArray) else column)


def _shared(column: Any) -> list[str]:
    """The texts of a column, equal ones as one object."""
    seen: dict[str, str] = {}
    return [seen.setdefault(text, text) for text in _plain(column).tolist()]
