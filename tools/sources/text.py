"""Sources of candidates that read texts, queries or what was trained: words, vectors, the query memory, CORE and the
text transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recgraph.errors import SettingsError
from recgraph.tools.sources.base import Past, Request, Scores, Vectors, dense, read, share
from recgraph.tools.sources.textformer import unit
from recgraph.tools.sources.transitions import RECENCY

_BLOCK = 65_536  # items whose texts are read at once
LEANING = 0.3  # how far a query's vector is moved towards the history's titles: .15 to .5 are alike

# ── Words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class WordsSettings:
    """`recency` as in TransitionSettings."""

    recency: float = 0.8


class WordKNN:
    """Items whose names share words with the history's, rare words counting more."""

    def __init__(self, past: Past, settings: WordsSettings | None = None) -> None:
        self._settings, self._table = settings or WordsSettings(), past.words.table
        self._turned = self._table.T.tocsr()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 where no word is shared."""
        return dense(read(asked, self._table.shape[0], self._settings.recency) @ self._table @ self._turned)


class QueryWords:
    """Items whose names share words with the query."""

    def __init__(self, past: Past) -> None:
        self._words, self._turned = past.words, past.words.table.T.tocsr()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 where no word is shared."""
        return dense(self._words.read([one.query for one in asked]) @ self._turned)


# ── Texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TextKNNSettings:
    """`recency` as in TransitionSettings."""

    recency: float = 0.2

    def __post_init__(self) -> None:
        share("recency", self.recency)


class TextKNN:
    """Items whose text is near to the history's: the cosine with the weighted mean of the history's vectors; cold items
    like all others."""

    def __init__(self, past: Past, settings: TextKNNSettings | None = None) -> None:
        self._settings, self._vectors = settings or TextKNNSettings(), past.known_vectors

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; 0 without a history."""
        return np.asarray(_taste(asked, self._vectors, self._settings.recency) @ self._vectors.T, np.float32)


class QueryText:
    """Items whose text is near to the query's, moved a little (`LEANING`) towards the history's."""

    def __init__(self, past: Past) -> None:
        self._vectors = past.known_vectors

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 without a query."""
        found = np.zeros((len(asked), len(self._vectors)), np.float32)
        given = [(row, one.vector) for row, one in enumerate(asked) if one.vector is not None and one.vector.any()]
        if given:
            there = [row for row, _ in given]
            wanted = np.stack([vector for _, vector in given]) + LEANING * _taste(
                [asked[row] for row in there], self._vectors, RECENCY
            )
            found[there] = wanted @ self._vectors.T
        return found


def _taste(asked: Sequence[Request], vectors: Vectors, recency: float) -> Vectors:
    """float32[requests, d] of length 1: the weighted mean of each history's vectors; zero where nothing is known."""
    mean = read(asked, len(vectors), recency) @ vectors
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(np.divide(mean, norm, out=np.zeros_like(mean), where=norm > 1e-9), np.float32)


class Remembered:
    """What the query memory (F 4.2) holds of the query, as the request brings it."""

    def __init__(self, past: Past) -> None:
        self._n_items = past.n_items

    def scores(self, asked: Sequence[Request]) -> Scores:
        """0 for what it does not hold."""
        found = np.zeros((len(asked), self._n_items), np.float32)
        for line, one in zip(found, asked, strict=True):
            for row, score in one.memory:
                line[row] = score
        return found


# ── Trained ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Encoded:
    """What is near to the history for CORE's encoder; a cold item is not ranked. SettingsError where the past has
    none."""

    def __init__(self, past: Past) -> None:
        if past.core is None:
            raise SettingsError("The source core was asked for without a trained CORE; give the past one.")
        self._core, self._units = past.core, past.core.units()

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; all 0 where the encoder knows nothing of a history."""
        sessions = (
            np.stack([self._core.session_vector(one.history) for one in asked])
            if asked
            else np.zeros((0, self._units.shape[1]), np.float32)
        )
        found = sessions @ self._units.T
        found[:, self._core.cold] = -np.inf
        found[~sessions.any(axis=1)] = 0.0
        return np.asarray(found, np.float32)


class NextText:
    """What the text transformer expects after the history's texts and the query's, which it reads if it has learnt from
    any; an item of which nothing is known is not ranked. SettingsError where the past has none."""

    def __init__(self, past: Past) -> None:
        if past.former is None:
            raise SettingsError(
                "The source textformer was asked for without a trained text transformer; give the past one."
            )
        self._former, self._vectors = past.former, past.known_vectors
        self._nameless, self._searches = ~self._vectors.any(axis=1), bool(past.former.config["queries"])
        parts = range(0, max(past.n_items, 1), _BLOCK)
        self._units = np.concatenate([unit(self._former.items(self._vectors[part : part + _BLOCK])) for part in parts])

    def scores(self, asked: Sequence[Request]) -> Scores:
        """Cosines; all 0 where there is neither a history nor a query."""
        states = (
            np.stack([self._state(one) for one in asked]) if asked else np.zeros((0, self._units.shape[1]), np.float32)
        )
        found = states @ self._units.T
        found[:, self._nameless] = -np.inf
        found[~states.any(axis=1)] = 0.0
        return np.asarray(found, np.float32)

    def _state(self, one: Request) -> Vectors:
        rows = one.history
        if len(rows):
            rows = rows[np.append(True, np.diff(rows) != 0)]  # as it was trained: repeats in a row are one
        read = self._former.items(self._vectors[rows[-self._former.length :]])
        if self._searches and one.vector is not None and one.vector.any():
            read = np.concatenate([read, self._former.queries(one.vector[None])])
        return self._former.state(read) if len(read) else np.zeros(self._units.shape[1], np.float32)
