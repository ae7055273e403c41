"""The kinds of what a source can say (`Said`, tools/sources/base.py): of few items, of vectors, the same to all
requests, or of each item. Which source says it is unknown here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recgraph.tools.index import VectorIndex, best
from recgraph.tools.sources.base import Mask, Rows, Said, Scores, Vectors
from recgraph.tools.sources.sums import Line, looked_up, weighted
from recgraph.tools.sources.words import Words

_LEAST = 1e-9  # a deviation below it is one of scores that are all alike
_FEW_POSTINGS = 500_000  # words of all names of a catalogue whose word lists are read whole
_POSTINGS = 10_000  # items in the lists that are read for a request in a larger one


class Sparse:
    """A score above 0 for few of `n_items` items of each request, 0 for all others: a line of them each."""

    def __init__(self, lines: Sequence[Line], n_items: int) -> None:
        self.lines, self.n_items = lines, n_items
        wide = [scores.astype(np.float64) for _, scores in lines]
        mean = np.array([scores.sum() for scores in wide]) / max(n_items, 1)
        # float64: the difference of the squares is small beside them
        square = np.array([scores @ scores for scores in wide]) / max(n_items, 1)
        self.mean, self.deviation = moments(mean, square - mean**2, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        rows, scores = self.lines[line]
        high = scores > self.mean[line]
        if may is not None:
            high &= may[rows]
        return highest(rows[high], scores[high], depth)

    def at(self, rows: Rows) -> Scores:
        found = [looked_up(line, asked, self.n_items) for line, asked in zip(self.lines, rows, strict=True)]
        return np.array(found, np.float32).reshape(rows.shape)


class Order:
    """A catalogue by one score float32[items] an item, made once for many requests: `ranked` are the rows above the
    mean, best first."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.mean, self.deviation = 0.0, 1.0
        if scores.any():
            self.mean = float(np.float32(scores.mean(dtype=np.float64)))
            self.deviation = max(float(scores.std(dtype=np.float64)), _LEAST)
        high = np.flatnonzero(scores > np.float32(self.mean))
        self.ranked: Rows = high[np.argsort(-scores[high], kind="stable")]


class Same:
    """One score an item, the same for all `n` requests."""

    def __init__(self, order: Order, n: int) -> None:
        self.order = order
        self.mean, self.deviation = np.full(n, order.mean, np.float32), np.full(n, order.deviation, np.float32)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        ranked, found, start, step = self.order.ranked, np.zeros(0, np.int64), 0, 4 * depth
        if may is None:
            return ranked[:depth]
        while len(found) < depth and start < len(ranked):  # what is allowed usually stands near the top
            part = ranked[start : start + step]
            found, start, step = np.concatenate([found, part[may[part]]]), start + step, 4 * step
        return found[:depth]

    def at(self, rows: Rows) -> Scores:
        return np.asarray(self.order.scores[rows], np.float32)


