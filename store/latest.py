"""The latest that a store knows of: each user's newest event, and the newest of each search's results. It tells what was fitted on a store
until when it knows (train/leaks.py)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recgraph.store.connection import Terms
from recgraph.store.db import END_OF_TIME, Store

Columns = tuple[list[str], npt.NDArray[np.datetime64], list[str]]


def latest_events(store: Store, before: datetime | None = None) -> Columns:
    """(user_id, ts, item_id or query) of each user's newest event before a moment, by user."""
    return _read(
        store._columns(
            """SELECT user_id AS who, max(ts) AS ts, arg_max(CASE action WHEN 'search' THEN query ELSE item_id END, (ts, seq)) AS what
               FROM events WHERE ts < ? GROUP BY user_id ORDER BY user_id""",
            [before or END_OF_TIME],
        )
    )


def latest_learnt(store: Store, file: Path) -> Columns:
    """The same of the events that the rows of part `train` in a Parquet file name by user_id and seq (train/examples/stage.py)."""
    with store._database.opened_for(Terms(file.parent)):
        columns = store._columns(
            """SELECT user_id AS who, max(ts) AS ts, arg_max(CASE action WHEN 'search' THEN query ELSE item_id END, (ts, seq)) AS what
               FROM events SEMI JOIN (SELECT user_id, seq FROM read_parquet(?) WHERE part = 'train') USING (user_id, seq)
               GROUP BY user_id ORDER BY user_id""",
            [str(file.absolute())],
        )
    return _read(columns)


def searches_shown(store: Store, before: datetime | None = None) -> Columns:
    """("", ts, query) of each search whose results are known, before a moment. A shop without exposures has none."""
    return _read(
        store._columns("SELECT DISTINCT '' AS who, ts, query AS what FROM exposures WHERE ts < ? ORDER BY ts, query", [before or END_OF_TIME])
    )


def _read(columns: dict[str, Any]) -> Columns:
    return [str(one) for one in columns["who"]], np.asarray(columns["ts"]).astype("datetime64[us]"), [str(one) for one in columns["what"]]
