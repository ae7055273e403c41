"""What a fitted part has seen, kept beside what was made of it as evidence.parquet: of each user the newest event in
the very data it read.

`fitted_before` in a part's own facts says what it was told to keep to; this says what it did. Equal evidence gives
equal bytes. Whether a part may have seen it is judged in train/leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recgraph.store.columns import Sequences
from recgraph.store.db import Store
from recgraph.store.latest import latest_events, latest_learnt, searches_shown
from recgraph.store.parquet import read_table, write_table
from recgraph.train.pipeline import needed
from recgraph.train.prepare import Case

Times = NDArray[np.datetime64]
FILE = "evidence.parquet"
_ALWAYS = np.datetime64("9000-01-01", "us")


@dataclass(frozen=True)
class Seen:
    """What the part `piece`, made by `stage`, has seen: of each user in `user_id` the time `ts` of the newest event and
    what it was about, an item or a query. Where no user is named (""), it is what a search for `what` at `ts` showed,
    and all of those are listed; without a `what` it is whatever anybody did until then."""

    piece: str
    stage: str
    user_id: Sequence[str]
    ts: Times
    what: Sequence[str]


def of_sequences(piece: str, stage: str, events: Sequences, item_ids: Sequence[str]) -> Seen:
    """Of what is fitted on events with an item; `item_ids` is the catalogue's order."""
    order = np.lexsort((events.ts, events.user))
    last = order[np.flatnonzero(np.diff(events.user[order], append=-1))] if len(order) else order
    users, items = [events.user_ids[row] for row in events.user[last]], [item_ids[row] for row in events.item[last]]
    return Seen(piece, stage, users, events.ts[last], items)


def of_store(piece: str, stage: str, store: Store) -> Seen:
    """Of what is fitted on all of a store's events."""
    return Seen(piece, stage, *latest_events(store))


def of_memory(piece: str, stage: str, store: Store, before: datetime | None = None) -> Seen:
    """Of a `QueryMemory` of a store as of `before`: what searches showed or, in a shop that does not log it, what they
    led to."""
    return Seen(piece, stage, *(searches_shown if store.counts()["exposures"] else latest_events)(store, before))


def of_cases(piece: str, stage: str, cases: Iterable[Case]) -> Seen:
    """Of what learns from cases, with their targets."""
    newest = {case.user_id: case for case in sorted(cases, key=lambda case: case.ts)}
    users = sorted(newest)
    return Seen(
        piece,
        stage,
        users,
        np.array([newest[one].ts for one in users], "datetime64[us]"),
        [newest[one].item_id for one in users],
    )


def of_told(piece: str, stage: str, fitted_before: str | None) -> Seen:
    """Of a part of which is known only that it may know everybody's events before a moment (ISO; None: all): a
    published CORE, an adapter."""
    last = _ALWAYS if fitted_before is None else np.datetime64(fitted_before, "us") - np.timedelta64(1, "us")
    return Seen(piece, stage, [""], np.array([last], "datetime64[us]"), [""])


def of_examples(store: Store, file: Path) -> Seen:
    """Of an adapter that learns from data/examples/<task>.parquet; `store` has all events."""
    return Seen(f"SFT examples ({file.stem})", "examples", *latest_learnt(store, file))


def keep(folder: Path, *pieces: Seen) -> None:
    """Writes evidence.parquet into a folder; the same evidence gives the same bytes."""
    users = [one for seen in pieces for one in seen.user_id]
    write_table(
        folder / FILE,
        {
            "piece": [seen.piece for seen in pieces for _ in seen.user_id],
            "stage": [seen.stage for seen in pieces for _ in seen.user_id],
            "user_id": users,
            "ts": np.concatenate([np.zeros(0, "datetime64[us]"), *(seen.ts for seen in pieces)]),
            "what": [one for seen in pieces for one in seen.what],
        },
    )


def kept(folder: Path, stage: str) -> list[Seen]:
    """What `keep` wrote; a part that saw no event at all is not in it. StoreError where there is no evidence."""
    columns = read_table(needed(folder / FILE, stage))
    rows: dict[tuple[str, str], list[int]] = {}
    for row, name in enumerate(zip(columns["piece"], columns["stage"], strict=True)):
        rows.setdefault(name, []).append(row)
    users, what = columns["user_id"], columns["what"]
    return [
        Seen(*name, [users[row] for row in here], columns["ts"][here], [what[row] for row in here])
        for name, here in rows.items()
    ]
