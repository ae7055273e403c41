"""Candidate sources by name: what follows what, neighbours by shoppers, words, makers and texts, what fits a query, and
what trained encoders expect.

A source is made of a `Past` and asked with `Request`s (tools/sources/base.py): a history as catalogue rows, a query. It
answers all of them at once with a `Said`: which items it would propose, and what it thinks of those that others do; 0
(or the same for all) means that it has nothing to say. No random number is used, and what a single request costs does
not grow with the catalogue. What weighs one source against another is in tools/ranking.py; evaluation uses the same
classes (evaluation/baselines/counted.py), so what is measured is what serves.

A new source is a class with `ask` in a file of this room and an entry below: how it is made, as what an answer shows
it, and what it needs. The stage `ranking` then learns how far to believe it, and what is published serves with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from recgraph.tools.sources.base import Need, Past, Source
from recgraph.tools.sources.counted import (
    ItemKNN,
    ItemKNNSettings,
    Popularity,
    SessionKNN,
    Transitions,
    TransitionSettings,
    Viewed,
)
from recgraph.tools.sources.makers import MakerTransitions
from recgraph.tools.sources.text import (
    Encoded,
    NextText,
    PredictedId,
    PredictedTitle,
    QueryText,
    QueryWords,
    Remembered,
    TextKNN,
    WordKNN,
)

# `source` in the public JSON (DESIGN 8)
ShownAs = Literal["id", "title", "sequence", "memory", "text", "lexical", "popular"]


@dataclass(frozen=True)
class SourceEntry:
    """How a source is made of the past, as what an answer shows it, and what of the past it cannot be made without."""

    make: Callable[[Past], Source]
    shown_as: ShownAs
    needs: tuple[Need, ...] = ()


# In this order a network reads them.
SOURCES: dict[str, SourceEntry] = {
    "popularity": SourceEntry(Popularity, "popular"),
    "transitions": SourceEntry(Transitions, "sequence"),
    "next-step": SourceEntry(lambda past: Transitions(past, TransitionSettings(window=1, recency=0.3)), "sequence"),
    "item-knn": SourceEntry(lambda past: ItemKNN(past, ItemKNNSettings(user_power=0.5, shrink=1.0)), "sequence"),
    "session-knn": SourceEntry(SessionKNN, "sequence"),
    "maker-transitions": SourceEntry(MakerTransitions, "sequence", needs=("names",)),
    "viewed": SourceEntry(Viewed, "sequence"),
    "word-knn": SourceEntry(WordKNN, "title", needs=("names",)),
    "text-knn": SourceEntry(TextKNN, "title", needs=("names", "vectors")),
    "query-text": SourceEntry(QueryText, "text", needs=("names", "vectors")),
    "query-words": SourceEntry(QueryWords, "text", needs=("names",)),
    "memory": SourceEntry(Remembered, "memory"),
    "core": SourceEntry(Encoded, "sequence", needs=("core",)),
    "textformer": SourceEntry(NextText, "text", needs=("names", "vectors", "former")),
    "id": SourceEntry(PredictedId, "id", needs=("ids",)),
    "title": SourceEntry(PredictedTitle, "title", needs=("names", "vectors")),
}
NAMES = tuple(SOURCES)


def possible(past: Past) -> tuple[str, ...]:
    """The names of the sources that can be made of what is known of the past."""
    return tuple(name for name, entry in SOURCES.items() if all(past.has(need) for need in entry.needs))


def make(name: str, past: Past) -> Source:
    """A source by its name. KeyError for an unknown name, SettingsError where the past has not what it needs."""
    return SOURCES[name].make(past)
