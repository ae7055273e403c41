"""Candidate sources: what follows what, neighbours by shoppers, words, makers and texts, what fits a query, and what trained encoders expect.

A source is made of a `Shop`, the past as it is known at some moment, and asked with `Request`s: a history as catalogue rows, a query. It answers
all of them at once with a score for each item of the catalogue; 0 (or the same for all) means that it has nothing to say. No random number is
used, and a single request costs about a millisecond. What weighs one source against another is in tools/fusion.py; evaluation uses the same
classes (train/base_counts.py), so what is measured is what serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store.columns import Sequences
from recgraph.tools.cooccurrence import RECENCY, recency_weights, scaled, transition_counts
from recgraph.tools.core import Core
from recgraph.tools.textformer import TextFormer, unit
from recgraph.tools.words import Words, makers

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Vectors = NDArray[np.float32]

HISTORY = 50  # items of a history that are read, the newest
LEANING = 0.3  # how far a query's vector is moved towards the history's titles: .15 to .5 are alike
_BLOCK = 2048  # rows of a table made at once


@dataclass(frozen=True)
class Shop:
    """What sources are made of: the events of the past, and the catalogue's names with their unit `vectors` (zero where nothing is known of
    an item; None without an encoder). `core`, over this catalogue, and `former` are None where none was trained."""

    events: Sequences
    names: Sequence[str]
    vectors: Vectors | None = None
    core: Core | None = None
    former: TextFormer | None = None

    @property
    def n_items(self) -> int:
        return len(self.names)

    @cached_property
    def words(self) -> Words:
        """The names as words."""
        return Words.of(self.names)

    @property
    def known_vectors(self) -> Vectors:
        """The vectors. SettingsError where there are none."""
        if self.vectors is None:
            raise SettingsError("A source that reads texts was asked for without text vectors; give the shop an encoder.")
        return self.vectors


@dataclass(frozen=True)
class Request:
    """What is asked: the rows of a history's items, oldest first; the query, and its vector where there is an encoder; what the query memory
    holds of it, (row, score) pairs; and whether the query is fresh: nothing was looked at under it yet."""

    history: Rows
    query: str = ""
    vector: Vectors | None = None
    memory: tuple[tuple[int, float], ...] = ()
    fresh: bool = False


class Source(Protocol):
    """What scores a catalogue."""

    def scores(self, asked: Sequence[Request]) -> Scores:
        """float32[requests, items], the higher the better; -inf for an item it cannot rank."""
        ...


def read_weights(histories: Sequence[Rows], n_items: int, recency: float, length: int = HISTORY) -> sp.csr_matrix:
    """float32[requests, n_items]: the newest item of a history weighs 1, each one before it `recency` of the one after; repeats add up."""
    newest = [one[-length:] for one in histories]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in newest])]).astype(np.int64)
    weights = recency_weights(length, recency).astype(np.float32)
    value = np.concatenate([weights[length - len(one) :] for one in newest]) if newest else np.zeros(0, np.float32)
    rows = np.concatenate(newest) if newest else np.zeros(0, np.int64)
    found = sp.csr_matrix((value, rows, starts), shape=(len(newest), n_items))
    found.sum_duplicates()
    return found


def _read(asked: Sequence[Request], n_items: int, recency: float) -> sp.csr_matrix:
    return read_weights([one.history for one in asked], n_items, recency)


def _dense(product: sp.csr_matrix) -> Scores:
    return np.asarray(product.toarray(), np.float32)


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise SettingsError(f"{name} is {value}; it must be above 0 and at most 1.")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise SettingsError(f"{name} is {value}; it must be at least {least}.")


class Popularity:
    """The number of an item's events."""

    def __init__(self, shop: Shop) -> None:
        self._counts = np.bincount(shop.events.item, minlength=shop.n_items).astype(np.float32)

    def scores(self, asked: Sequence[Request]) -> Scores:
        """The same for each request; 0 for an item without an event."""
        return np.repeat(self._counts[None], len(asked), axis=0)


class Viewed:
    """The history's own items, the newest first; 0 for all others."""

    def __init__(self, shop: Shop) -> None:
        self._n_items = shop.n_items

    def scores(self, asked: Sequence[Request]) -> Scores:
        found = np.zeros((len(asked), self._n_items), np.float32)
        for line, one in zip(found, asked, strict=True):
            line[one.history] = np.arange(1, len(one.history) + 1) / max(len(one.history), 1)
        return found


