"""What was not chosen: the products that task FIT learns to answer with No.

`shown` ones stood on the result page that the shopper had before them, `alike` ones are of the target's category,
`random` ones any other, `hard` ones are among the first that the product itself would have shown (served.py). All
but the shown ones were on sale at the case's moment. None is of the target's style, nor of a style that the same
shopper took within the same visit: a second purchase of a search is no negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from recgraph.store.cases import VISIT, targets
from recgraph.store.db import Store
from recgraph.store.records import Event
from recgraph.tools.memory import MemoryHit
from recgraph.tools.retrieve import eligible
from recgraph.train.examples.served import Served
from recgraph.train.prepare import Case

POOLS = ("random", "alike", "shown", "hard")


class Negatives:
    """Draws the pools of cases, `pool` products of each kind where there are so many; what is drawn depends on the seed
    and the case alone. `hard` ones need what is `served`."""

    def __init__(self, store: Store, pool: int, seed: int, served: Served | None = None) -> None:
        self._store, self._pool, self._seed, self._served = store, pool, seed, served
        self._catalogue = catalogue = store.catalogue()
        self._ids = np.array(catalogue.item_ids)
        self._style = {
            item_id: parent or item_id for item_id, parent in zip(self._ids.tolist(), catalogue.parent_ids, strict=True)
        }
        self._category = np.array(catalogue.categories, dtype=object)
        self._row = {item_id: row for row, item_id in enumerate(self._ids.tolist())}
        self._taken: dict[str, list[tuple[np.datetime64, str]]] = {}
        found = targets(store)
        for user_id, moment, item_id in zip(found.user_id.tolist(), found.ts, found.item_id.tolist(), strict=True):
            self._taken.setdefault(user_id, []).append((moment, item_id))

    def of(self, case: Case, history: Sequence[Event], memory: Sequence[MemoryHit]) -> list[tuple[str, str]]:
        """(item_id, kind); no item twice."""
        draw = np.random.default_rng(int(sha256(self._name(case).encode()).hexdigest()[:12], 16))
        there = np.flatnonzero(eligible(self._catalogue, case.as_of))
        page = self._store.shown_at(case.query, case.as_of) if case.query else []
        row = self._row.get(case.item_id)
        alike = there[self._category[there] == self._category[row]] if row is not None else there[:0]
        first = self._served.first(case, history, memory) if self._served else []
        # The hard ones come last: what the other kinds are drawn from does not depend on a ranking.
        offers = {
            "shown": [page[place] for place in draw.permutation(len(page))],
            "alike": self._ids[draw.permutation(alike)].tolist(),
            "random": self._ids[draw.permutation(there)].tolist(),
            "hard": [first[place] for place in draw.permutation(len(first))],
        }
        chosen = self._chosen(case)
        found: dict[str, str] = {}
        for kind, offered in offers.items():
            left = self._pool
            for item_id in offered:
                if not left:
                    break
                if item_id not in found and self._style.get(item_id, item_id) not in chosen:
                    found[item_id] = kind
                    left -= 1
        return list(found.items())

    def _name(self, case: Case) -> str:
        return f"{self._seed}:pool:{case.user_id}:{case.seq}"

    def _chosen(self, case: Case) -> set[str]:
        """The styles of the target and of all that its shopper took in the same visit."""
        start, end = np.datetime64(case.as_of, "us"), np.datetime64(case.ts + VISIT, "us")
        near = (item_id for moment, item_id in self._taken.get(case.user_id, ()) if start <= moment <= end)
        return {self._style.get(item_id, item_id) for item_id in (case.item_id, *near)}
