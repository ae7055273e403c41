"""How often shoppers took each product, ever and lately, as of a moment: what fills a list that nothing else fills, and
what may be said of it.

Counts of events with a product, by what was done; who did it is not kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from recgraph.store.columns import Sequences
from recgraph.store.db import Store
from recgraph.tools.sources.kept import Built

POPULAR_DAYS = 30
MOST_POPULAR = 500  # products of which the order is kept
_CLOCK_STARTS = np.datetime64("1971-01-01", "us")  # earlier moments are event numbers (store/records.py)


@dataclass(frozen=True, slots=True)
class TakenItem:
    """Clicks, carts and purchases of one product: those of the POPULAR_DAYS up to the moment `lately` where there are
    some, else all there were (`lately` is None: so it is where events have no clock)."""

    clicks: int = 0
    carts: int = 0
    purchases: int = 0
    lately: datetime | None = None


@dataclass(frozen=True)
class Taken:
    """`popular` item_ids are those taken most lately, then ever, best first. `ever` and `recent` int32[items, 3] count
    clicks, carts, purchases; `moment` ends the days that count as recent, None without a clock."""

    popular: tuple[str, ...]
    ever: NDArray[np.int32]
    recent: NDArray[np.int32]
    moment: datetime | None

    @classmethod
    def of(
        cls, store: Store, sequences: Sequences, n_items: int, before: datetime | None, kept: Built | None = None
    ) -> Taken:
        """From the store and its sequences, both before the moment. What is `kept` of them is not counted again."""
        kept = kept or Built()
        newest = sequences.ts.max() if len(sequences.ts) else None
        moment: datetime | None = None
        lately = np.zeros(len(sequences.ts), np.bool_)
        if newest is not None and newest >= _CLOCK_STARTS:
            moment = before or newest.astype(datetime)
            lately = sequences.ts >= np.datetime64(moment - timedelta(days=POPULAR_DAYS), "us")
        popular = kept.array("popular", lambda: np.frombuffer(json.dumps(_popular(store, before)).encode(), np.uint8))
        return cls(
            tuple(json.loads(popular.tobytes())),
            kept.array("taken", lambda: _counts(sequences, n_items)),
            kept.array("taken-recent", lambda: _counts(sequences, n_items, lately)),
            moment,
        )

    def item(self, row: int | None) -> TakenItem:
        """Of the product in a row of the catalogue."""
        if row is None:
            return TakenItem()
        if self.moment is not None and self.recent[row].any():
            return _of(self.recent[row], self.moment)
        return _of(self.ever[row], None)


def _popular(store: Store, before: datetime | None) -> list[str]:
    recent = store.popular(before, days=float(POPULAR_DAYS), limit=MOST_POPULAR)
    return list(dict.fromkeys(item_id for item_id, _ in [*recent, *store.popular(before, limit=MOST_POPULAR)]))


def _of(counts: NDArray[np.int32], lately: datetime | None) -> TakenItem:
    clicks, carts, purchases = map(int, counts)
    return TakenItem(clicks, carts, purchases, lately)


def _counts(sequences: Sequences, n_items: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    cells = sequences.item.astype(np.int64) * 3 + sequences.action
    return (
        np.bincount(cells if among is None else cells[among], minlength=n_items * 3)
        .astype(np.int32)
        .reshape(n_items, 3)
    )
