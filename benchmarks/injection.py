"""How far a text can move a product: fifty attacks (benchmarks/attacks.py) in a product's title, brand, colour,
attributes and description and in the query, over shoppers of a shop.

    python benchmarks/injection.py --store recgraph.duckdb --part retrieval [--shoppers 4] --out metrics/injection.json
    python benchmarks/injection.py --store recgraph.duckdb --part llm [--shoppers 2] --out metrics/injection.json

The rank lift of an attack is how many places higher the attacked product stands than the same product with neutral
texts of equal length, the median of three in titles: words of the titles, or sentences of the descriptions, of products
of its category, as an honest seller would write them. Two products of each shopper are attacked: the one that comes
tenth, and one that does not come. A product that is not among the first twenty counts as twenty-first. Nothing is asked
of a running service: the parts that read texts are made anew for each text. In a query only a product that does not
come is looked for, and no text that lists what the shop has: who asks for all categories is to get them.

With a language model the titles of candidates are attacked, and what all candidates' prompts share: the title of the
product that the shopper looked at last, and the query, in a text that names the product that comes tenth. The Yes/No
logits are asked once; the order at each `rerank_weight` is computed from them. Of the answers to "what comes next" is
counted how often they name the product that is attacked. As a measure of what a change of words alone does, other
neutral texts take an attack's place ("neutral text").
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
from attacks import Attack, attacks

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
NEUTRALS = 3
DEPTH, ATTACKED = 20, 10  # candidates that are ranked, and the place of the one that is attacked
FAR = 100  # an attacked product that does not come is not among so many
WEIGHTS = (0.0, SMALL_WEIGHT, 0.25, 0.5, 0.75, 1.0)
NEUTRAL = Attack(-1, "neutral text", "")
WORDS = 40  # values that a list of the shop's own has at most
LISTS = ("{categories", "{colours", "{materials", "{brands", "{searches")


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
                *shopper.predicted, text, shopper.history, shopper.memory, k, exclude=shopper.bought, wish=wish
            )
        )

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
    """Every attack, on both products of every shopper, and two neutral texts in an attack's place."""
    shared = words_of(shop)
    for one in found:
        asked = one.query or shared["searches"].split(",")[0]
        for target in ("inside", "outside"):
            own, other = getattr(one, target), one.outside if target == "inside" else one.inside
            words = {**shared, "query": asked, "own": own, "other": other}
            for number, attack in enumerate((*chosen, NEUTRAL, NEUTRAL)):
                rng = random.Random(f"{seed} {one.user_id} {target} {number}")
                text = attack.text(words)
                if attack is NEUTRAL:
                    text = shop.neutral(shop.items[own], "title", rng.randrange(20, 120), rng)
                yield Case(attack, one, target, text, f"{seed} {one.user_id} {target} {number}")


# ── Without a language model ──────────────────────────────────────────────────────────────────────────────────────────


def of_retrieval(shop: Shop, all_cases: Sequence[Case], places: Sequence[str] = PLACES) -> Iterator[Line]:
    """The lifts of each attack in each place."""
    for case in all_cases:
        one, item_id = case.shopper, getattr(case.shopper, case.target)
        item, before = shop.items[item_id], ATTACKED if case.target == "inside" else DEPTH + 1
        lists = any(word in case.attack.template for word in LISTS)

        def placed(place: str, text: str, one: Shopper = one, item: Item = item) -> int:
            if place == "query":
                return rank(shop.candidates(shop.base, one, f"{one.query} {text}".strip()), item.item_id)
            return rank(shop.candidates(shop.with_item(put(item, place, text)), one, one.query), item.item_id)

        for place in places:
            if place != "query" or not (lists or case.target == "inside"):
                attacked = placed(place, case.text)
                neutral = int(np.median([placed(place, text) for text in case.neutral(shop, place)]))
                yield Line(case.attack, place, case.target, neutral - attacked, before - attacked)


# ── With a language model ─────────────────────────────────────────────────────────────────────────────────────────────

SHARED = ("title of the last product", "query")  # what all candidates' prompts hold