# ── What follows what ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TransitionSettings:
    """`recency` is the weight of a history item against the one after it, `window` how many later events of a user count as followers.
    A step from a row is divided by (the row's sum)^`out` × (the follower's sum)^`into`."""

    recency: float = 0.6
    window: int = 50
    out: float = 0.3
    into: float = 0.1

    def __post_init__(self) -> None:
        _share("recency", self.recency)
        _at_least("window", self.window, 1)


class Transitions:
    """What shoppers took after an item of the history; the steps are counted, with their decay, by tools/cooccurrence.py."""

    def __init__(self, shop: Shop, settings: TransitionSettings | None = None) -> None:
        s = self._settings = settings or TransitionSettings()
        self._table = scaled(transition_counts(shop.events, shop.n_items, s.window), s.out, s.into).astype(np.float32)

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 for what never followed."""
        return _dense(_read(asked, self._table.shape[1], self._settings.recency) @ self._table)


# ── Neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ItemKNNSettings:
    """`recency` as in TransitionSettings. `shrink` is added below the fraction of the cosine, so that few users say less; `neighbours` are
    kept of each item (0: all); a user counts (number of the user's items)^-`user_power`."""

    recency: float = 0.7
    shrink: float = 40.0
    neighbours: int = 0
    user_power: float = 0.0

    def __post_init__(self) -> None:
        _share("recency", self.recency)
        for name in ("shrink", "neighbours", "user_power"):
            _at_least(name, getattr(self, name), 0)


class ItemKNN:
    """Items that the same users had: the cosine of columns of the 0/1 matrix of users and items."""

    def __init__(self, shop: Shop, settings: ItemKNNSettings | None = None) -> None:
        s = self._settings = settings or ItemKNNSettings()
        user = np.unique(shop.events.user, return_inverse=True)[1].ravel()
        had = sp.csr_matrix((np.ones(len(user), np.float32), (user, shop.events.item)), shape=(user.max(initial=-1) + 1, shop.n_items))
        had.data[:] = 1.0  # summed where an item was had twice
        weight = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0) ** -s.user_power
        of_users = (sp.diags(weight) @ had).tocsr()
        norm = np.sqrt(np.asarray(of_users.sum(axis=0)).ravel())
        blocks = [self._rows(had, of_users, norm, start) for start in range(0, shop.n_items, _BLOCK)]
        self._table = sp.vstack(blocks).tocsr() if blocks else sp.csr_matrix((0, 0), dtype=np.float32)

    def _rows(self, had: sp.csr_matrix, of_users: sp.csr_matrix, norm: NDArray[np.float32], start: int) -> sp.csr_matrix:
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

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 for what no user had together with the history."""
        return _dense(_read(asked, self._table.shape[1], self._settings.recency) @ self._table)


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
        _at_least("neighbours", self.neighbours, 1)
        _share("recency", self.recency)
        _share("near", self.near)


class SessionKNN:
    """Session-kNN with decays by place (V-SKNN, Ludewig and Jannach 2018; STAN, Garg et al. 2019); a session is all that a user had."""

    def __init__(self, shop: Shop, settings: SessionKNNSettings | None = None) -> None:
        s = self._settings = settings or SessionKNNSettings()
        self._n_items, self._items = shop.n_items, shop.events.item.astype(np.int64)
        fresh = np.flatnonzero(np.diff(shop.events.user)) + 1
        self._starts = np.concatenate([[0], fresh, [len(self._items)]]).astype(np.int64) if len(self._items) else np.zeros(1, np.int64)
        user = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        had = sp.csr_matrix((np.ones(len(user), np.float32), (self._items, user)), shape=(shop.n_items, len(self._starts) - 1))
        had.data[:] = 1.0
        users = np.maximum(np.asarray(had.sum(axis=1)).ravel(), 1.0)
        size = np.maximum(np.diff(self._starts), 1).astype(np.float64)
        self._had = (sp.diags((users**-s.rarity).astype(np.float32)) @ had @ sp.diags((size**-s.long).astype(np.float32))).tocsr()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 for what no neighbour had."""
        s = self._settings
        weights = _read(asked, self._n_items, s.recency)
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
        return found

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
        left, right = np.searchsorted(shared, np.arange(len(item)), "right") - 1, np.searchsorted(shared, np.arange(len(item)))
        low, high = shared[np.maximum(left, 0)], shared[np.minimum(right, len(shared) - 1)]
        after = np.where((left >= 0) & (of[low] == of), s.near ** (np.arange(len(item)) - low).clip(0), 0.0)
        before = np.where((right < len(shared)) & (of[high] == of), s.before * s.near ** (high - np.arange(len(item))).clip(0), 0.0)
        np.add.at(row, item, (value[of] * np.maximum(after, before)).astype(np.float32))


