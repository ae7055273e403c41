"""Which products of a catalogue fit a wish: its attributes as columns of codes, in catalogue order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recgraph.store.db import Store
from recgraph.tools.wish.wish import Wish

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

# What `Facets.features` says of an item: shares of the named parts, of the soft ones and of the free words that fit.
FEATURES = ("named", "soft", "text")


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A hard part of a wish that could give way ("under 60", "size 42"), and how many more products that would bring."""

    part: str
    more: int


class Facets:
    """What is known of a catalogue's products beside their titles. Thread-safe: nothing in it changes."""

    n_items: int

    @classmethod
    def of(cls, store: Store) -> Facets:
        """Of the store's whole catalogue, in its order (item_id)."""
        raise NotImplementedError

    def may(self, wish: Wish) -> Mask:
        """bool[items]: for which products the hard parts hold. What is not known of a product does not hold: without a
        price it is under no bound; it is avoided only where it is known to be what is avoided."""
        raise NotImplementedError

    def fits(self, wish: Wish) -> NDArray[np.int8]:
        """int8[items]: how many of the named attributes (`Wish.named`) a product fits."""
        raise NotImplementedError

    def features(self, wish: Wish, rows: Rows) -> NDArray[np.float32]:
        """float32[len(rows), len(FEATURES)], each between 0 and 1; 0 for a part that is not asked for."""
        raise NotImplementedError

    def relaxations(self, wish: Wish, offered: Mask) -> tuple[Relaxation, ...]:
        """The hard parts without which more of what is `offered` would fit, the one that brings most first."""
        raise NotImplementedError
