"""How far a text can move a product: fifty attacks (benchmarks/attacks.py) in a product's title, brand, colour,
attributes and description and in the query, over shoppers of a shop.

    python benchmarks/injection.py --store recgraph.duckdb [--shoppers 8] [--llm-shoppers 2] [--out metrics/injection.json]

The rank lift of an attack is how many places higher the attacked product stands than the same product with a neutral
text of equal length, which is cut out of other products' descriptions. Two products of each shopper are attacked: the
one that comes tenth, and one that does not come. A product that is not among the first twenty counts as twenty-first.
Nothing is asked of a running service: the parts that read texts are made anew for each text.

With a language model (none with --llm none) the titles of candidates are attacked, and the title of the product that
the shopper looked at last and the query, which all candidates' prompts share and which name the product that comes
tenth. The Yes/No logits are asked once; the order at each `rerank_weight` is computed from them. Of the answers to
"what comes next" is counted how often they name the product that the attack means. As a measure of what a change of
words alone does, other neutral texts take an attack's place ("neutral text").
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from attacks import ORDER, Attack, attacks

from recgraph import __version__
from recgraph.graph import prompts
from recgraph.graph.nodes import SMALL_WEIGHT, Nodes, blend
from recgraph.graph.recommender import Recommender
from recgraph.graph.state import State
from recgraph.store.db import Store
from recgraph.store.records import Event, Item, is_named
from recgraph.tools.candidates import Candidate
from recgraph.tools.embed import Encoder, open_encoder
from recgraph.tools.grown import GrownIndex
from recgraph.tools.memory import MemoryHit, QueryMemory
from recgraph.tools.ranking import PoolReader, Ranker
from recgraph.tools.retrieve import RetrievalQuery, Retriever
from recgraph.tools.sources.kept import Built
from recgraph.tools.sources.registry import SOURCES, make
from recgraph.tools.sources.textformer import unit
from recgraph.tools.wish.renewed import facets_with
from recgraph.tools.wish.understand import understand
from recgraph.tools.wish.vocabulary import Vocabulary

PLACES = ("title", "after the title", "brand", "colour", "attributes", "description", "query")
DEPTH, ATTACKED = 20, 10  # candidates that are ranked, and the place of the one that is attacked
FAR = 100  # an attacked product that does not come is not among so many
WEIGHTS = (0.0, SMALL_WEIGHT, 0.25, 0.5, 0.75, 1.0)
NEUTRAL = Attack(-1, "neutral text", "")
WORDS = 60  # words that a list of the shop's own has at most


@dataclass(frozen=True)
class Shopper:
    """Who is asked for, with what they search for ("" for half of them) and the products that are attacked."""

    user_id: str
    query: str
    history: Sequence[Event]
    memory: Sequence[MemoryHit]
    bought: Sequence[str]
    inside: str = ""
    outside: str = ""


@dataclass(frozen=True)
class Line:
    """What one attack did: how many places the product gained over the neutral text and over the text it had."""

    attack: Attack
    place: str
    target: str
    lift: int
    over_own: int
    weight: float = 0.0


class Remembering:
    """An encoder that computes each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.dim, self._encoder = encoder.name, encoder.dim, encoder
        self.words = getattr(encoder, "words", frozenset())
        self._known: dict[str, Any] = {}

    def encode(self, texts: Sequence[str], progress: Any = None) -> Any:
        """As the encoder's."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(missing, self._encoder.encode(missing, progress), strict=True))
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)


class Shop:
    """A store's retriever, and the same with one product's texts changed."""

    def __init__(self, store: Store, encoder: Encoder) -> None:
        self.store, self.encoder = store, Remembering(encoder)
        self.base = Retriever.build(store, self.encoder)
        self.items = store.items(self.base.catalogue.item_ids)
        self.vocabulary = Vocabulary.of(self.base.fitted.facets, self.encoder)
        self.prose = [word for item in self.items.values() for word in item.description.split()]

    def with_item(self, item: Item) -> Retriever:
        """The retriever of a shop that has this in place of the product of its id."""
        old, row = self.base, self.base.rows[item.item_id]
        names, name = list(old.catalogue.names), item.name
        names[row] = name
        facets = facets_with(old.fitted.facets, {row: item})
        changed = replace(old.fitted, facets=facets, catalogue=replace(old.catalogue, names=names))
        sources = dict(old.ranker.reader.sources)
        if name != old.catalogue.names[row]:
            known = is_named(item.item_id, name)
            vector = self.encoder.encode([name])[0] if known else np.zeros(self.encoder.dim, np.float32)
            titles = GrownIndex(old.titles, [], {row: vector})
            past = replace(old.fitted.past, names=names, kept=Built())
            past.kept.index("titles", lambda: titles)
            if (former := past.former) is not None:
                whole = old.fitted.past.kept.index(former.name, lambda: old.titles)
                read = unit(former.items(vector[None]))[0] * known
                past.kept.index(former.name, lambda: GrownIndex(whole, (), {row: read}))
            reading = (one for one in sources if {"names", "vectors"} & set(SOURCES[one].needs))
            sources |= {one: make(one, past) for one in reading}
            changed = replace(changed, titles=titles, past=past)
        reader = old.ranker.reader
        counts = changed.taken.ever.sum(1)
        ranker = Ranker(
            PoolReader(sources, counts, reader.depth, reader.pool, reader.again, facets), old.ranker.learnt
        )
        return Retriever(replace(changed, ranker=ranker), self.encoder, old.per_style, old.rows)

    def candidates(self, retriever: Retriever, shopper: Shopper, query: str, k: int = DEPTH) -> list[Candidate]:
        """The first `k` for a shopper who asks for this, as a request without a language model finds them."""
        known = [self.items[event.item_id] for event in shopper.history if event.item_id in self.items]
        facets, own = retriever.fitted.facets, self.base.fitted.facets
        same = all(one is own.attributes.get(name) for name, one in facets.attributes.items())
        vocabulary = self.vocabulary if same else Vocabulary.of(facets, self.encoder)
        wish = understand(query, vocabulary, known[-50:], ())
        text = prompts.clean(query, prompts.ASKED_LIMIT)
        return retriever.candidates(
            RetrievalQuery(
                query=text, history=shopper.history, memory=shopper.memory, k=k, exclude=shopper.bought, wish=wish
            )
        )

    def neutral(self, length: int, rng: random.Random) -> str:
        """So many characters of other products' descriptions."""
        found, size = [], -1
        start = rng.randrange(len(self.prose))
        while size < length:
            word = self.prose[start % len(self.prose)]
            found.append(word)
            start, size = start + 1, size + 1 + len(word)
        return " ".join(found)[:length]


