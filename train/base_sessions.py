"""Count-based sources beside base_counts: users with a like history, words and makers of the items' names, and steps
between what is named alike.

Like those they are made of `task.train` and the items' texts alone and use no random number. Each answers a batch of cases with a few sparse
products, so a single case costs milliseconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.tools.cooccurrence import transition_counts
from recgraph.train.base_counts import Vectors, _sequences, read_weights
from recgraph.train.protocol import Cases, Note, Scores, Task

_WORD = re.compile(r"\w+")
_BLOCK = 1024  # rows of a table made at once


def _scaled_rows(table: sp.csr_matrix, power: float = 1.0) -> sp.csr_matrix:
    """Each row divided by its sum to a power; an empty one stays so."""
    total = np.maximum(np.asarray(table.sum(axis=1)).ravel(), 1e-12)
    return (sp.diags((total**-power).astype(np.float32)) @ table).tocsr()


# ── Users with a like history ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class SessionKNNSettings:
    """The `neighbours` users who share most with the history vote for what they had. A shared item weighs `recency`^(items after it in the
    history) × (its users)^-`rarity`; a user's sum is divided by (number of their items)^`long`. A vote for an item loses by `near` for each
    place between it and the shared item nearest to it, and counts `before` times where it came before that item."""

    neighbours: int = 100
    recency: float = 0.6
    rarity: float = 0.5
    long: float = 0.3
    near: float = 0.9
    before: float = 0.5

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise SettingsError(f"neighbours is {self.neighbours}; it must be at least 1.")
        for name in ("recency", "near"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1.")


class SessionKNN:
    """Session-kNN with decays by place (V-SKNN, Ludewig and Jannach 2018; STAN, Garg et al. 2019); a session is all that a train user had."""

    name = "session-knn"

    def __init__(self, settings: SessionKNNSettings | None = None) -> None:
        self.settings = settings or SessionKNNSettings()

    def fit(self, task: Task, note: Note) -> None:
        s, self._n_items = self.settings, task.n_items
        self._items, self._starts = task.train.item, task.train.starts()
        user = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        shape = (task.n_items, len(self._starts) - 1)
        place = np.arange(len(self._items)) - self._starts[user]
        had = sp.csr_matrix((np.ones(len(user), np.float32), (self._items, user)), shape=shape)
        had.data[:] = 1.0
        users = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0)
        size = np.maximum(np.diff(self._starts), 1).astype(np.float64)
        self._had = (sp.diags((users**-s.rarity).astype(np.float32)) @ had @ sp.diags((size**-s.long).astype(np.float32))).tocsr()
        # The last place of an item at a user (+ 1, as 0 is none), to measure from.
        order = np.lexsort((place, user, self._items))
        last = np.append((np.diff(self._items[order]) != 0) | (np.diff(user[order]) != 0), True)[: len(order)]
        at = order[last]
        self._place = sp.csr_matrix((place[at] + 1, (self._items[at], user[at])), shape=shape)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; 0 for what no neighbour had."""
        s = self.settings
        weights = read_weights(cases.history, self._n_items, s.recency)
        like = (weights @ self._had).tocsr()
        found = np.zeros((len(cases), self._n_items), np.float32)
        for case in range(len(cases)):
            begin, end = like.indptr[case], like.indptr[case + 1]
            users, value = like.indices[begin:end], like.data[begin:end]
            if len(users) > s.neighbours:
                chosen = np.argpartition(-value, s.neighbours)[: s.neighbours]
                users, value = users[chosen], value[chosen]
            if len(users):
                self._vote(found[case], np.unique(weights[case].indices), users, value)
        return found

    def _vote(self, row: NDArray[np.float32], history: NDArray[np.int64], users: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        s, first, size = self.settings, self._starts[users], self._starts[users + 1] - self._starts[users]
        of = np.repeat(np.arange(len(users)), size)
        place = np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size)
        item = self._items[first[of] + place]
        if s.near == 1.0 and s.before == 1.0:
            np.add.at(row, item, value[of])
            return
        shared = np.flatnonzero(np.isin(item, history))
        # The shared item nearest before a place, and nearest after it (of the same user).
        left, right = np.searchsorted(shared, np.arange(len(item)), "right") - 1, np.searchsorted(shared, np.arange(len(item)))
        low, high = shared[np.maximum(left, 0)], shared[np.minimum(right, len(shared) - 1)]
        after = np.where((left >= 0) & (of[low] == of), s.near ** (np.arange(len(item)) - low).clip(0), 0.0)
        before = np.where((right < len(shared)) & (of[high] == of), s.before * s.near ** (high - np.arange(len(item))).clip(0), 0.0)
        np.add.at(row, item, (value[of] * np.maximum(after, before)).astype(np.float32))


# ── Words and makers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class WordsSettings:
    """`recency` as in TransitionSettings; `first` is the weight of a name's first word and of its first two against that of a word."""

    recency: float = 0.8
    first: float = 1.0


