"""The kinds of what a source can say (`Said`, tools/sources/base.py): of few items, of vectors, the same to all
requests, or of each item. Which source says it is unknown here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.tools.index import VectorIndex, best
from recgraph.tools.sources.base import Mask, Rows, Said, Scores, Vectors
from recgraph.tools.sources.sums import weighted
from recgraph.tools.sources.words import Words

_LEAST = 1e-9  # a deviation below it is one of scores that are all alike
_FEW_POSTINGS = 500_000  # words of all names of a catalogue whose word lists are read whole
_POSTINGS = 20_000  # items in the lists that are read for a request in a larger one


class Sparse:
    """A score above 0 for few items of each request, 0 for all others: csr float32[n, items]."""

    def __init__(self, scores: sp.csr_matrix) -> None:
        self.scores = scores
        n, items = scores.shape
        line = np.repeat(np.arange(n), np.diff(scores.indptr))
        value = scores.data.astype(np.float64)
        mean = np.bincount(line, value, n) / max(items, 1)
        # float64: the difference of the squares is small beside them
        square = np.bincount(line, value**2, n) / max(items, 1)
        self.mean, self.deviation = moments(mean, square - mean**2, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        rows, scores = self.of(line)
        high = scores > self.mean[line]
        if may is not None:
            high &= may[rows]
        return highest(rows[high], scores[high], depth)

    def at(self, rows: Rows) -> Scores:
        found = np.zeros(rows.shape, np.float32)
        for line, asked in enumerate(rows):
            known, scores = self.of(line)
            if not len(known):
                continue
            order = np.argsort(asked, kind="stable")
            place = np.minimum(np.searchsorted(asked, known, sorter=order), len(asked) - 1)
            there = asked[order[place]] == known
            told = np.zeros(len(asked), np.float32)
            told[place[there]] = scores[there]
            found[line, order] = told[np.searchsorted(asked, asked[order], sorter=order)]  # a row may be asked twice
        return found

    def of(self, line: int) -> tuple[Rows, Scores]:
        """The items with a score above 0 of a request, in no promised order, and their scores."""
        begin, end = self.scores.indptr[line], self.scores.indptr[line + 1]
        return self.scores.indices[begin:end], self.scores.data[begin:end]


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
        mean, spread = index.moments
        wide = self.vectors.astype(np.float64)
        self.mean, self.deviation = moments(
            wide @ mean, ((wide @ spread) * wide).sum(1), np.asarray(self.vectors.any(1))
        )
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
    """Items by the words of their names, in a large catalogue: `wanted` csr float32[n, words] times the words' table.

    Proposed is what the lists of the words bring, _POSTINGS of their items at most, compared by all words. The mean is
    that of all scores, and so is the deviation where no list was cut; where one was, it is at
    least that of what was read, and that of rare words that go with no other.
    """

    def __init__(self, wanted: sp.csr_matrix, words: Words) -> None:
        wanted.sort_indices()
        self.wanted, self.words = wanted, words
        n, items = wanted.shape[0], max(words.table.shape[0], 1)
        line, value = np.repeat(np.arange(n), np.diff(wanted.indptr)), wanted.data.astype(np.float64)
        mean = np.bincount(line, value * words.sums[0, wanted.indices], n) / items
        most, whole = _that_fit(wanted, words)
        self._brought = weighted(wanted, words.turned, most)
        brought = np.repeat(np.arange(n), np.diff(self._brought.indptr))
        variance = np.bincount(brought, self._brought.data.astype(np.float64) ** 2, n) / items - mean**2
        for cut in np.flatnonzero(~whole):
            begin, end = wanted.indptr[cut], wanted.indptr[cut + 1]
            apart = words.variance(wanted.indices[begin:end], value[begin:end])
            variance[cut] = max(variance[cut], apart)  # neither says too much: no number is below 0
        self.mean, self.deviation = moments(mean, variance, mean > 0)

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        begin, end = self._brought.indptr[line], self._brought.indptr[line + 1]
        rows, scores = self._brought.indices[begin:end], self._brought.data[begin:end]
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
        begin, end = self.wanted.indptr[line], self.wanted.indptr[line + 1]
        words, weights = self.wanted.indices[begin:end], self.wanted.data[begin:end]
        if not len(words) or not len(rows):
            return np.zeros(len(rows), np.float32)
        table = self.words.table
        size = table.indptr[rows + 1] - table.indptr[rows]
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size) + np.repeat(table.indptr[rows], size)
        own = table.indices[place]
        at = np.minimum(np.searchsorted(words, own), len(words) - 1)
        shared = np.where(words[at] == own, weights[at], 0.0) * table.data[place]
        return np.bincount(np.repeat(np.arange(len(rows)), size), shared, len(rows)).astype(np.float32)


def by_words(wanted: sp.csr_matrix, words: Words) -> Said:
    """What items share of the wanted words, csr float32[n, words]; exactly, unless the catalogue is a large one."""
    return Sparse(wanted @ words.turned) if words.table.nnz <= _FEW_POSTINGS else ByWords(wanted, words)


def _that_fit(wanted: sp.csr_matrix, words: Words) -> tuple[NDArray[np.int64], Mask]:
    """For each wanted word how many of its items are read, the largest weights first, and for which requests that is
    all. The words that weigh most have their lists read whole as far as they take half of what is left."""
    size, whole = np.diff(words.turned.indptr)[wanted.indices].astype(np.int64), np.ones(wanted.shape[0], np.bool_)
    for line, (begin, end) in enumerate(zip(wanted.indptr[:-1], wanted.indptr[1:], strict=True)):
        left = _POSTINGS
        whole[line] = size[begin:end].sum() <= left
        for place in [] if whole[line] else begin + np.argsort(-wanted.data[begin:end], kind="stable"):
            size[place] = min(int(size[place]), left // 2)
            left -= size[place]
    return size, whole


def of_pairs(pairs: Sequence[Sequence[tuple[int, float]]], n_items: int) -> sp.csr_matrix:
    """csr float32[n, n_items] of (row, score) pairs of each request, no row twice."""
    lines = [
        (np.array([row for row, _ in one], np.int64), np.array([score for _, score in one], np.float32))
        for one in pairs
    ]
    return of_lines(lines, n_items)


def of_lines(lines: Sequence[tuple[Rows, Scores]], n_items: int) -> sp.csr_matrix:
    """csr float32[n, n_items] of the rows and the scores of each request, no row twice."""
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows, _ in lines])]).astype(np.int64)
    rows = np.concatenate([rows for rows, _ in lines]) if lines else np.zeros(0, np.int64)
    scores = np.concatenate([scores for _, scores in lines]) if lines else np.zeros(0, np.float32)
    return sp.csr_matrix((scores, rows, starts), shape=(len(lines), n_items))


def whole(said: Said, n_items: int) -> Scores:
    """float32[n, items]: the score of every item, as evaluation ranks a whole catalogue by one source. It costs what
    the catalogue is large."""
    if isinstance(said, Sparse):
        return np.asarray(said.scores.toarray(), np.float32)
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
