"""Sources of candidates that are counted from events: what is popular, what was seen, what follows what, neighbours by
shoppers, and makers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.tools.sources.base import Past, Request, Rows, Said, Scores, at_least, read, share
from recgraph.tools.sources.said import Order, Same, Dense, Sparse, of_pairs
from recgraph.tools.sources.transitions import scaled, transition_counts
from recgraph.tools.sources.words import makers

_BLOCK = 2048  # rows of a table made at once


class Popularity:
    """The number of an item's events."""

    def __init__(self, past: Past) -> None:
        self._order = Order(np.bincount(past.events.item, minlength=past.n_items).astype(np.float32))

    def ask(self, asked: Sequence[Request]) -> Said:
        """The same for each request; 0 for an item without an event."""
        return Same(self._order, len(asked))


class Viewed:
    """The history's own items, the newest first; 0 for all others."""

    def __init__(self, past: Past) -> None:
        self._n_items = past.n_items

    def ask(self, asked: Sequence[Request]) -> Said:
        pairs = []
        for one in asked:
            newest = {int(row): place / len(one.history) for place, row in enumerate(one.history, start=1)}
            pairs.append(tuple(newest.items()))
        return Sparse(of_pairs(pairs, self._n_items))


# ── What follows what ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TransitionSettings:
    """`recency` is the weight of a history item against the one after it, `window` how many later events of a user
    count as followers. A step from a row is divided by (the row's sum)^`out` × (the follower's sum)^`into`."""

    recency: float = 0.6
    window: int = 50
    out: float = 0.3
    into: float = 0.1

    def __post_init__(self) -> None:
        share("recency", self.recency)
        at_least("window", self.window, 1)


