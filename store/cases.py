"""What there is to predict: the purchases of a shop (where it has none, every event with an item), each with the search that led to it.

Which of them are learnt from and which are held out is decided in `train/prepare.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from recgraph.store.db import Store

VISIT = timedelta(hours=24)  # a search longer ago belongs to an earlier visit, though the shop may still credit it with the purchase
Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Targets:
    """n events to predict, ordered by (user_id, ts, seq), column by column.

    `asked` is when the search that led to it was made, NaT where none did; `query` is that search's, "" where none did.
    """

    user_id: npt.NDArray[np.object_]
    seq: npt.NDArray[np.int32]
    ts: Times
    item_id: npt.NDArray[np.object_]
    query: npt.NDArray[np.object_]
    asked: Times


def targets(store: Store) -> Targets:
    """Every target of a store.

    The search that led to it is the user's latest with the event's own query, at most VISIT before it. A shop that logs queries with its
    events but no searches keeps the query, without a time of asking.
    """
    kinds = store.counts()
    wanted = "action = 'purchase'" if kinds["purchases"] else "item_id <> ''"
    columns = store._columns(
        f"""SELECT t.user_id, t.seq, t.ts, t.item_id,
                CASE WHEN s.ts >= t.ts - to_seconds(?) OR ? THEN t.query ELSE '' END AS query,
                CASE WHEN s.ts >= t.ts - to_seconds(?) THEN s.ts END AS asked
            FROM (SELECT * FROM events WHERE {wanted}) t
            ASOF LEFT JOIN (SELECT user_id, query, ts FROM events WHERE action = 'search' AND query <> '') s
                ON t.user_id = s.user_id AND t.query = s.query AND t.ts >= s.ts
            ORDER BY t.user_id, t.ts, t.seq""",  # noqa: S608 - wanted is one of two constants
        [VISIT.total_seconds(), not kinds["searches"], VISIT.total_seconds()],
    )
    asked = columns["asked"]
    times: Times = np.asarray(asked.filled(np.datetime64("NaT")) if isinstance(asked, np.ma.MaskedArray) else asked).astype("datetime64[us]")
    return Targets(
        user_id=_plain(columns["user_id"]),
        seq=_plain(columns["seq"]).astype(np.int32),
        ts=_plain(columns["ts"]).astype("datetime64[us]"),
        item_id=_plain(columns["item_id"]),
        query=_plain(columns["query"]),
        asked=times,
    )


def searches(store: Store) -> tuple[list[str], Times, list[str]]:
    """Every search with words, ordered by user and time: user_id, ts, query."""
    columns = store._columns("SELECT user_id, ts, query FROM events WHERE action = 'search' AND query <> '' ORDER BY user_id, ts, seq")
    return _plain(columns["user_id"]).tolist(), _plain(columns["ts"]).astype("datetime64[us]"), _plain(columns["query"]).tolist()


def span(store: Store) -> tuple[datetime, datetime] | None:
    """Time of the first and of the last event; None without events."""
    first, last = store._all("SELECT min(ts), max(ts) FROM events")[0]
    return None if first is None else (first, last)


def listed_since(store: Store) -> Times:
    """datetime64[n items] in catalogue order: since when each could be shown, as the source says; 1970 where it does not say.

    Unlike `Catalogue.first_seen`, which then is the item's first event: that could be the very one to be predicted.
    """
    columns = store._columns("SELECT CASE WHEN first_seen_given THEN first_seen ELSE TIMESTAMP '1970-01-01' END AS since FROM items ORDER BY item_id")
    return _plain(columns["since"]).astype("datetime64[us]")


def _plain(column: Any) -> npt.NDArray[Any]:
    return np.asarray(column.data if isinstance(column, np.ma.MaskedArray) else column)