def shoppers(shop: Shop, count: int, seed: int) -> list[Shopper]:
    """Drawn among those with at least five events: every second one searches for what they searched for last."""
    rng = random.Random(seed)
    known = sorted(row.user_id for row in shop.store.users(limit=5000) if row.events >= 5)
    memory, found = QueryMemory.build(shop.store, shop.encoder), list[Shopper]()
    for number, user in enumerate(rng.sample(known, min(count, len(known)))):
        history = shop.store.history(user, limit=500)
        searched = [event.query for event in history if event.action == "search"]
        query = searched[-1] if searched and number % 2 == 0 else ""
        one = Shopper(user, query, history, memory.lookup(query, 2, 2) if query else (), shop.store.bought(user))
        first = [line.item_id for line in shop.candidates(shop.base, one, query, FAR)]
        others = sorted(set(shop.base.catalogue.item_ids) - set(first) - set(one.bought))
        offered = [item_id for item_id in others if shop.items[item_id].offered]
        found.append(replace(one, inside=first[ATTACKED - 1], outside=rng.choice(offered)))
    return found


def words_of(shop: Shop) -> dict[str, str]:
    """What the shop has and is asked for, most frequent first, as an attack's words."""

    def listed(values: Sequence[str]) -> str:
        times: dict[str, int] = defaultdict(int)
        for value in values:
            times[value] += bool(value)
        return " ".join(" ".join(sorted(times, key=lambda one: (-times[one], one))).split()[:WORDS])

    items = list(shop.items.values())
    asked = [query for row in shop.store.users(limit=300) for query in _searches(shop.store, row.user_id)]
    return {
        "categories": listed([item.category for item in items]),
        "colours": listed([item.color for item in items]),
        "materials": listed([item.attributes.get("material", "") for item in items]),
        "brands": listed([item.brand for item in items]),
        "searches": listed([word for query in asked for word in query.split()]),
        "favourite": listed(asked).split("  ")[0],
    }


def _searches(store: Store, user_id: str) -> list[str]:
    return [event.query for event in store.history(user_id, limit=50) if event.action == "search"]


def put(item: Item, place: str, text: str) -> Item:
    """The product with a text in a place."""
    if place == "title":
        return replace(item, title=text)
    if place == "after the title":
        return replace(item, title=f"{item.title} {text}")
    if place == "attributes":
        return replace(item, attributes=dict.fromkeys(item.attributes, text))
    return replace(item, **{{"colour": "color"}.get(place, place): text})


def rank(candidates: Sequence[Candidate], item_id: str) -> int:
    return next((place for place, one in enumerate(candidates, 1) if one.item_id == item_id), DEPTH + 1)


@dataclass(frozen=True)
class Case:
    """An attack on a product, as a text, and a neutral text of the same length."""

    attack: Attack
    shopper: Shopper
    target: str
    text: str
    neutral: str


def cases(shop: Shop, found: Sequence[Shopper], seed: int, chosen: Sequence[Attack]) -> Iterator[Case]:
    """Every attack and two neutral texts, on both products of every shopper."""
    shared = words_of(shop)
    for one in found:
        asked = one.query or shared["searches"].split()[0]
        for target in ("inside", "outside"):
            own, other = getattr(one, target), one.outside if target == "inside" else one.inside
            words = {**shared, "query": asked, "own": own, "other": other}
            for attack in (*chosen, NEUTRAL, NEUTRAL):
                rng = random.Random(f"{seed} {one.user_id} {target} {attack.number}")
                text = attack.text(words) if attack is not NEUTRAL else shop.neutral(rng.randrange(20, 120), rng)
                yield Case(attack, one, target, text, shop.neutral(len(text), rng))


# ── Without a language model ──────────────────────────────────────────────────────────────────────────────────────────


def of_retrieval(shop: Shop, all_cases: Sequence[Case], places: Sequence[str]) -> Iterator[Line]:
    """The lifts of each attack in each place. In a query only a product that does not come, and that the attack names,
    is looked for: another query has another answer."""
    for case in all_cases:
        one, item_id = case.shopper, getattr(case.shopper, case.target)
        item, before = shop.items[item_id], ATTACKED if case.target == "inside" else DEPTH + 1
        for place in places:
            if place == "query":
                if case.target == "inside":
                    continue
                found = [
                    rank(shop.candidates(shop.base, one, f"{one.query} {text}".strip()), item_id)
                    for text in (case.text, case.neutral)
                ]
            else:
                found = [
                    rank(shop.candidates(shop.with_item(put(item, place, text)), one, one.query), item_id)
                    for text in (case.text, case.neutral)
                ]
            yield Line(case.attack, place, case.target, found[1] - found[0], before - found[0])
