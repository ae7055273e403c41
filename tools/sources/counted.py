"""Sources of candidates that are counted from events: what is popular, what was seen, what follows what, and neighbours
by shoppers. Makers are in tools/sources/makers.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.tools.sources.base import Past, Request, Rows, Said, Scores, at_least, share
from recgraph.tools.sources.said import Order, Same, Sparse
from recgraph.tools.sources.sums import LARGE, Line, strongest, weighted
from recgraph.tools.sources.transitions import scaled, transition_counts

_BLOCK = 2048  # rows of a table made at once
_FOLLOWERS = 500  # that are kept of each item of a large catalogue
_LATEST_ITEMS = 200  # of a user, that make pairs and sessions in a large catalogue


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
        lines = []
        for one in asked:
            newest = {row: place / len(one.history) for place, row in enumerate(one.history.tolist(), start=1)}
            rows = np.fromiter(newest.keys(), np.int64, len(newest))
            lines.append((rows, np.fromiter(newest.values(), np.float32, len(newest))))
        return Sparse(lines, self._n_items)


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
        self._table = past.kept.sparse(f"transitions-{s.window}-{s.out}-{s.into}", lambda: self._counted(past))

    def _counted(self, past: Past) -> sp.csr_matrix:
        s = self._settings
        steps = scaled(transition_counts(past.events, past.n_items, s.window), s.out, s.into).astype(np.float32)
        return strongest(steps, _FOLLOWERS) if past.n_items > LARGE else steps

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what never followed."""
        return Sparse([weighted(one.read(self._settings.recency), self._table) for one in asked], self._table.shape[1])


@dataclass(frozen=True)
class TwoStepSettings:
    """The last item is paired with each of the `window` before it; a pair counts 1 / (how far they lie apart), in what
    is counted and in what is asked. What follows the last items (weighed by `recency`) counts as `prior` more steps."""

    window: int = 6
    recency: float = 0.3
    prior: float = 50.0

    def __post_init__(self) -> None:
        share("recency", self.recency)
        at_least("window", self.window, 1)
        at_least("prior", self.prior, 0)


class TwoStep:
    """What shoppers took next after the last item and one shortly before it: it tells a way back from a way on, which
    the last item alone does not.

    On the e-shop data (217 items, sessions of some ten clicks; 4,000 cases each, NDCG@10 on validation and test): after
    the last items alone .2459 and .2643, so .2553 and .2809. A ranking learnt from counted
    sources, 6,000 test cases: .2782 without it, .2870 with it.
    """

    def __init__(self, past: Past, settings: TwoStepSettings | None = None) -> None:
        s = self._settings = settings or TwoStepSettings()
        self._n_items = past.n_items
        self._after_one = Transitions(past, TransitionSettings(s.recency, 1, 1.0, 0.0))
        name = f"pairs-{s.window}"
        self._keys = past.kept.array(f"{name}-keys", lambda: np.unique(_pairs(past, s.window)[0]))
        self._steps = past.kept.sparse(f"{name}-steps", lambda: _pair_steps(past, s.window))

    def ask(self, asked: Sequence[Request]) -> Said:
        """Shares of all steps, which add up to 1; 0 for what followed neither."""
        told = self._after_one.ask(asked)
        assert isinstance(told, Sparse)
        return Sparse([self._of(one.history, line) for one, line in zip(asked, told.lines, strict=True)], self._n_items)

    def _of(self, history: Rows, told: Line) -> Line:
        """The steps after a history; `told` are those after its last items alone."""
        rows, scores = told
        found, weights = [rows], [scores * (self._settings.prior / max(float(scores.sum()), 1e-9))]
        for apart in range(1, min(self._settings.window, len(history) - 1) + 1):
            key = int(history[-1 - apart]) * self._n_items + int(history[-1])
            place = int(np.searchsorted(self._keys, key))
            if place < len(self._keys) and self._keys[place] == key:
                begin, end = self._steps.indptr[place], self._steps.indptr[place + 1]
                found.append(self._steps.indices[begin:end])
                weights.append(self._steps.data[begin:end] / np.float32(apart))
        rows, column = np.unique(np.concatenate(found), return_inverse=True)
        total = np.bincount(column.ravel(), np.concatenate(weights))
        return rows.astype(np.int64), (total / max(total.sum(), 1e-9)).astype(np.float32)