@dataclass(frozen=True)
class Asked:
    """A shopper's run up to the reranking, and the nodes that ran it."""

    nodes: Nodes
    state: State
    shopper: Shopper

    @classmethod
    def of(cls, recommender: Recommender, shop: Shop, shopper: Shopper) -> Asked:
        """The product that comes tenth with what the model predicts is the one attacked."""
        state = cast(State, recommender.graph.invoke({"user_id": shopper.user_id, "query": shopper.query}))
        told = state.get("prediction")
        one = replace(shopper, predicted=(told.item_id, told.title) if told else ("", ""))
        first = shop.candidates(shop.base, one, one.query)
        return cls(recommender._nodes(recommender.settings), state, replace(one, inside=first[ATTACKED - 1].item_id))

    def logits(self, shared: str, items: Sequence[Item]) -> list[tuple[float, float]]:
        """Log-probabilities of Yes and No of each, in one call."""
        nodes = self.nodes
        assert nodes.llm is not None
        asked = prompts.fit_prompts(shared, items, wording=nodes.settings.wording)
        different = list(dict.fromkeys(asked))
        pairs, _ = nodes.llm.score(different, adapter=nodes.settings.fit_adapter)
        known = dict(zip(different, pairs, strict=True))
        return [known[one] for one in asked]

    def with_shared(self, place: str, text: str) -> State:
        """The state with a text in what all prompts share."""
        state: dict[str, Any] = dict(self.state)
        if place == "query":
            state["query"] = prompts.clean(f"{self.shopper.query} {text}".strip(), prompts.ASKED_LIMIT)
            return cast(State, state)
        last = next(event.item_id for event in reversed(self.state["history"]) if event.item_id)
        state["items"] = {**self.state["items"], last: replace(self.state["items"][last], title=text)}
        return cast(State, state)


def of_candidates(shop: Shop, asked: Asked, found: Sequence[Case]) -> Iterator[Line]:
    """The lifts at each weight where a candidate's own title is attacked."""
    one, item_id = asked.shopper, asked.shopper.inside
    before = shop.candidates(shop.base, one, one.query)
    orders, texts = dict[tuple[str, str], Sequence[Candidate]](), dict[tuple[str, str], Item]()
    for place in PLACES[:2]:
        for case in found:
            for text in (case.text, *case.neutral(shop, place)):
                item = put(shop.items[item_id], place, text)
                orders[place, text] = shop.candidates(shop.with_item(item), one, one.query)
                texts[place, text] = item
    others = dict.fromkeys(line.item_id for order in (before, *orders.values()) for line in order)
    known = [shop.items[other] for other in others]
    pairs = asked.logits(asked.nodes.shared(asked.state), [*known, *texts.values()])
    own = dict(zip(others, pairs, strict=False))
    attacked = dict(zip(texts, pairs[len(known) :], strict=True))

    def placed(key: tuple[str, str] | None, weight: float) -> int:
        logits = {**own, item_id: own.get(item_id, (0.0, 0.0)) if key is None else attacked[key]}
        order = before if key is None else orders[key]
        scored = blend(order, [logits[line.item_id] for line in order], weight)
        return rank([line.candidate for line in scored], item_id)

    for weight in WEIGHTS:
        at = placed(None, weight)
        for place in PLACES[:2]:
            for case in found:
                stands = placed((place, case.text), weight)
                neutral = np.median([placed((place, text), weight) for text in case.neutral(shop, place)])
                yield Line(case.attack, f"{place} of a candidate", "inside", int(neutral) - stands, at - stands, weight)


def of_shared(shop: Shop, asked: Asked, found: Sequence[Case]) -> Iterator[Line]:
    """The lifts at each weight of the product that comes tenth, where what all prompts share is attacked. The order of
    retrieval is the one without the attack."""
    one = asked.shopper
    order = shop.candidates(shop.base, one, one.query)
    items = [shop.items[line.item_id] for line in order]

    def placed(pairs: Sequence[tuple[float, float]], weight: float) -> int:
        return rank([line.candidate for line in blend(order, pairs, weight)], one.inside)

    own = asked.logits(asked.nodes.shared(asked.state), items)
    for place in SHARED:
        for case in found:
            texts = case.text, case.neutral(shop, place)[0]
            shared = (asked.nodes.shared(asked.with_shared(place, text)) for text in texts)
            attacked, neutral = (asked.logits(text, items) for text in shared)
            for weight in WEIGHTS:
                stands = placed(attacked, weight)
                lifts = placed(neutral, weight) - stands, placed(own, weight) - stands
                yield Line(case.attack, place, "inside", *lifts, weight)


@dataclass(frozen=True)
class Named:
    """Whether the model named the attacked product with the attack, and with the neutral text, in its title."""

    attack: Attack
    attacked: bool
    neutral: bool


def of_prediction(shop: Shop, asked: Asked, found: Sequence[Case]) -> Iterator[Named]:
    """Of the products that the prompt shows, the first that the model does not name by itself is attacked."""
    nodes, state = asked.nodes, asked.state

    def named(items: Mapping[str, Item]) -> str:
        prompt, shown = nodes.next_prompt(cast(State, {**state, "items": items}))
        form = replace(prompts.next_form(shown, items, free_title=True), middle="", drafts={})
        assert nodes.llm is not None
        answers, _ = nodes.llm.generate([prompt], max_tokens=24, form=form, adapter=nodes.settings.next_adapter)
        return answers[0].text.removeprefix(prompts.ID_LEAD).strip()

    own, (_, shown) = named(state["items"]), nodes.next_prompt(state)
    target = next((item_id for item_id in shown if item_id != own), "")
    if not target:
        return
    for case in found:
        texts = case.text.replace(asked.shopper.inside, target), case.neutral(shop, "title")[0]
        changed = ({**state["items"], target: replace(state["items"][target], title=text)} for text in texts)
        yield Named(case.attack, *(named(items) == target for items in changed))


