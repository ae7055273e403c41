"""How much a product is like a shopper's history, attribute by attribute: their sizes, colours, makers, prices.

The history is rows of products, oldest first; who the shopper is and how much all this counts is unknown here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recgraph.tools.wish.facets import Facets

Rows = NDArray[np.int64]
Numbers = NDArray[np.float32]

ATTRIBUTES = ("category", "brand", "color", "size", "department")
# What `taste` says of an item: the shares of the history that say the same of each attribute; the share of its size
# among what is of its category, for shoes have others than shirts; how near its price is to those of the history.
TASTES = (*ATTRIBUTES, "size in its category", "price")
_HISTORY = 50  # products of a history that are read, the newest
_RECENCY = 0.95  # weight of one against the one after it
_DOUBLED = np.log(2.0)


def taste(facets: Facets, history: Rows, rows: Rows) -> Numbers:
    """float32[len(rows), len(TASTES)], each between 0 and 1; 0 where nothing is known of the item or the history."""
    found = np.zeros((len(rows), len(TASTES)), np.float32)
    seen = history[-_HISTORY:]
    if not len(seen):
        return found
    weight = _RECENCY ** np.arange(len(seen) - 1, -1, -1.0)
    same: dict[str, NDArray[np.bool_]] = {}
    for place, name in enumerate(ATTRIBUTES):
        if name in facets.attributes:
            codes = facets.attributes[name].column.codes
            said = codes[seen] != 0
            same[name] = (codes[rows][:, None] == codes[seen]) & said
            found[:, place] = _share(same[name], np.broadcast_to(weight * said, same[name].shape))
    if {"category", "size"} <= same.keys():
        kind = weight * same["category"]
        found[:, len(ATTRIBUTES)] = _share(same["size"], kind)
    found[:, -1] = _nearness(facets.prices[rows], facets.prices[seen], weight)
    return found


def _share(holds: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n]: of the weights float64[n, m] the share where it holds."""
    return np.asarray((holds * weights).sum(1) / np.maximum(weights.sum(1), 1e-9))


def _nearness(prices: Numbers, seen: Numbers, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n]: 1 at the history's mean price, a half at double or half of it; 0 without a price."""
    known = seen > 0
    if not known.any():
        return np.zeros(len(prices))
    mean = np.average(np.log(seen[known]), weights=weight[known])
    there = prices > 0
    apart = np.abs(np.log(np.where(there, prices, 1.0)) - mean) / _DOUBLED
    return np.asarray(np.where(there, 0.5**apart, 0.0))