def _pairs(past: Past, window: int) -> tuple[NDArray[np.int64], Rows, Scores]:
    """Of each event with a pair of the same user's before it: the pair as one number, the event's item, the weight."""
    user, item = past.events.user, past.events.item.astype(np.int64)
    keys, followers, weights = [], [], []
    for apart in range(1, window + 1):
        first = np.flatnonzero(user[apart + 1 :] == user[: -(apart + 1)])
        keys.append(item[first] * past.n_items + item[first + apart])
        followers.append(item[first + apart + 1])
        weights.append(np.full(len(first), 1 / apart, np.float32))
    return np.concatenate(keys), np.concatenate(followers), np.concatenate(weights)


def _pair_steps(past: Past, window: int) -> sp.csr_matrix:
    """float32[pairs, items], the pairs in the order of their numbers."""
    keys, followers, weights = _pairs(past, window)
    pairs, place = np.unique(keys, return_inverse=True)
    return sp.csr_matrix((weights, (place.ravel(), followers)), shape=(len(pairs), past.n_items))


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
        name = f"item-knn-{s.shrink}-{s.neighbours}-{s.user_power}"
        self._table = past.kept.sparse(name, lambda: self._counted(past))

    def _counted(self, past: Past) -> sp.csr_matrix:
        large = past.n_items > LARGE
        user, item = past.events.user, past.events.item
        if large:  # pairs grow with the square of what a user had
            ends = np.flatnonzero(np.append(np.diff(user), 1)) if len(user) else np.zeros(0, np.int64)
            since = np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(user))
            user, item = user[since < _LATEST_ITEMS], item[since < _LATEST_ITEMS]
        number = np.unique(user, return_inverse=True)[1].ravel()
        had = sp.csr_matrix(
            (np.ones(len(number), np.float32), (number, item)), shape=(number.max(initial=-1) + 1, past.n_items)
        )
        had.data[:] = 1.0  # summed where an item was had twice
        weight = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0) ** -self._settings.user_power
        of_users = (sp.diags(weight) @ had).tocsr()
        norm = np.sqrt(np.asarray(of_users.sum(axis=0)).ravel())
        users_of = had.T.tocsr()
        keep = self._settings.neighbours or (_FOLLOWERS if large else 0)
        blocks = []
        for start in range(0, past.n_items, _BLOCK):
            block = self._rows(users_of[start : start + _BLOCK], of_users, norm, start)
            blocks.append(strongest(block, keep) if keep else block)
        return sp.vstack(blocks).tocsr() if blocks else sp.csr_matrix((0, 0), dtype=np.float32)

    def _rows(
        self, users_of: sp.csr_matrix, of_users: sp.csr_matrix, norm: NDArray[np.float32], start: int
    ) -> sp.csr_matrix:
        together = (users_of @ of_users).tocoo()
        other = together.col != together.row + start  # an item is no neighbour of itself
        row, column, both = together.row[other], together.col[other], together.data[other]
        value = both / (norm[row + start] * norm[column] + self._settings.shrink)
        return sp.csr_matrix((value.astype(np.float32), (row, column)), shape=together.shape)

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what no user had together with the history."""
        return Sparse([weighted(one.read(self._settings.recency), self._table) for one in asked], self._table.shape[1])


@dataclass(frozen=True)
class SessionKNNSettings:
    """The `neighbours` users who share most with the history vote for what they had. A shared item weighs
    `recency`^(items after it in the history) × (its users)^-`rarity`; a user's sum is divided by (number of their
    items)^`long`. A vote for an item loses by `near` for each place between it and the shared item nearest to it, and
    counts `before` times where it came before that item. Of an item that more than `latest` users had, those who came
    last are compared."""

    neighbours: int = 100
    recency: float = 0.6
    rarity: float = 0.5
    long: float = 0.3
    near: float = 0.9
    before: float = 0.5
    latest: int = 2000

    def __post_init__(self) -> None:
        at_least("neighbours", self.neighbours, 1)
        at_least("latest", self.latest, 1)
        share("recency", self.recency)
        share("near", self.near)


class SessionKNN:
    """Session-kNN with decays by place (V-SKNN, Ludewig and Jannach 2018; STAN, Garg et al. 2019); a session is all
    that a user had."""

    def __init__(self, past: Past, settings: SessionKNNSettings | None = None) -> None:
        s = self._settings = settings or SessionKNNSettings()
        self._n_items, self._items = past.n_items, past.events.item
        starts = past.kept.array("session-starts", lambda: _starts(past.events.user))
        self._ends = starts[1:]
        # Of a large catalogue all that a user had may be thousands, and votes far from a shared item hardly count.
        self._begins = np.maximum(starts[:-1], self._ends - _LATEST_ITEMS) if past.n_items > LARGE else starts[:-1]
        name = f"session-knn-{s.rarity}-{s.long}-{s.latest}-of-{_LATEST_ITEMS}"
        self._had = past.kept.sparse(name, lambda: self._counted(past))

    def _counted(self, past: Past) -> sp.csr_matrix:
        """float32[items, users]: what it weighs that a user had an item."""
        s, size = self._settings, self._ends - self._begins
        user = np.repeat(np.arange(len(size)), size)
        item = past.events.item[_places(self._begins, size)]
        had = sp.csr_matrix((np.ones(len(user), np.float32), (item, user)), shape=(past.n_items, len(size)))
        had.data[:] = 1.0
        users = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0)
        if users.max(initial=0) > s.latest:
            # 1 and up for the users in the order of their last events, so that the strongest are the latest
            moment = np.argsort(np.argsort(past.events.ts[self._ends - 1], kind="stable")) + 1.0
            had = strongest((had @ sp.diags(moment)).tocsr(), s.latest)
            had.data = np.ones(had.nnz, np.float32)
        per_user = (np.maximum(size, 1).astype(np.float64) ** -s.long).astype(np.float32)
        return (sp.diags((users**-s.rarity).astype(np.float32)) @ had @ sp.diags(per_user)).tocsr()

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what no neighbour had."""
        lines = []
        for one in asked:
            history = one.read(self._settings.recency)
            users, value = _nearest(*weighted(history, self._had), self._settings.neighbours)
            lines.append(self._votes(history[0], users, value))
        return Sparse(lines, self._n_items)

    def _votes(self, history: Rows, users: Rows, value: Scores) -> Line:
        """The items that users had, and the sum of the votes for each."""
        if not len(users):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        s, first, size = self._settings, self._begins[users], self._ends[users] - self._begins[users]
        of = np.repeat(np.arange(len(users)), size)
        item = self._items[_places(first, size)]
        votes = value[of] * _decay(of, np.isin(item, history), s.near, s.before)
        rows, column = np.unique(item, return_inverse=True)
        total = np.bincount(column.ravel(), votes)
        return rows[total > 0].astype(np.int64), total[total > 0].astype(np.float32)


