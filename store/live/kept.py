"""What answers read of a store again and again, kept in memory: products, histories, summaries.

It follows the store: at each look it asks for the revision, which costs microseconds as long as nobody can have
written, and drops what changed since, so that an answer reads what another process has just written. Where all may
have changed, as after a shopper was forgotten, it drops everything. What is kept is bounded; who reads it is unknown
here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from recgraph.store.db import Store
from recgraph.store.live.ahead import histories
from recgraph.store.records import Event, Item, Summary

ITEMS, EVENTS, SUMMARIES = 20_000, 100_000, 2_000  # that are kept, some 20 MB of each at most
Value = TypeVar("Value")


class _Latest(Generic[Value]):
    """The values that were asked for last, by key, as many as weigh `most` together; one is always kept."""

    def __init__(self, most: int, weight: Callable[[Value], int] = lambda value: 0) -> None:
        """Each weighs one more than `weight` says: an empty one, of a shopper who is new, is not for nothing."""
        self.most, self.weight, self.total = most, weight, 0
        self.values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def put(self, key: str, value: Value) -> None:
        self.drop(key)
        self.values[key] = value
        self.total += 1 + self.weight(value)
        while self.total > self.most and len(self.values) > 1:
            self.drop(next(iter(self.values)))

    def drop(self, key: str) -> None:
        if key in self.values:
            self.total -= 1 + self.weight(self.values.pop(key))

    def clear(self) -> None:
        self.values.clear()
        self.total = 0


_Histories = Mapping[int | None, Sequence[Event]]  # of one user, by their limit


def _events(histories: _Histories) -> int:
    return sum(len(events) for events in histories.values())


class KeptReader:
    """Reads of one store, each from memory where it is there. Thread-safe. Not for use inside a transaction."""

    def __init__(self, store: Store, forget: Callable[[], None] = lambda: None) -> None:
        """`forget` is called when everything is dropped: for others who keep what shoppers said."""
        self._store, self._forget, self._lock = store, forget, threading.Lock()
        self._revision = ""
        self._offered: int | None = None
        self._items = _Latest[Item](ITEMS)
        self._histories = _Latest[_Histories](EVENTS, _events)
        self._bought = _Latest[Sequence[str]](EVENTS, len)
        self._summaries = _Latest[Summary](SUMMARIES)

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """As `Store.items`."""
        revision = self._followed()
        with self._lock:
            kept = {item_id: self._items.get(item_id) for item_id in item_ids}
        missing = [item_id for item_id, item in kept.items() if item is None]
        read = self._store.items(missing) if missing else {}
        self._keep(revision, self._items, read)
        return {item_id: found for item_id, item in kept.items() if (found := item or read.get(item_id)) is not None}

    def offered(self, before: datetime | None = None) -> int:
        """As `Store.offered`; the number of now is kept."""
        if before is not None:
            return self._store.offered(before)
        revision = self._followed()
        offered = self._offered
        if offered is None:
            offered = self._store.offered()
            with self._lock:
                if revision == self._revision:
                    self._offered = offered
        return offered

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]:
        """As `Store.history`; those up to now are kept."""
        if before is not None:
            return self._store.history(user_id, before, limit)
        revision = self._followed()
        with self._lock:
            kept = self._histories.get(user_id) or {}
        if limit not in kept:
            kept = {**kept, limit: tuple(self._store.history(user_id, None, limit))}
            self._keep(revision, self._histories, {user_id: kept})
        return list(kept[limit])

    def read_ahead(self, user_ids: Sequence[str], limit: int) -> None:
        """Reads in one go what answers to these users begin with: their histories, the newest `limit`, and the products
        in them. What they hold together should be less than is kept."""
        revision = self._followed()
        read = histories(self._store, user_ids, limit)
        kept: dict[str, dict[int | None, tuple[Event, ...]]] = {
            user_id: {limit: tuple(events)} for user_id, events in read.items()
        }
        self._keep(revision, self._histories, kept)
        self.items(list({event.item_id for events in read.values() for event in events if event.item_id}))

    def bought(self, user_id: str, before: datetime | None = None) -> list[str]:
        """As `Store.bought`; up to now it is kept."""
        if before is not None:
            return self._store.bought(user_id, before)
        revision = self._followed()
        with self._lock:
            kept = self._bought.get(user_id)
        if kept is None:
            kept = tuple(self._store.bought(user_id))
            self._keep(revision, self._bought, {user_id: kept})
        return list(kept)

    def summary(self, input_hash: str) -> Summary | None:
        """As `Store.summary`, and those of `made`."""
        revision = self._followed()
        with self._lock:
            kept = self._summaries.get(input_hash)
        if kept is None and (kept := self._store.summary(input_hash)) is not None:
            self._keep(revision, self._summaries, {input_hash: kept})
        return kept

    def made(self, summaries: Sequence[Summary]) -> None:
        """Summaries that were just made, which may not be in the store yet."""
        self._keep(self._followed(), self._summaries, {one.input_hash: one for one in summaries})

    def _followed(self) -> str:
        """The store's revision, of which all that is kept now is."""
        revision = self._store.revision()
        if revision == self._revision:
            return revision
        with self._lock:
            if revision != self._revision:
                changes = self._store.changes_since(self._revision) if self._revision else None
                if changes is None or changes.item_ids:
                    self._offered = None
                if changes is None:
                    for kept in (self._items, self._histories, self._bought, self._summaries):
                        kept.clear()
                    if self._revision:
                        self._forget()
                else:
                    for item_id in changes.item_ids:
                        self._items.drop(item_id)
                    for user_id, _ in changes.events:
                        self._histories.drop(user_id)
                        self._bought.drop(user_id)
                self._revision = changes.revision if changes is not None else revision
            return self._revision

    def _keep(self, revision: str, where: _Latest[Value], values: Mapping[str, Value]) -> None:
        """Not where another thread has followed the store further meanwhile: these may be the old ones."""
        with self._lock:
            if revision == self._revision:
                for key, value in values.items():
                    where.put(key, value)