# ── Words and makers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class WordsSettings:
    """`recency` as in TransitionSettings."""

    recency: float = 0.8


class WordKNN:
    """Items whose names share words with the history's, rare words counting more."""

    def __init__(self, shop: Shop, settings: WordsSettings | None = None) -> None:
        self._settings, self._table = settings or WordsSettings(), shop.words.table
        self._turned = self._table.T.tocsr()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 where no word is shared."""
        return _dense(_read(asked, self._table.shape[0], self._settings.recency) @ self._table @ self._turned)


class QueryWords:
    """Items whose names share words with the query."""

    def __init__(self, shop: Shop) -> None:
        self._words, self._turned = shop.words, shop.words.table.T.tocsr()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 where no word is shared."""
        return _dense(self._words.read([one.query for one in asked]) @ self._turned)


@dataclass(frozen=True)
class MakerSettings:
    """`recency` as in TransitionSettings; an item has its count^`share` of what its maker gets, whose steps are divided by (the number into
    it)^`into`."""

    recency: float = 0.8
    share: float = 0.5
    into: float = 0.2


class MakerTransitions:
    """Which makers' items follow which makers', and how often an item is taken of its maker's."""

    def __init__(self, shop: Shop, settings: MakerSettings | None = None) -> None:
        s, maker = settings or MakerSettings(), makers(shop.names)
        of = sp.csr_matrix((np.ones(len(maker), np.float32), (np.arange(len(maker)), maker)), shape=(len(maker), maker.max(initial=0) + 1))
        self._settings, self._of, self._maker = s, of, maker
        steps = (of.T @ transition_counts(shop.events, shop.n_items) @ of).tocsr()
        into = np.maximum(np.asarray(steps.sum(axis=0)).ravel(), 1.0) ** -s.into
        self._steps = scaled(steps @ sp.diags(into), 1.0, 0.0).astype(np.float32)
        count = (np.bincount(shop.events.item, minlength=shop.n_items) + 0.5) ** s.share
        self._share = (count / np.bincount(maker, count, of.shape[1])[maker] ** 0.5).astype(np.float32)

    def scores(self, asked: Sequence[Request]) -> Scores:
        said = (_read(asked, len(self._maker), self._settings.recency) @ self._of @ self._steps).toarray()
        return np.asarray(said[:, self._maker] * self._share, np.float32)


# ── Texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TextKNNSettings:
    """`recency` as in TransitionSettings."""

    recency: float = 0.2

    def __post_init__(self) -> None:
        _share("recency", self.recency)


class TextKNN:
    """Items whose text is near to the history's: the cosine with the weighted mean of the history's vectors; cold items like all others."""

    def __init__(self, shop: Shop, settings: TextKNNSettings | None = None) -> None:
        self._settings, self._vectors = settings or TextKNNSettings(), shop.known_vectors

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; 0 without a history."""
        return np.asarray(_taste(asked, self._vectors, self._settings.recency) @ self._vectors.T, np.float32)


class QueryText:
    """Items whose text is near to the query's, moved a little (`LEANING`) towards the history's."""

    def __init__(self, shop: Shop) -> None:
        self._vectors = shop.known_vectors

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 without a query."""
        found = np.zeros((len(asked), len(self._vectors)), np.float32)
        given = [(row, one.vector) for row, one in enumerate(asked) if one.vector is not None and one.vector.any()]
        if given:
            there = [row for row, _ in given]
            wanted = np.stack([vector for _, vector in given]) + LEANING * _taste([asked[row] for row in there], self._vectors, RECENCY)
            found[there] = wanted @ self._vectors.T
        return found


def _taste(asked: Sequence[Request], vectors: Vectors, recency: float) -> Vectors:
    """float32[requests, d] of length 1: the weighted mean of each history's vectors; zero where nothing is known."""
    mean = _read(asked, len(vectors), recency) @ vectors
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(np.divide(mean, norm, out=np.zeros_like(mean), where=norm > 1e-9), np.float32)