def _starts(user: NDArray[np.int32]) -> Rows:
    """int64[users + 1]: where each user's events begin, and where the last one's end."""
    if not len(user):
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1, [len(user)]]).astype(np.int64)


def _places(first: Rows, size: Rows) -> Rows:
    """The numbers from each of `first` on, so many as `size` says, one run after the other."""
    places: Rows = np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)
    return places


def _nearest(users: Rows, value: Scores, count: int) -> tuple[Rows, Scores]:
    """The `count` users of the highest values, equal ones in their order."""
    if len(users) <= count:
        return users, value
    least = np.partition(value, len(value) - count)[len(value) - count]
    above, equal = np.flatnonzero(value > least), np.flatnonzero(value == least)
    chosen = np.concatenate([above, equal[np.argsort(users[equal])][: count - len(above)]])
    return users[chosen], value[chosen]


def _decay(of: Rows, shared: NDArray[np.bool_], near: float, before: float) -> Scores:
    """float32[places]: what a vote counts by how near its place is to a shared item of the same user (`of`)."""
    if near == 1.0 and before == 1.0:
        return np.ones(len(of), np.float32)
    places, everywhere = np.flatnonzero(shared), np.arange(len(of))
    # The shared item nearest before a place, and nearest after it.
    left = np.searchsorted(places, everywhere, "right") - 1
    right = np.searchsorted(places, everywhere)
    low, high = places[np.maximum(left, 0)], places[np.minimum(right, len(places) - 1)]
    after = np.where((left >= 0) & (of[low] == of), near ** (everywhere - low).clip(0), 0.0)
    ahead = np.where((right < len(places)) & (of[high] == of), before * near ** (high - everywhere).clip(0), 0.0)
    return np.maximum(after, ahead).astype(np.float32)
