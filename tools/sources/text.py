"""Sources of candidates that read texts, queries or what was trained: words, vectors, the query memory, CORE and the
text transformer, and what a language model has named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recgraph.errors import SettingsError
from recgraph.tools.index import VectorIndex
from recgraph.tools.sources.base import HISTORY, Past, Request, Rows, Said, Vectors, share
from recgraph.tools.sources.said import Led, Near, Sparse, by_words
from recgraph.tools.sources.sums import weighted
from recgraph.tools.sources.textformer import TextFormer, unit
from recgraph.tools.sources.transitions import RECENCY, recency_weights

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
        self._settings, self._words = settings or WordsSettings(), past.words

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 where no word is shared."""
        recency, table = self._settings.recency, self._words.table
        return by_words([weighted(one.read(recency), table) for one in asked], self._words)


class QueryWords:
    """Items whose names share words with the query."""

    def __init__(self, past: Past) -> None:
        self._words = past.words

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 where no word is shared."""
        return by_words([self._words.read(one.query) for one in asked], self._words)


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
        self._settings, self._titles = settings or TextKNNSettings(), past.titles

    def ask(self, asked: Sequence[Request]) -> Said:
        """Cosines; nothing without a history."""
        return Near(self._titles, _taste(asked, self._titles, self._settings.recency))


class QueryText:
    """Items whose text is near to the query's, moved a little (`LEANING`) towards the history's."""

    def __init__(self, past: Past) -> None:
        self._titles = past.titles

    def ask(self, asked: Sequence[Request]) -> Said:
        """Nothing without a query."""
        given = np.array([one.vector is not None and bool(one.vector.any()) for one in asked], np.bool_)
        wanted = np.zeros((len(asked), self._titles.dim), np.float32)
        for line, one in enumerate(asked):
            if given[line] and one.vector is not None:
                wanted[line] = one.vector
        if given.any():
            wanted[given] += LEANING * _taste(asked, self._titles, RECENCY)[given]
        return Near(self._titles, wanted)


def _taste(asked: Sequence[Request], titles: VectorIndex, recency: float) -> Vectors:
    """float32[requests, d] of length 1: the weighted mean of each history's vectors; zero where nothing is known."""
    mean = np.zeros((len(asked), titles.dim), np.float32)
    for line, one in enumerate(asked):
        rows: Rows = one.history[-HISTORY:]
        if len(rows):
            mean[line] = recency_weights(len(rows), recency).astype(np.float32) @ titles.vectors(rows)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(np.divide(mean, norm, out=np.zeros_like(mean), where=norm > 1e-9), np.float32)


class Remembered:
    """What the query memory (F 4.2) holds of the query, as the request brings it."""

    def __init__(self, past: Past) -> None:
        self._n_items = past.n_items

    def ask(self, asked: Sequence[Request]) -> Said:
        """0 for what it does not hold."""
        held = [np.array(one.memory, np.float64).reshape(-1, 2) for one in asked]
        return Sparse([(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.float32)) for pairs in held], self._n_items)


# ── Trained ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Encoded:
    """What is near to the history for CORE's encoder; a cold item is not ranked. SettingsError where the past has
    none."""

    def __init__(self, past: Past) -> None:
        self._sessions = past.sessions
        self._core = past.core

    def ask(self, asked: Sequence[Request]) -> Said:
        """Cosines; nothing where the encoder knows nothing of a history."""
        vectors = np.zeros((len(asked), self._sessions.dim), np.float32)
        for line, one in enumerate(asked):
            if self._core is not None and len(one.history):
                vectors[line] = self._core.session_vector(one.history)
        return Near(self._sessions, vectors)


class NextText:
    """What the text transformer expects after the history's texts and the query's, which it reads if it has learnt from
    any; an item of which nothing is known is not ranked. SettingsError where the past has none."""

    def __init__(self, past: Past) -> None:
        if past.former is None:
            raise SettingsError(
                "The source textformer was asked for without a trained text transformer; give the past one."
            )
        former = self._former = past.former
        self._titles, self._searches = past.titles, bool(former.config["queries"])
        self._expected = past.kept.index(former.name, lambda: VectorIndex(None, _read(former, past.titles)))

    def ask(self, asked: Sequence[Request]) -> Said:
        """Cosines; nothing where there is neither a history nor a query."""
        states = np.zeros((len(asked), self._expected.dim), np.float32)
        for line, one in enumerate(asked):
            states[line] = self._state(one)
        return Near(self._expected, states)

    def _state(self, one: Request) -> Vectors:
        rows = one.history
        if len(rows):
            rows = rows[np.append(True, np.diff(rows) != 0)]  # as it was trained: repeats in a row are one
        read = self._former.items(self._titles.vectors(rows[-self._former.length :]))
        if self._searches and one.vector is not None and one.vector.any():
            read = np.concatenate([read, self._former.queries(one.vector[None])])
        return self._former.state(read) if len(read) else np.zeros(self._expected.dim, np.float32)


def _read(former: TextFormer, titles: VectorIndex) -> Vectors:
    """float32[items, d] of length 1: the titles as the network compares them with what it expects; zero for a zero
    vector."""
    parts = range(0, max(len(titles), 1), _BLOCK)
    read = [unit(former.items(titles.vectors(np.arange(part, min(part + _BLOCK, len(titles)))))) for part in parts]
    return np.asarray(np.concatenate(read) * titles.known[:, None], np.float32)


# ── What a language model expects ─────────────────────────────────────────────────────────────────────────────────────


class PredictedId:
    """The item that a language model named, and its neighbours in the ID embedding (F 4.4)."""

    def __init__(self, past: Past) -> None:
        self._ids = past.neighbours

    def ask(self, asked: Sequence[Request]) -> Said:
        """Cosines; nothing without a prediction. Of an item without a vector only itself."""
        vectors = np.zeros((len(asked), self._ids.dim), np.float32)
        for line, one in enumerate(asked):
            if one.predicted is not None:
                vectors[line] = self._ids.vectors(one.predicted)
        return Led(Near(self._ids, vectors), [one.predicted for one in asked])


class PredictedTitle:
    """Items whose text is near to the title that a language model named."""

    def __init__(self, past: Past) -> None:
        self._titles = past.titles

    def ask(self, asked: Sequence[Request]) -> Said:
        """Cosines; nothing without a prediction."""
        vectors = np.zeros((len(asked), self._titles.dim), np.float32)
        for line, one in enumerate(asked):
            if one.predicted_title is not None:
                vectors[line] = one.predicted_title
        return Near(self._titles, vectors)