class Remembered:
    """What the query memory (F 4.2) holds of the query, as the request brings it."""

    def __init__(self, shop: Shop) -> None:
        self._n_items = shop.n_items

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 for what it does not hold."""
        found = np.zeros((len(asked), self._n_items), np.float32)
        for line, one in zip(found, asked, strict=True):
            for row, score in one.memory:
                line[row] = score
        return found


# ── Trained ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Encoded:
    """What is near to the history for CORE's encoder; a cold item is not ranked. SettingsError where the shop has none."""

    def __init__(self, shop: Shop) -> None:
        if shop.core is None:
            raise SettingsError("The source core was asked for without a trained CORE; give the shop one.")
        self._core, self._units = shop.core, shop.core.units()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; all 0 where the encoder knows nothing of a history."""
        sessions = np.stack([self._core.session_vector(one.history) for one in asked]) if asked else np.zeros((0, self._units.shape[1]), np.float32)
        found = sessions @ self._units.T
        found[:, self._core.cold] = -np.inf
        found[~sessions.any(axis=1)] = 0.0
        return np.asarray(found, np.float32)


class NextText:
    """What the text transformer expects after the history's texts and the query's; an item of which nothing is known is not ranked.
    SettingsError where the shop has none."""

    def __init__(self, shop: Shop) -> None:
        if shop.former is None:
            raise SettingsError("The source textformer was asked for without a trained text transformer; give the shop one.")
        vectors = shop.known_vectors
        self._former, self._nameless = shop.former, ~vectors.any(axis=1)
        self._read = shop.former.items(vectors)
        self._units = unit(self._read)

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; all 0 where there is neither a history nor a query."""
        states = np.stack([self._state(one) for one in asked]) if asked else np.zeros((0, self._units.shape[1]), np.float32)
        found = states @ self._units.T
        found[:, self._nameless] = -np.inf
        found[~states.any(axis=1)] = 0.0
        return np.asarray(found, np.float32)

    def _state(self, one: Request) -> Vectors:
        rows = one.history[-HISTORY:]
        read = self._read[rows[np.append(True, np.diff(rows) != 0)]] if len(rows) else self._read[:0]  # as it was trained: repeats in a row are one
        if one.vector is not None and one.vector.any():
            read = np.concatenate([read, self._former.queries(one.vector[None])])
        return self._former.state(read) if len(read) else np.zeros(self._units.shape[1], np.float32)


# ── By name ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_KINDS: Mapping[str, tuple[str, Callable[[Shop], Source]]] = {
    "popularity": ("popular", Popularity),
    "transitions": ("sequence", Transitions),
    "next-step": ("sequence", lambda shop: Transitions(shop, TransitionSettings(window=1, recency=0.3))),
    "item-knn": ("sequence", lambda shop: ItemKNN(shop, ItemKNNSettings(user_power=0.5, shrink=1.0))),
    "session-knn": ("sequence", SessionKNN),
    "maker-transitions": ("sequence", MakerTransitions),
    "viewed": ("sequence", Viewed),
    "word-knn": ("title", WordKNN),
    "text-knn": ("title", TextKNN),
    "query-text": ("text", QueryText),
    "query-words": ("text", QueryWords),
    "memory": ("memory", Remembered),
    "core": ("sequence", Encoded),
    "textformer": ("sequence", NextText),
}
_NAMED, _ENCODED = ("word-knn", "maker-transitions", "query-words"), ("text-knn", "query-text", "textformer")  # what reads names, and their vectors
NAMES = tuple(_KINDS)
SHOWN_AS: Mapping[str, str] = {name: shown for name, (shown, _) in _KINDS.items()}  # the names of DESIGN 8


def possible(shop: Shop) -> tuple[str, ...]:
    """The names of the sources that can be made: of names only where there are some, of vectors where there is an encoder, and what is trained."""
    named = len(set(shop.names)) > 1
    left_out = () if named and shop.vectors is not None else _ENCODED if named else (*_NAMED, *_ENCODED)
    untrained = [name for name, there in (("core", shop.core), ("textformer", shop.former)) if there is None]
    return tuple(name for name in NAMES if name not in (*left_out, *untrained))


def make(name: str, shop: Shop) -> Source:
    """A source by its name. KeyError for an unknown name, SettingsError where the shop has not what it needs."""
    return _KINDS[name][1](shop)