class Dense:
    """A score for each item, float32[n, items], -inf where the source cannot rank one. It costs what the catalogue is
    large: for a source that has no better way."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        known = np.isfinite(scores)
        count = np.maximum(known.sum(1), 1)
        held = np.where(known, scores, 0.0).astype(np.float64)
        mean = held.sum(1) / count
        off = np.where(known, held - mean[:, None], 0.0)
        self.mean, self.deviation = moments(mean, (off**2).sum(1) / count, np.asarray(held.any(1)))

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        high = self.scores[line] > self.mean[line]
        rows = np.flatnonzero(high if may is None else high & may)
        return highest(rows, self.scores[line, rows], depth)

    def at(self, rows: Rows) -> Scores:
        found = np.take_along_axis(self.scores, rows, 1)
        return np.where(np.isfinite(found), found, self.mean[:, None]).astype(np.float32)


class Near:
    """The inner product of a request's vector, float32[n, d], with those of an index. A zero vector says nothing, and
    of an item without a vector nothing is said."""

    def __init__(self, index: VectorIndex, vectors: Vectors) -> None:
        self.index, self.vectors = index, np.asarray(vectors, np.float32)
        told = np.asarray(self.vectors.any(1))
        mean, variance = np.zeros(len(told)), np.zeros(len(told))
        if told.any():
            wide = self.vectors[told].astype(np.float64)
            mean[told] = wide @ index.moments[0]
            variance[told] = ((wide @ index.moments[1]) * wide).sum(1)
        self.mean, self.deviation = moments(mean, variance, told)
        self._scores: Scores | None = None  # of an exact index: all of them at once, in one product

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        if not self.vectors[line].any():
            return np.zeros(0, np.int64)
        if self.index.exact:
            scores = self.all[line]
            high = (scores > self.mean[line]) & self.index.known
            return best(scores, np.flatnonzero(high if may is None else high & may), depth)[0]
        rows, scores = self.index.nearest(self.vectors[line], depth, may)
        return np.asarray(rows[scores > self.mean[line]], np.int64)

    def at(self, rows: Rows) -> Scores:
        if not self.vectors.any():
            return np.zeros(rows.shape, np.float32)
        if self._scores is not None:
            found = np.take_along_axis(self._scores, rows, 1)
        else:
            pairs = zip(rows, self.vectors, strict=True)
            found = np.array([self.index.vectors(row) @ one for row, one in pairs], np.float32).reshape(rows.shape)
        return np.where(self.index.known[rows], found, self.mean[:, None]).astype(np.float32)

    @property
    def all(self) -> Scores:
        """float32[n, items], 0 for what has no vector."""
        if self._scores is None:
            self._scores = self.index.products(self.vectors)
        return self._scores


class Led:
    """What another says, with an item of each request in front: it stands above all others, whatever is known of it.
    None leads nothing."""

    def __init__(self, others: Said, leads: Sequence[int | None]) -> None:
        self.others, self.leads = others, leads
        self.mean, self.deviation = others.mean, others.deviation

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        rows, lead = self.others.first(line, depth, may), self.leads[line]
        if lead is None or (may is not None and not may[lead]):
            return rows
        return np.append(np.int64(lead), rows[rows != lead])[:depth]

    def at(self, rows: Rows) -> Scores:
        found = self.others.at(rows)
        for line, lead in enumerate(self.leads):
            if lead is not None:
                found[line, rows[line] == lead] = 1.0
        return found


class ByWords:
    """Items by the words of their names, in a large catalogue: the `wanted` words of each request times the words'
    table.

    Proposed is what the lists of the words bring, _POSTINGS of their items at most, compared by all words. The mean is
    that of all scores, and so is the deviation where no list was cut; where one was, it is at least that of what was
    read, and that of rare words that go with no other.
    """

    def __init__(self, wanted: Sequence[Line], words: Words) -> None:
        self.wanted, self.words = [_ascending(line) for line in wanted], words
        read = [_read_lists(line, words) for line in self.wanted]
        self._brought = [line for line, _ in read]
        items = max(words.table.shape[0], 1)
        mean = np.array([weights.astype(np.float64) @ words.sums[0, at] for at, weights in self.wanted]) / items
        squares = np.array([scores.astype(np.float64) @ scores.astype(np.float64) for _, scores in self._brought])
        variance = squares / items - mean**2
        for number, (_, whole) in enumerate(read):
            if not whole:
                at, weights = self.wanted[number]
                # Neither says too much: no number is below 0.
                variance[number] = max(variance[number], words.variance(at, weights.astype(np.float64)))
        self.mean, self.deviation = moments(mean, variance, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        rows, scores = self._brought[line]
        if may is not None:
            allowed = may[rows]
            rows, scores = rows[allowed], scores[allowed]
        near = highest(rows, scores, 4 * depth)
        told = self._scores(line, near)
        high = told > self.mean[line]
        return highest(near[high], told[high], depth)

    def at(self, rows: Rows) -> Scores:
        found = [self._scores(line, asked) for line, asked in enumerate(rows)]
        return np.array(found, np.float32).reshape(rows.shape)

    def _scores(self, line: int, rows: Rows) -> Scores:
        words, weights = self.wanted[line]
        if not len(words) or not len(rows):
            return np.zeros(len(rows), np.float32)
        table = self.words.table
        first = table.indptr[rows]
        size = table.indptr[rows + 1] - first
        place = np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)
        own = table.indices[place]
        at = np.minimum(np.searchsorted(words, own), len(words) - 1)
        shared = np.where(words[at] == own, weights[at], 0.0) * table.data[place]
        return np.bincount(np.repeat(np.arange(len(rows)), size), shared, len(rows)).astype(np.float32)


def by_words(wanted: Sequence[Line], words: Words) -> Said:
    """What items share of the wanted words of each request; exactly, unless the catalogue is a large one."""
    if words.table.nnz > _FEW_POSTINGS:
        return ByWords(wanted, words)
    return Sparse([weighted(line, words.turned) for line in wanted], words.table.shape[0])


def _read_lists(line: Line, words: Words) -> tuple[Line, bool]:
    """What the lists of some words bring, the largest weights of each first, and whether all were read. The words that
    weigh most have their lists read whole as far as they take half of what is left."""
    columns, weights = line
    size, left = np.diff(words.turned.indptr)[columns].astype(np.int64), _POSTINGS
    whole = bool(size.sum() <= left)
    for place in [] if whole else np.argsort(-weights, kind="stable"):
        size[place] = min(int(size[place]), left // 2)
        left -= size[place]
    return weighted(line, words.turned, size), whole


def _ascending(line: Line) -> Line:
    order = np.argsort(line[0])
    return line[0][order], line[1][order]


def whole(said: Said, n_items: int) -> Scores:
    """float32[n, items]: the score of every item, as evaluation ranks a whole catalogue by one source. It costs what
    the catalogue is large."""
    if isinstance(said, Sparse):
        found = np.zeros((len(said.lines), n_items), np.float32)
        for one, (rows, scores) in zip(found, said.lines, strict=True):
            one[rows] = scores
        return found
    if isinstance(said, Near):
        return np.where(said.index.known, said.all, said.mean[:, None]).astype(np.float32)
    rows = np.broadcast_to(np.arange(n_items), (len(said.mean), n_items))
    return said.at(rows)


def moments(mean: NDArray[np.float64], variance: NDArray[np.float64], says: Mask) -> tuple[Scores, Scores]:
    """Mean and deviation as a `Said` has them, from float64[n] and whether something is said, bool[n]."""
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0.0)), _LEAST)
    return np.where(says, mean, 0.0).astype(np.float32), np.where(says, deviation, 1.0).astype(np.float32)


def highest(rows: Rows, scores: Scores, depth: int) -> Rows:
    """The `depth` rows of the highest scores, best first, equal ones by row."""
    if len(rows) > depth:
        keep = np.flatnonzero(scores >= np.partition(scores, len(scores) - depth)[len(scores) - depth])
        rows, scores = rows[keep], scores[keep]
    return np.asarray(rows[np.lexsort((rows, -scores))[:depth]], np.int64)