class Transitions:
    """What shoppers took after an item of the history; the steps are counted, with their decay, by
    tools/sources/transitions.py."""

    def __init__(self, past: Past, settings: TransitionSettings | None = None) -> None:
        s = self._settings = settings or TransitionSettings()
        self._table = scaled(transition_counts(past.events, past.n_items, s.window), s.out, s.into).astype(np.float32)

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what never followed."""
        return Sparse(read(asked, self._table.shape[1], self._settings.recency) @ self._table)


# ── Neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ItemKNNSettings:
    """`recency` as in TransitionSettings. `shrink` is added below the fraction of the cosine, so that few users say
    less; `neighbours` are kept of each item (0: all); a user counts (number of the user's items)^-`user_power`."""

    recency: float = 0.7
    shrink: float = 40.0
    neighbours: int = 0
    user_power: float = 0.0

    def __post_init__(self) -> None:
        share("recency", self.recency)
        for name in ("shrink", "neighbours", "user_power"):
            at_least(name, getattr(self, name), 0)


class ItemKNN:
    """Items that the same users had: the cosine of columns of the 0/1 matrix of users and items."""

    def __init__(self, past: Past, settings: ItemKNNSettings | None = None) -> None:
        s = self._settings = settings or ItemKNNSettings()
        user = np.unique(past.events.user, return_inverse=True)[1].ravel()
        had = sp.csr_matrix(
            (np.ones(len(user), np.float32), (user, past.events.item)), shape=(user.max(initial=-1) + 1, past.n_items)
        )
        had.data[:] = 1.0  # summed where an item was had twice
        weight = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0) ** -s.user_power
        of_users = (sp.diags(weight) @ had).tocsr()
        norm = np.sqrt(np.asarray(of_users.sum(axis=0)).ravel())
        blocks = [self._rows(had, of_users, norm, start) for start in range(0, past.n_items, _BLOCK)]
        self._table = sp.vstack(blocks).tocsr() if blocks else sp.csr_matrix((0, 0), dtype=np.float32)

    def _rows(
        self, had: sp.csr_matrix, of_users: sp.csr_matrix, norm: NDArray[np.float32], start: int
    ) -> sp.csr_matrix:
        together = (had[:, start : start + _BLOCK].T @ of_users).tocoo()
        other = together.col != together.row + start  # an item is no neighbour of itself
        row, column, both = together.row[other], together.col[other], together.data[other]
        value = both / (norm[row + start] * norm[column] + self._settings.shrink)
        if self._settings.neighbours:
            order = np.lexsort((column, -value, row))
            row, column, value = row[order], column[order], value[order]
            place = np.arange(len(row)) - np.searchsorted(row, row)
            row, column, value = (one[place < self._settings.neighbours] for one in (row, column, value))
        return sp.csr_matrix((value.astype(np.float32), (row, column)), shape=together.shape)

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what no user had together with the history."""
        return Sparse(read(asked, self._table.shape[1], self._settings.recency) @ self._table)


@dataclass(frozen=True)
class SessionKNNSettings:
    """The `neighbours` users who share most with the history vote for what they had. A shared item weighs
    `recency`^(items after it in the history) × (its users)^-`rarity`; a user's sum is divided by (number of their
    items)^`long`. A vote for an item loses by `near` for each place between it and the shared item nearest to it, and
    counts `before` times where it came before that item."""

    neighbours: int = 100
    recency: float = 0.6
    rarity: float = 0.5
    long: float = 0.3
    near: float = 0.9
    before: float = 0.5

    def __post_init__(self) -> None:
        at_least("neighbours", self.neighbours, 1)
        share("recency", self.recency)
        share("near", self.near)


class SessionKNN:
    """Session-kNN with decays by place (V-SKNN, Ludewig and Jannach 2018; STAN, Garg et al. 2019); a session is all
    that a user had."""

    def __init__(self, past: Past, settings: SessionKNNSettings | None = None) -> None:
        s = self._settings = settings or SessionKNNSettings()
        self._n_items, self._items = past.n_items, past.events.item.astype(np.int64)
        fresh = np.flatnonzero(np.diff(past.events.user)) + 1
        self._starts = (
            np.concatenate([[0], fresh, [len(self._items)]]).astype(np.int64)
            if len(self._items)
            else np.zeros(1, np.int64)
        )
        user = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        had = sp.csr_matrix(
            (np.ones(len(user), np.float32), (self._items, user)), shape=(past.n_items, len(self._starts) - 1)
        )
        had.data[:] = 1.0
        users = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0)
        size = np.maximum(np.diff(self._starts), 1).astype(np.float64)
        self._had = (
            sp.diags((users**-s.rarity).astype(np.float32)) @ had @ sp.diags((size**-s.long).astype(np.float32))
        ).tocsr()

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what no neighbour had."""
        s = self._settings
        weights = read(asked, self._n_items, s.recency)
        like = (weights @ self._had).tocsr()
        found = np.zeros((len(asked), self._n_items), np.float32)
        for case in range(len(asked)):
            begin, end = like.indptr[case], like.indptr[case + 1]
            users, value = like.indices[begin:end], like.data[begin:end]
            if len(users) > s.neighbours:
                chosen = np.argpartition(-value, s.neighbours)[: s.neighbours]
                users, value = users[chosen], value[chosen]
            if len(users):
                self._vote(found[case], np.unique(weights[case].indices), users, value)
        return Dense(found)

    def _vote(self, row: Scores, history: Rows, users: Rows, value: Scores) -> None:
        s, first, size = self._settings, self._starts[users], self._starts[users + 1] - self._starts[users]
        of = np.repeat(np.arange(len(users)), size)
        place = np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size)
        item = self._items[first[of] + place]
        if s.near == 1.0 and s.before == 1.0:
            np.add.at(row, item, value[of])
            return
        shared = np.flatnonzero(np.isin(item, history))
        # The shared item nearest before a place, and nearest after it (of the same user).
        left, right = (
            np.searchsorted(shared, np.arange(len(item)), "right") - 1,
            np.searchsorted(shared, np.arange(len(item))),
        )
        low, high = shared[np.maximum(left, 0)], shared[np.minimum(right, len(shared) - 1)]
        after = np.where((left >= 0) & (of[low] == of), s.near ** (np.arange(len(item)) - low).clip(0), 0.0)
        before = np.where(
            (right < len(shared)) & (of[high] == of), s.before * s.near ** (high - np.arange(len(item))).clip(0), 0.0
        )
        np.add.at(row, item, (value[of] * np.maximum(after, before)).astype(np.float32))


# ── Makers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class MakerSettings:
    """`recency` as in TransitionSettings; an item has its count^`share` of what its maker gets, whose steps are divided
    by (the number into it)^`into`."""

    recency: float = 0.8
    share: float = 0.5
    into: float = 0.2


class MakerTransitions:
    """Which makers' items follow which makers', and how often an item is taken of its maker's."""

    def __init__(self, past: Past, settings: MakerSettings | None = None) -> None:
        s, maker = settings or MakerSettings(), makers(past.names)
        of = sp.csr_matrix(
            (np.ones(len(maker), np.float32), (np.arange(len(maker)), maker)),
            shape=(len(maker), maker.max(initial=0) + 1),
        )
        self._settings, self._of, self._maker = s, of, maker
        steps = (of.T @ transition_counts(past.events, past.n_items) @ of).tocsr()
        into = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -s.into
        self._steps = scaled(steps @ sp.diags(into), 1.0, 0.0).astype(np.float32)
        count = (np.bincount(past.events.item, minlength=past.n_items) + 0.5) ** s.share
        self._share = (count / np.bincount(maker, count, of.shape[1])[maker] ** 0.5).astype(np.float32)

    def ask(self, asked: Sequence[Request]) -> Said:
        said = (read(asked, len(self._maker), self._settings.recency) @ self._of @ self._steps).toarray()
        return Dense(np.asarray(said[:, self._maker] * self._share, np.float32))