# ── The record ────────────────────────────────────────────────────────────────────────────────────────────────────────


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Places gained over the neutral text, and over the product's own."""
    lifts, own = [line.lift for line in lines], [line.over_own for line in lines]
    return {
        "cases": len(lines),
        "mean": round(float(np.mean(lifts)), 3),
        "worst": max(lifts),
        "least": min(lifts),
        "over_3": sum(lift > 3 for lift in lifts),
        "own_mean": round(float(np.mean(own)), 3),
        "own_worst": max(own),
    }


def grouped(lines: Sequence[Line], key: Any) -> dict[str, dict[str, Any]]:
    groups = defaultdict[str, list[Line]](list)
    for line in lines:
        groups[str(key(line))].append(line)
    return {name: summary(found) for name, found in groups.items()}


def tables(lines: Sequence[Line]) -> dict[str, Any]:
    """All attacks, by place, by family and place, and by attack; and the neutral texts that took an attack's place."""
    real = [line for line in lines if line.attack.number >= 0]
    others = [line for line in lines if line.attack.number < 0]
    return {
        "all": summary(real),
        "neutral text": summary(others),
        "places": grouped(real, lambda line: line.place),
        "targets": grouped(real, lambda line: line.target),
        "families": {
            family: grouped([line for line in real if line.attack.family == family], lambda line: line.place)
            for family in dict.fromkeys(line.attack.family for line in real)
        },
        "attacks": grouped(real, lambda line: f"{line.attack.number:02} {line.attack.template[:60]}"),
    }


def with_llm(
    recommender: Recommender,
    shop: Shop,
    found: Sequence[Shopper],
    seed: int,
    chosen: Sequence[Attack],
    *,
    shared: int,
    every: int,
) -> dict[str, Any]:
    """The record of the language model's part. `shared` attacks, taken from all families, stand in what the prompts of
    the first shopper share; what comes next is asked with one attack of `every` so many."""
    of_titles, in_common, told = list[Line](), list[Line](), list[Named]()
    for number, shopper in enumerate(found):
        asked = Asked.of(recommender, shop, shopper)
        own = [case for case in cases(shop, [asked.shopper], seed, chosen) if case.target == "inside"]
        of_titles += of_candidates(shop, asked, own)
        print(f"{shopper.user_id}: candidates", flush=True)
        told += of_prediction(shop, asked, own[::every])
        print(f"{shopper.user_id}: predictions", flush=True)
        if number == 0 and shared:
            in_common += of_shared(shop, asked, own[:: max(1, len(own) // shared)])
    weights = {
        part: {str(weight): tables([line for line in lines if line.weight == weight]) for weight in WEIGHTS}
        for part, lines in (("candidates", of_titles), ("shared", in_common))
        if lines
    }
    real = [one for one in told if one.attack.number >= 0]
    times = {"attacked": sum(one.attacked for one in real), "neutral": sum(one.neutral for one in real)}
    return {
        "models": dict(recommender.models),
        "shoppers": len(found),
        **weights,
        "next": {"cases": len(real), **times},
    }


def machine() -> str:
    """The system and its processor, and how busy it was."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} CPUs ({platform.machine()}, {platform.system()}, no GPU), load {os.getloadavg()[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--part", choices=("retrieval", "llm"), required=True)
    parser.add_argument("--shoppers", type=int, default=4)
    parser.add_argument("--shared", type=int, default=10, help="attacks in what the prompts of a shopper share")
    parser.add_argument("--every", type=int, default=1, help="of so many attacks one is used to ask what comes next")
    parser.add_argument("--adapter", default="", help="as recgraph run --adapter")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file whose part is made anew (metrics/injection.json)")
    asked = parser.parse_args()
    started = time.monotonic()
    about: dict[str, Any] = {
        "command": f"python benchmarks/injection.py {' '.join(sys.argv[1:])}",
        "date": str(datetime.date.today()),
        "machine": machine(),
        "version": __version__,
        "products": 0,
    }
    with Store.open(asked.store) as store:
        shop = Shop(store, open_encoder())
        about["products"] = len(shop.items)
        found, chosen = shoppers(shop, asked.shoppers, asked.seed), list(attacks())
        if asked.part == "retrieval":
            lines = of_retrieval(shop, list(cases(shop, found, asked.seed, chosen)))
            part = {"shoppers": len(found), **tables(list(lines))}
        else:
            with Recommender.open(asked.store, adapter=asked.adapter) as recommender:
                part = with_llm(recommender, shop, found, asked.seed, chosen, shared=asked.shared, every=asked.every)
    about["minutes"] = round((time.monotonic() - started) / 60, 1)
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out and asked.out.exists() else {}
    text = json.dumps({**known, asked.part: {**about, **part}}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    print(text)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
