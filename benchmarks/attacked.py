"""A shop one of whose products is attacked: the shoppers who are asked for, the texts that are put in a product's
places, neutral ones of equal length, and the place where the product then stands.

Nothing is asked of a running service: the parts of retrieval that read texts are made anew for each text. Other
variants of the product's style are left out of what is ranked: at most three of a style are shown, and where a title
makes its own sibling take its place nobody else has won or lost any. What is counted of the places is unknown here.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from attacks import Attack

from recgraph.graph import prompts
from recgraph.store.db import Store
from recgraph.store.records import Event, Item, is_named
from recgraph.tools.candidates import Candidate
from recgraph.tools.embed import Encoder
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
NEUTRALS = 5
DEPTH, ATTACKED = 20, 10  # candidates that are ranked, and the place of the one that is attacked
FAR = 100  # an attacked product that does not come is not among so many
WORDS = 40  # values that a list of the shop's own has at most


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
    predicted: tuple[str, str] = ("", "")


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
        self._own_kind: dict[tuple[str, str], list[str]] = {}

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
            lengths = old.fitted.lengths
            vector = lengths.scaled(self.encoder.encode([lengths.read(name)]), [lengths.read(name)])[0] * known
            titles = GrownIndex(old.titles, [], {row: vector})
            past = replace(old.fitted.past, names=names, kept=Built())
            past.kept.index("titles", lambda: titles)
            if (former := past.former) is not None:
                whole = old.fitted.past.kept.index(former.name, lambda: old.titles)
                read = unit(former.items(vector[None]))[0] * known
                past.kept.index(former.name, lambda: GrownIndex(whole, (), {row: read}))
            same_maker = name.split()[:2] == old.catalogue.names[row].split()[:2]
            reading = [one for one in sources if {"names", "vectors"} & set(SOURCES[one].needs)]
            reading = [one for one in reading if one != "maker-transitions" or not same_maker]
            sources |= {one: make(one, past) for one in reading}
            changed = replace(changed, titles=titles, past=past)
        reader = old.ranker.reader
        counts = changed.taken.ever.sum(1)
        ranker = Ranker(PoolReader(sources, counts, reader.depth, reader.pool, reader.again, facets), old.ranker.learnt)
        return Retriever(replace(changed, ranker=ranker), self.encoder, old.per_style, old.rows)

    def candidates(
        self, retriever: Retriever, shopper: Shopper, query: str, k: int = DEPTH, alone: str = ""
    ) -> list[Candidate]:
        """The first `k` for a shopper who asks for this, as a request without a language model finds them; without the
        other variants of the product `alone`."""
        known = [self.items[event.item_id] for event in shopper.history if event.item_id in self.items]
        facets, own = retriever.fitted.facets, self.base.fitted.facets
        same = all(one is own.attributes.get(name) for name, one in facets.attributes.items())
        vocabulary = self.vocabulary if same else Vocabulary.of(facets, self.encoder)
        wish = understand(query, vocabulary, known[-50:], ())
        text = prompts.clean(query, prompts.ASKED_LIMIT)
        hidden = [*shopper.bought, *self.variants(alone)]
        return retriever.candidates(
            RetrievalQuery(*shopper.predicted, text, shopper.history, shopper.memory, k, exclude=hidden, wish=wish)
        )

    def variants(self, item_id: str) -> list[str]:
        """Others of its style."""
        style = self.items[item_id].parent_id if item_id else ""
        return [
            one.item_id for one in self.items.values() if style and one.parent_id == style and one.item_id != item_id
        ]

    def neutral(self, item: Item, place: str, length: int, rng: random.Random) -> str:
        """So many characters of what other products of its category have in such a place: words of titles in any order,
        or descriptions."""
        field = "title" if "title" in place else "description"
        if (item.category, field) not in self._own_kind:
            alike = [one for one in self.items.values() if one.category == item.category and one != item]
            self._own_kind[item.category, field] = [word for one in alike for word in getattr(one, field).split()]
        words, found, size = self._own_kind[item.category, field], list[str](), -1
        start = rng.randrange(len(words))
        while size < length:
            found.append(words[start % len(words)] if field == "description" else rng.choice(words))
            start, size = start + 1, size + 1 + len(found[-1])
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
        return ", ".join(sorted(times, key=lambda one: (-times[one], one))[:WORDS])

    items = list(shop.items.values())
    asked = [query for row in shop.store.users(limit=300) for query in _searches(shop.store, row.user_id)]
    return {
        "categories": listed([item.category for item in items]),
        "colours": listed([item.color for item in items]),
        "materials": listed([item.attributes.get("material", "") for item in items]),
        "brands": listed([item.brand for item in items]),
        "searches": listed([word for query in asked for word in query.split()]),
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
    """An attack on one of a shopper's products, as a text."""

    attack: Attack
    shopper: Shopper
    target: str
    text: str
    seed: str

    def neutral(self, shop: Shop, place: str) -> list[str]:
        """Texts of the same length: several where a title is attacked and the product comes, one elsewhere."""
        rng = random.Random(f"{self.seed} {place}")
        item = shop.items[getattr(self.shopper, self.target)]
        count = NEUTRALS if "title" in place and self.target == "inside" else 1
        return [shop.neutral(item, place, len(self.text), rng) for _ in range(count)]


def cases(shop: Shop, found: Sequence[Shopper], seed: int, chosen: Sequence[Attack]) -> Iterator[Case]:
    """Every attack, on both products of every shopper."""
    shared = words_of(shop)
    for one in found:
        asked = one.query or shared["searches"].split(",")[0]
        for target in ("inside", "outside"):
            own, other = getattr(one, target), one.outside if target == "inside" else one.inside
            words = {**shared, "query": asked, "own": own, "other": other}
            for number, attack in enumerate(chosen):
                yield Case(attack, one, target, attack.text(words), f"{seed} {one.user_id} {target} {number}")
