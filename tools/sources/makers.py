"""Makers as a source of candidates: whose items follow whose, and which of a maker's are taken most. A maker is read
off the beginning of names (tools/sources/words.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.tools.sources.base import Mask, Past, Request, Rows, Said, Scores, read
from recgraph.tools.sources.said import highest, moments
from recgraph.tools.sources.sums import LARGE, strongest, weighted
from recgraph.tools.sources.transitions import scaled, transition_counts
from recgraph.tools.sources.words import makers

_READ = 30_000  # items of reached makers that are looked at, those of the best first
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
        history = read(asked, len(self._shares.maker), self._settings.recency)
        of = sp.csr_matrix(
            (history.data, self._shares.maker[history.indices], history.indptr),
            shape=(len(asked), self._steps.shape[0]),
        )
        of.sum_duplicates()
        return OfMakers(weighted(of, self._steps), self._shares)


def _steps(past: Past, maker: Rows, n: int, into: float) -> sp.csr_matrix:
    """float32[makers, makers]: how far the items of one follow those of another."""
    of = sp.csr_matrix((np.ones(len(maker), np.float32), (np.arange(len(maker)), maker)), shape=(len(maker), n))
    steps = (of.T @ transition_counts(past.events, past.n_items) @ of).tocsr()
    weight = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -into
    table = scaled(steps @ sp.diags(weight), 1.0, 0.0).astype(np.float32)
    return strongest(table, _FOLLOWERS) if past.n_items > LARGE else table


class OfMakers:
    """What each request's makers get, csr float32[n, makers], times an item's share of it."""

    def __init__(self, gets: sp.csr_matrix, shares: Shares) -> None:
        gets.sort_indices()
        self.gets, self.shares = gets, shares
        n, items = gets.shape[0], max(len(shares.maker), 1)
        line, value = np.repeat(np.arange(n), np.diff(gets.indptr)), gets.data.astype(np.float64)
        mean = np.bincount(line, value * shares.total[gets.indices], n) / items
        square = np.bincount(line, value**2 * shares.squares[gets.indices], n) / items
        self.mean, self.deviation = moments(mean, square - mean**2, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        """Exact where the reached makers have no more than _READ items; else those of the best makers are looked at."""
        makers, gets = self._of(line)
        begin, end = self.shares.starts[makers], self.shares.starts[makers + 1]
        best = np.argsort(-gets * self.shares.share[self.shares.order[begin]], kind="stable")
        size = (end - begin)[best]
        size = np.minimum(size, np.maximum(_READ - (np.cumsum(size) - size), 0))
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows = self.shares.order[np.repeat(begin[best], size) + place]
        scores = (np.repeat(gets[best], size) * self.shares.share[rows]).astype(np.float32)
        high = scores > self.mean[line]
        if may is not None:
            high &= may[rows]
        return highest(rows[high], scores[high], depth)

    def at(self, rows: Rows) -> Scores:
        found = np.zeros(rows.shape, np.float32)
        for line, asked in enumerate(rows):
            makers, gets = self._of(line)
            if len(makers):
                maker = self.shares.maker[asked]
                place = np.minimum(np.searchsorted(makers, maker), len(makers) - 1)
                found[line] = np.where(makers[place] == maker, gets[place], 0.0) * self.shares.share[asked]
        return found

    def _of(self, line: int) -> tuple[NDArray[np.int64], Scores]:
        begin, end = self.gets.indptr[line], self.gets.indptr[line + 1]
        return self.gets.indices[begin:end], self.gets.data[begin:end]
