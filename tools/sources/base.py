"""What sources of candidates (tools/sources/registry.py) are made of, a `Past`: the past as it is known at some moment;
what they are asked, a `Request`; and what they answer, a `Said`, whose kinds are in tools/sources/said.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.store.columns import Sequences
from recgraph.tools.index import VectorIndex
from recgraph.tools.sources.core import Core
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.sums import Line
from recgraph.tools.sources.textformer import TextFormer
from recgraph.tools.sources.transitions import recency_weights
from recgraph.tools.sources.words import Words
from recgraph.tools.wish.wish import Wish

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]

# what a source may need of the past, beside its events
Need = Literal["names", "vectors", "ids", "core", "former"]

HISTORY = 50  # items of a history that are read, the newest


@dataclass(frozen=True)
class Past:
    """What sources are made of: the events of the past, and the catalogue's names with their unit `vectors` (zero where
    nothing is known of an item; None without an encoder). `core`, over this catalogue, and `former` are None where none
    was trained; `ids` are the unit vectors of the ID embedding, CORE's item table where they are None. What sources
    build of all this lies in `kept`, which is of this past alone."""

    events: Sequences
    names: Sequence[str]
    vectors: Vectors | None = None
    core: Core | None = None
    former: TextFormer | None = None
    ids: Vectors | None = None
    kept: Built = field(default_factory=Built)

    @property
    def n_items(self) -> int:
        return len(self.names)

    def has(self, need: Need) -> bool:
        """Whether it holds what a source needs: names that tell items apart, text vectors, an ID embedding, a trained
        CORE, a trained text transformer."""
        if need == "names":
            return self._named
        if need == "ids":
            return self.ids is not None or self.core is not None
        return {"vectors": self.vectors, "core": self.core, "former": self.former}[need] is not None

    @cached_property
    def _named(self) -> bool:
        return any(name != self.names[0] for name in self.names)

    @cached_property
    def words(self) -> Words:
        """The names as words."""
        return Words.in_kept(self.names, self.kept)

    @cached_property
    def titles(self) -> VectorIndex:
        """The index over the text vectors, one for all sources. SettingsError where there are none."""
        if self.vectors is None:
            raise SettingsError(
                "A source that reads texts was asked for without text vectors; give the past an encoder's."
            )
        vectors = self.vectors
        return self.kept.index("titles", lambda: VectorIndex(None, vectors))

    @cached_property
    def sessions(self) -> VectorIndex:
        """The index over CORE's item table. SettingsError where there is none."""
        if self.core is None:
            raise SettingsError("The source core was asked for without a trained CORE; give the past one.")
        core = self.core
        # With CORE the ID embedding is its table, and one index serves both.
        return self.kept.index("ids" if self.ids is not None else "core", lambda: VectorIndex(None, core.units()))

    @cached_property
    def neighbours(self) -> VectorIndex:
        """The index over the ID embedding. SettingsError where there is none."""
        if self.ids is None:
            return self.sessions
        vectors = self.ids
        return self.kept.index("ids", lambda: VectorIndex(None, vectors))


@dataclass(frozen=True)
class Request:
    """What is asked: the rows of a history's items, oldest first; the query, and its vector where there is an encoder;
    what the query memory holds of it, (row, score) pairs; whether the query is fresh: nothing was looked at under it
    yet; the wish it was understood as; and what a language model expects: the row of an item, and the vector of a
    title."""

    history: Rows
    query: str = ""
    vector: Vectors | None = None
    memory: tuple[tuple[int, float], ...] = ()
    fresh: bool = False
    wish: Wish | None = None
    predicted: int | None = None
    predicted_title: Vectors | None = None

    @cached_property
    def _distinct(self) -> tuple[Rows, Rows]:
        return np.unique(self.history[-HISTORY:], return_inverse=True)

    def read(self, recency: float) -> Line:
        """The distinct items of the history, ascending: the newest weighs 1, each one before it `recency` of the one
        after; repeats add up."""
        rows, place = self._distinct
        weights = np.zeros(len(rows), np.float32)
        np.add.at(weights, place, recency_weights(len(place), recency).astype(np.float32))
        return rows, weights


class Said(Protocol):
    """What a source says of n requests, without a number for each item of the catalogue.

    `mean` and `deviation` float32[n] are those of a request's scores over all items that the source can rank; 0 and 1
    where it says nothing of a request. An item's height is how many deviations it lies above the mean.
    """

    mean: Scores
    deviation: Scores

    def first(self, line: int, depth: int, may: Mask | None = None) -> Rows:
        """The rows with the highest scores above the mean, best first, equal ones by row, at most `depth`; of those
        that `may` bool[items] allows."""
        ...

    def at(self, rows: Rows) -> Scores:
        """float32[n, pool] for int64[n, pool]: the scores of these items; an item that the source cannot rank gets the
        mean, and so the height 0."""
        ...


class Source(Protocol):
    """What proposes items of a catalogue and says what it thinks of others'."""

    def ask(self, asked: Sequence[Request]) -> Said:
        """Of all requests at once."""
        ...


def share(name: str, value: float) -> None:
    """SettingsError unless a setting is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise SettingsError(f"{name} is {value}; it must be above 0 and at most 1.")


def at_least(name: str, value: float, least: float) -> None:
    """SettingsError for a setting below `least`."""
    if value < least:
        raise SettingsError(f"{name} is {value}; it must be at least {least}.")
