"""The query-product memory of F 4.2: what shops showed for queries that mean nearly the same. It knows no user.

Keys are the embeddings of the distinct queries of the exposures, values their products by organic position. A memory is
built as of a time: nothing shown at or after it is found, so it cannot hold the very purchase that is to be predicted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from recgraph.store.db import Store
from recgraph.store.records import Item
from recgraph.tools.embed import Encoder, Progress, embed_until
from recgraph.tools.index import VectorIndex

_KEPT = 32  # products kept of each stored query: what a look-up of up to 5 needs; one of more asks the store


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """A stored query, its cosine to the one asked, and its top products by organic position."""

    query: str
    similarity: float
    item_ids: tuple[str, ...]


class QueryMemory:
    """Nearest stored queries and their products as of `before` (None: everything). Thread-safe.

    The stored queries are embedded, and what was shown for them is read, at the first look-up, not when the memory is
    made: a run without a query never pays for it. Exposures that come later belong to another memory.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        before: datetime | None = None,
        progress: Progress | None = None,
        items: Callable[[Sequence[str]], Mapping[str, Item]] | None = None,
    ) -> None:
        """`items` reads products, where somebody keeps them; else the store does."""
        self._store, self._encoder, self._before, self._progress = store, encoder, before, progress
        self._items = items or store.items
        self._lock = threading.Lock()
        self._index: VectorIndex | None = None
        self._shown: dict[str, list[str]] = {}  # by stored query
        self._spellings: dict[str, list[str]] = {}  # stored queries by what they are in any case
        self._unembedded = 0

    @classmethod
    def build(
        cls, store: Store, encoder: Encoder, before: datetime | None = None, progress: Progress | None = None
    ) -> QueryMemory:
        """A memory of what was shown strictly before `before`."""
        return cls(store, encoder, before, progress)

    @property
    def complete(self) -> bool:
        """Always: it goes on by itself, at a look-up with time left."""
        return True

    @property
    def unembedded(self) -> int:
        """How many stored queries are not in the index because the time was up; 0 before it was made."""
        return self._unembedded

    def warm(self, until: float | None = None) -> VectorIndex:
        """Embeds the stored queries (those the store has no vector of) and returns their index; later calls cost
        nothing.

        At `until` (`time.monotonic()`) the work ends, done or not; a later call with time left goes on with it."""
        with self._lock:
            if self._index is None or (self._unembedded and (until is None or time.monotonic() < until)):
                queries = sorted(self._store.memory_queries(self._before))
                # All at once, so that a search asks the store for none.
                self._shown = self._store.query_products(queries, self._before, _KEPT)
                self._spellings = {}
                for query in queries:
                    self._spellings.setdefault(query.casefold(), []).append(query)
                vectors, self._unembedded = embed_until(
                    until, self._store, self._encoder, "query", queries, self._progress
                )
                self._index = VectorIndex(queries, vectors.reshape(len(queries), self._encoder.dim))
            return self._index

    def lookup(self, query: str, queries: int = 3, products: int = 5, until: float | None = None) -> list[MemoryHit]:
        """The nearest `queries` (Q) stored queries, nearest first, each with its top `products` (V).

        The asked query itself, where it is stored, comes first whatever the encoder thinks of its script. Products that
        the catalogue does not have, had not yet or has no more are left out, and so is a query of which nothing
        remains. [] for an empty query, an empty memory, or Q or V of 0. `until` as in `warm`.
        """
        wanted = query.strip()
        if not wanted or queries < 1 or products < 1 or not (index := self.warm(until)).keys:
            return []
        same = self._spellings.get(wanted.casefold(), [])
        near = index.search(self._encoder.encode([wanted]), queries + len(same))[0]
        ranked = [(key, 1.0) for key in same] + [(key, score) for key, score in near if key not in same]
        ranked = ranked[:queries]
        # More than V are fetched so that sold-out or unknown products do not shorten the list.
        shown = self._products([key for key, _ in ranked], products * 4 + 10)
        known = self._items([item_id for ids in shown.values() for item_id in ids])
        hits = []
        for key, score in ranked:
            kept = [
                i
                for i in shown.get(key, [])
                if i in known and known[i].offered and self._was_there(known[i].first_seen)
            ]
            if kept:
                hits.append(MemoryHit(key, round(float(np.clip(score, -1.0, 1.0)), 4), tuple(kept[:products])))
        return hits

    def _products(self, queries: list[str], limit: int) -> dict[str, list[str]]:
        if limit > _KEPT:
            return self._store.query_products(queries, self._before, limit)
        return {query: self._shown.get(query, [])[:limit] for query in queries}

    def _was_there(self, first_seen: datetime | None) -> bool:
        return self._before is None or first_seen is None or first_seen < self._before
