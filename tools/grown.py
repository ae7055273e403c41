"""What was fitted to a catalogue, for a catalogue to which products were added: an index with more rows, and sources
that know only the first ones. Nothing that was fitted is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recgraph.tools.index import Mask, Rows, VectorIndex, Vectors
from recgraph.tools.sources.base import Request, Said, Scores, Source

_TIE_DIGITS = 5  # as in tools/index.py


class GrownIndex(VectorIndex):
    """An index and the vectors of a few rows more: new ones behind its own, or others in place of its own. They are
    compared one by one; the moments stay those of the old vectors."""

    def __init__(self, base: VectorIndex, keys: Sequence[str], more: Mapping[int, Vectors]) -> None:
        """`keys` are those of the new rows, if `base` has any; `more` has float32[d] by row, a zero one for a new row
        of which nothing is known."""
        self._new_keys: list[str] = [*base._new_keys, *keys] if isinstance(base, GrownIndex) else list(keys)
        self._more: dict[int, Vectors] = {**base._more, **more} if isinstance(base, GrownIndex) else dict(more)
        self._base: VectorIndex = base._base if isinstance(base, GrownIndex) else base
        self._at: Rows = np.array(sorted(self._more), np.int64)
        self._told = np.array([self._more[row] for row in self._at.tolist()], np.float32).reshape(-1, self._base.dim)
        n = len(self._base)
        self._keys, self._lists = None, None
        self._size = max(n + len(self._new_keys), int(self._at.max(initial=-1)) + 1)
        self._mine: Mask = np.ones(n, np.bool_)  # of the base's rows
        self._mine[self._at[self._at < n]] = False
        self.known = np.concatenate([self._base.known & self._mine, np.zeros(self._size - n, np.bool_)])
        self.known[self._at] = self._told.any(axis=1)
        self.exact, self.n_known = self._base.exact, int(self.known.sum())

    def __len__(self) -> int:
        return self._size

    @property
    def dim(self) -> int:
        return self._base.dim

    @cached_property
    def keys(self) -> Sequence[str]:
        return (*self._base.keys, *self._new_keys)

    def row(self, key: str) -> int | None:
        row = self._base.row(key)
        if row is None and key in self._new_keys:
            row = len(self._base) + self._new_keys.index(key)
        return row

    def vectors(self, rows: Rows | Sequence[int] | int) -> Vectors:
        asked = np.asarray(rows, np.int64)
        if not len(self._base):
            found = np.zeros((*asked.shape, self.dim), np.float32)
        else:
            found = np.array(self._base.vectors(np.minimum(asked, len(self._base) - 1)), np.float32)
        found[asked >= len(self._base)] = 0.0
        if len(self._at):
            place = np.minimum(np.searchsorted(self._at, asked), len(self._at) - 1)
            there = self._at[place] == asked
            found[there] = self._told[place[there]]
        return found

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._base.moments

    def products(self, queries: Vectors) -> Vectors:
        found = np.zeros((len(queries), self._size), np.float32)
        found[:, : len(self._base)] = self._base.products(queries)
        found[:, self._at] = queries @ self._told.T
        return found

    def nearest(self, query: Vectors, k: int, allowed: Mask | None = None) -> tuple[Rows, Vectors]:
        n = len(self._base)
        mine = self._mine if allowed is None else self._mine & allowed[:n]
        rows, scores = self._base.nearest(query, k, None if allowed is None and mine.all() else mine)
        if not query.any() or k <= 0:
            return rows, scores
        may = self.known[self._at] if allowed is None else self.known[self._at] & allowed[self._at]
        more = np.round(self._told[may] @ query, _TIE_DIGITS)
        rows, scores = np.concatenate([rows, self._at[may]]), np.concatenate([scores, more]).astype(np.float32)
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]


class FirstRows:
    """A source that was made of the first `n` rows of a longer catalogue: of the others it says nothing, and reads
    nothing of a request."""

    def __init__(self, source: Source, n: int) -> None:
        self.source: Source = source.source if isinstance(source, FirstRows) else source
        self.n: int = source.n if isinstance(source, FirstRows) else n

    def ask(self, asked: Sequence[Request]) -> Said:
        """What the source says of its own rows."""
        return _OfFirstRows(self.source.ask([self._known(one) for one in asked]), self.n)

    def _known(self, asked: Request) -> Request:
        held = tuple(one for one in asked.memory if one[0] < self.n)
        predicted = None if asked.predicted is None or asked.predicted >= self.n else asked.predicted
        if len(held) == len(asked.memory) and predicted == asked.predicted and (asked.history < self.n).all():
            return asked
        return replace(asked, history=asked.history[asked.history < self.n], memory=held, predicted=predicted)


class _OfFirstRows:
    def __init__(self, said: Said, n: int) -> None:
        self._said, self._n = said, n
        self.mean, self.deviation = said.mean, said.deviation

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        return self._said.first(line, depth, None if may is None else may[: self._n])

    def at(self, rows: Rows) -> Scores:
        known = rows < self._n
        found = self._said.at(np.where(known, rows, 0))
        return np.where(known, found, self.mean[:, None]).astype(np.float32)