class WordKNN:
    """Items whose names share words with the history's, rare words counting more (cosine of TF-IDF), and their first words once again: names
    of shops begin with the maker."""

    name = "word-knn"

    def __init__(self, settings: WordsSettings | None = None) -> None:
        self.settings = settings or WordsSettings()

    def fit(self, task: Task, note: Note) -> None:
        self._table = word_vectors(task.texts, self.settings.first)
        self._turned = self._table.T.tocsr()

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; 0 where no word is shared."""
        mean = read_weights(cases.history, self._table.shape[0], self.settings.recency) @ self._table
        return np.asarray((mean @ self._turned).toarray(), np.float32)


def word_vectors(texts: Sequence[str], first: float) -> sp.csr_matrix:
    """float32[texts, words], rows of length 1."""
    column: dict[str, int] = {}
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        told = dict.fromkeys(words, 1.0)
        for size in (1, 2):
            if first and len(words) >= size:
                told["^" + " ".join(words[:size])] = first
        for word, value in told.items():
            rows.append(row)
            columns.append(column.setdefault(word, len(column)))
            values.append(value)
    table = sp.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=(len(texts), max(len(column), 1)))
    names = np.bincount(table.indices, minlength=table.shape[1])
    table = (table @ sp.diags(np.log((1 + len(texts)) / (1 + names)).astype(np.float32))).tocsr()
    norm = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return (sp.diags((1 / np.maximum(norm, 1e-9)).astype(np.float32)) @ table).tocsr()


def makers(texts: Sequence[str], least: int = 3) -> NDArray[np.int64]:
    """int64[texts]: the number of each name's maker, read off its beginning: two words where `least` names share them, else the first."""
    words = [_WORD.findall(text.lower())[:2] for text in texts]
    pairs = Counter(" ".join(one) for one in words if len(one) == 2)
    numbers: dict[str, int] = {}
    names = [" ".join(one) if pairs[" ".join(one)] >= least else (one or [""])[0] for one in words]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


@dataclass(frozen=True)
class MakerSettings:
    """`recency`, `window` as in TransitionSettings; an item has its count^`share` of what its maker gets, whose
    steps are divided by (the number into it)^`into`."""

    recency: float = 0.8
    window: int = 10
    share: float = 0.5
    into: float = 0.2


class MakerTransitions:
    """Which makers' items follow which makers', and how often an item is taken of its maker's."""

    name = "maker-transitions"

    def __init__(self, settings: MakerSettings | None = None) -> None:
        self.settings = settings or MakerSettings()

    def fit(self, task: Task, note: Note) -> None:
        s, maker = self.settings, makers(task.texts)
        of = sp.csr_matrix((np.ones(len(maker), np.float32), (np.arange(len(maker)), maker)), shape=(len(maker), maker.max(initial=0) + 1))
        steps = (of.T @ transition_counts(_sequences(task.train), task.n_items, s.window) @ of).tocsr().astype(np.float32)
        into = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -s.into
        steps = _scaled_rows(steps @ sp.diags(into.astype(np.float32)))
        self._of, self._steps, self._maker = of, steps, maker
        count = (np.bincount(task.train.item, minlength=task.n_items) + 0.5) ** s.share
        self._share = (count / np.bincount(maker, count, of.shape[1])[maker] ** 0.5).astype(np.float32)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]."""
        said = (read_weights(cases.history, len(self._maker), self.settings.recency) @ self._of @ self._steps).toarray()
        return np.asarray(said[:, self._maker] * self._share, np.float32)


# ── Transitions between what is alike ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class SmoothSettings:
    """`recency`, `window` as in TransitionSettings; `near` items are alike to each, with the weight exp((cosine - 1) / `width`)."""

    recency: float = 0.7
    window: int = 10
    near: int = 20
    width: float = 0.05
    into: float = 0.1


class SmoothTransitions:
    """What followed items that are named like the history's, and what is named like that: says something where an item has few steps."""

    name = "smooth-transitions"

    def __init__(self, vectors: Vectors, settings: SmoothSettings | None = None) -> None:
        self.settings, self.vectors = settings or SmoothSettings(), vectors

    def fit(self, task: Task, note: Note) -> None:
        s = self.settings
        alike = _scaled_rows(_near(self.vectors, s.near, s.width))
        steps = transition_counts(_sequences(task.train), task.n_items, s.window).astype(np.float32).tocsr()
        into = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -s.into
        steps = _scaled_rows(steps @ sp.diags(into.astype(np.float32)), 0.3)
        self._first, self._alike, self._n_items = (alike @ steps).tocsr(), alike, task.n_items

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]."""
        said = read_weights(cases.history, self._n_items, self.settings.recency) @ self._first
        return np.asarray((said @ self._alike).toarray(), np.float32)


def _near(vectors: Vectors, count: int, width: float) -> sp.csr_matrix:
    """float32[n, n]: the weights of the `count` rows nearest to each, itself among them."""
    count = min(count, len(vectors))
    blocks = []
    for start in range(0, len(vectors), _BLOCK):
        cosine = vectors[start : start + _BLOCK] @ vectors.T
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        value = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / width)
        rows = np.repeat(np.arange(len(cosine)), count)
        blocks.append(sp.csr_matrix((value.ravel().astype(np.float32), (rows, nearest.ravel())), shape=cosine.shape))
    return sp.vstack(blocks).tocsr()
