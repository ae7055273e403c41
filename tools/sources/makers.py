"""Makers as a source of candidates: whose items follow whose, and which of a maker's are taken most. A maker is read
off the beginning of names (tools/sources/words.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recgraph.tools.sources.base import Mask, Past, Request, Rows, Said, Scores
from recgraph.tools.sources.said import highest, moments
from recgraph.tools.sources.sums import LARGE, Line, added, looked_up, strongest, weighted
from recgraph.tools.sources.transitions import scaled, transition_counts
from recgraph.tools.sources.words import makers

_WHOLE = 30_000  # items of reached makers: so many are looked at, all of them
_READ, _OF_ONE = 10_000, 1_000  # where there are more: so many, the best makers' first, and of one maker
_FIRST = 100  # makers that usually have so many
_FOLLOWERS = 200  # makers that are kept of each one of a large catalogue


@dataclass(frozen=True)
class MakerSettings:
    """`recency` as in TransitionSettings; an item has its count^`share` of what its maker gets, whose steps are divided
    by (the number into it)^`into`."""

    recency: float = 0.8
    share: float = 0.5
    into: float = 0.2


class Shares:
    """Each item's maker and its share of what the maker gets; `order` are the items maker by maker, the largest share
    first, those of maker m from `starts`[m] on."""

    def __init__(self, maker: Rows, share: Scores, order: Rows) -> None:
        self.maker, self.share, self.order = maker, share, order
        self.starts: Rows = np.searchsorted(maker[self.order], np.arange(maker.max(initial=-1) + 2))
        wide = share.astype(np.float64)
        self.total = np.bincount(maker, wide)
        self.squares = np.bincount(maker, wide**2)


class MakerTransitions:
    """Which makers' items follow which makers', and how often an item is taken of its maker's."""

    def __init__(self, past: Past, settings: MakerSettings | None = None) -> None:
        s = self._settings = settings or MakerSettings()
        maker = past.kept.array("makers", lambda: makers(past.names))
        n = int(maker.max(initial=0)) + 1
        count = (np.bincount(past.events.item, minlength=past.n_items) + 0.5) ** s.share
        share = (count / np.bincount(maker, count, n)[maker] ** 0.5).astype(np.float32)
        order = past.kept.array(f"makers-order-{s.share}", lambda: np.lexsort((-share, maker)))
        self._shares = Shares(maker, share, order)
        self._steps = past.kept.sparse(f"maker-steps-{s.into}", lambda: _steps(past, maker, n, s.into))

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for items of makers that never followed."""
        gets = []
        for one in asked:
            rows, weights = one.read(self._settings.recency)
            looked_at = added(self._shares.maker[rows], weights, self._steps.shape[0])
            gets.append(weighted(looked_at, self._steps))
        return OfMakers(gets, self._shares)


def _steps(past: Past, maker: Rows, n: int, into: float) -> sp.csr_matrix:
    """float32[makers, makers]: how far the items of one follow those of another."""
    of = sp.csr_matrix((np.ones(len(maker), np.float32), (np.arange(len(maker)), maker)), shape=(len(maker), n))
    steps = (of.T @ transition_counts(past.events, past.n_items) @ of).tocsr()
    weight = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -into
    table = scaled(steps @ sp.diags(weight), 1.0, 0.0).astype(np.float32)
    return strongest(table, _FOLLOWERS) if past.n_items > LARGE else table


class OfMakers:
    """What each request's makers get, times an item's share of it."""

    def __init__(self, gets: Sequence[Line], shares: Shares) -> None:
        self.gets, self.shares = gets, shares
        items = max(len(shares.maker), 1)
        wide = [(makers, value.astype(np.float64)) for makers, value in gets]
        mean = np.array([value @ shares.total[makers] for makers, value in wide]) / items
        square = np.array([value**2 @ shares.squares[makers] for makers, value in wide]) / items
        self.mean, self.deviation = moments(mean, square - mean**2, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        """Exact where the reached makers have no more than _WHOLE items; else the most taken of the best makers are
        looked at."""
        makers, gets = self.gets[line]
        begin, size = self.shares.starts[makers], self.shares.starts[makers + 1] - self.shares.starts[makers]
        best = np.arange(len(makers))
        if size.sum() > _WHOLE:
            size = np.minimum(size, _OF_ONE)
            best = self._first(gets * self.shares.share[self.shares.order[begin]], size)
            size = size[best]
            size = np.minimum(size, np.maximum(_READ - (np.cumsum(size) - size), 0))
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows = self.shares.order[np.repeat(begin[best], size) + place]
        scores = (np.repeat(gets[best], size) * self.shares.share[rows]).astype(np.float32)
        high = scores > self.mean[line]
        if may is not None:
            high &= may[rows]
        return highest(rows[high], scores[high], depth)

    def _first(self, scores: Scores, size: Rows) -> Rows:
        """The places of the highest scores, best first, so many that their sizes add up to _READ."""
        few = highest(np.arange(len(scores)), scores, _FIRST)
        return few if size[few].sum() >= _READ else highest(np.arange(len(scores)), scores, len(scores))

    def at(self, rows: Rows) -> Scores:
        found = np.zeros(rows.shape, np.float32)
        for line, asked in enumerate(rows):
            maker = self.shares.maker[asked]
            found[line] = looked_up(self.gets[line], maker, len(self.shares.total)) * self.shares.share[asked]
        return found
