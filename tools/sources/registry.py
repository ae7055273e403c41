"""Candidate sources by name: what follows what, neighbours by shoppers, words, makers and texts, what fits a query, and what trained encoders expect.

A source is made of a `Past` and asked with `Request`s (tools/sources/base.py): a history as catalogue rows, a query. It answers all of them at once
with a score for each item of the catalogue; 0 (or the same for all) means that it has nothing to say. No random number is used, and a single
request costs about a millisecond. What weighs one source against another is in tools/ranking.py; evaluation uses the same classes
(evaluation/baselines/counted.py), so what is measured is what serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recgraph.tools.sources.base import Past, Source
from recgraph.tools.sources.counted import (
    ItemKNN,
    ItemKNNSettings,
    MakerTransitions,
    Popularity,
    SessionKNN,
    Transitions,
    TransitionSettings,
    Viewed,
)
from recgraph.tools.sources.text import Encoded, NextText, QueryText, QueryWords, Remembered, TextKNN, WordKNN

_KINDS: Mapping[str, tuple[str, Callable[[Past], Source]]] = {
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
    "textformer": ("text", NextText),
}
_NAMED, _ENCODED = ("word-knn", "maker-transitions", "query-words"), ("text-knn", "query-text", "textformer")  # what reads names, and their vectors
NAMES = tuple(_KINDS)
SHOWN_AS: Mapping[str, str] = {name: shown for name, (shown, _) in _KINDS.items()}  # the names of DESIGN 8


def possible(shop: Past) -> tuple[str, ...]:
    """The names of the sources that can be made: of names only where there are some, of vectors where there is an encoder, and what is trained."""
    named = len(set(shop.names)) > 1
    left_out = () if named and shop.vectors is not None else _ENCODED if named else (*_NAMED, *_ENCODED)
    untrained = [name for name, there in (("core", shop.core), ("textformer", shop.former)) if there is None]
    return tuple(name for name in NAMES if name not in (*left_out, *untrained))


def make(name: str, shop: Past) -> Source:
    """A source by its name. KeyError for an unknown name, SettingsError where the shop has not what it needs."""
    return _KINDS[name][1](shop)
