"""What sources of candidates (tools/sources/registry.py) are made of, a `Past`: the past as it is known at some moment;
and what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store.columns import Sequences
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.sources.transitions import recency_weights
from recgraph.tools.sources.words import Words

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Vectors = NDArray[np.float32]

Need = Literal["names", "vectors", "core", "former"]  # what a source may need of the past, beside its events

HISTORY = 50  # items of a history that are read, the newest


@dataclass(frozen=True)
class Past:
    """What sources are made of: the events of the past, and the catalogue's names with their unit `vectors` (zero where
    nothing is known of an item; None without an encoder). `core`, over this catalogue, and `former` are None where none
    was trained."""

    events: Sequences
    names: Sequence[str]
    vectors: Vectors | None = None
    core: Core | None = None
    former: TextFormer | None = None

    @property
    def n_items(self) -> int:
        return len(self.names)

    def has(self, need: Need) -> bool:
        """Whether it holds what a source needs: names that tell items apart, text vectors, a trained CORE, a trained
        text transformer."""
        if need == "names":
            return len(set(self.names)) > 1
        return {"vectors": self.vectors, "core": self.core, "former": self.former}[need] is not None

    @cached_property
    def words(self) -> Words:
        """The names as words."""
        return Words.of(self.names)

    @property
    def known_vectors(self) -> Vectors:
        """The vectors. SettingsError where there are none."""
        if self.vectors is None:
            raise SettingsError(
                "A source that reads texts was asked for without text vectors; give the past an encoder's."
            )
        return self.vectors


@dataclass(frozen=True)
class Request:
    """What is asked: the rows of a history's items, oldest first; the query, and its vector where there is an encoder;
    what the query memory holds of it, (row, score) pairs; and whether the query is fresh: nothing was looked at under
    it yet."""

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
    """float32[requests, n_items]: the newest item of a history weighs 1, each one before it `recency` of the one after;
    repeats add up."""
    newest = [one[-length:] for one in histories]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in newest])]).astype(np.int64)
    weights = recency_weights(length, recency).astype(np.float32)
    value = np.concatenate([weights[length - len(one) :] for one in newest]) if newest else np.zeros(0, np.float32)
    rows = np.concatenate(newest) if newest else np.zeros(0, np.int64)
    found = sp.csr_matrix((value, rows, starts), shape=(len(newest), n_items))
    found.sum_duplicates()
    return found


def read(asked: Sequence[Request], n_items: int, recency: float) -> sp.csr_matrix:
    """`read_weights` of the requests' histories."""
    return read_weights([one.history for one in asked], n_items, recency)


def dense(product: sp.csr_matrix) -> Scores:
    """A sparse product as scores."""
    return np.asarray(product.toarray(), np.float32)


def share(name: str, value: float) -> None:
    """SettingsError unless a setting is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise SettingsError(f"{name} is {value}; it must be above 0 and at most 1.")


def at_least(name: str, value: float, least: float) -> None:
    """SettingsError for a setting below `least`."""
    if value < least:
        raise SettingsError(f"{name} is {value}; it must be at least {least}.")
