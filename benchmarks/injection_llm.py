"""Attacks on a language model that ranks: in the titles of candidates, and in what all candidates' prompts share.

The Yes/No logits are asked once; the order at each `rerank_weight` is computed from them. Of the answers to "what comes
next" is counted how often they name the product that is attacked. The part `llm` of benchmarks/injection.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from attacked import ATTACKED, PLACES, Case, Shop, Shopper, cases, put, rank
from attacks import Attack
from lifts import Line, tables

from recgraph.graph import prompts
from recgraph.graph.blend import SMALL_WEIGHT, blend
from recgraph.graph.nodes import Nodes
from recgraph.graph.recommender import Recommender
from recgraph.graph.state import State
from recgraph.store.records import Item
from recgraph.tools.candidates import Candidate

WEIGHTS = (0.0, SMALL_WEIGHT, 0.25, 0.5, 0.75, 1.0)
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
    before = shop.candidates(shop.base, one, one.query, alone=item_id)
    orders, texts = dict[tuple[str, str], Sequence[Candidate]](), dict[tuple[str, str], Item]()
    for place in PLACES[:2]:
        for case in found:
            for text in (case.text, *case.neutral(shop, place)):
                item = put(shop.items[item_id], place, text)
                orders[place, text] = shop.candidates(shop.with_item(item), one, one.query, alone=item_id)
                texts[place, text] = item
    others = dict.fromkeys(line.item_id for order in (before, *orders.values()) for line in order)
    known = [shop.items[other] for other in others]
    pairs = asked.logits(asked.nodes.context(asked.state)[0], [*known, *texts.values()])
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
                neutral = [placed((place, text), weight) for text in case.neutral(shop, place)]
                yield Line.of(case.attack, f"{place} of a candidate", "inside", stands, neutral, at, weight)


def of_shared(shop: Shop, asked: Asked, found: Sequence[Case]) -> Iterator[Line]:
    """The lifts at each weight of the product that comes tenth, where what all prompts share is attacked. The order of
    retrieval is the one without the attack."""
    one = asked.shopper
    order = shop.candidates(shop.base, one, one.query, alone=one.inside)
    items = [shop.items[line.item_id] for line in order]

    def placed(pairs: Sequence[tuple[float, float]], weight: float) -> int:
        return rank([line.candidate for line in blend(order, pairs, weight)], one.inside)

    own = asked.logits(asked.nodes.context(asked.state)[0], items)
    for place in SHARED:
        for case in found:
            texts = case.text, case.neutral(shop, place)[0]
            shared = (asked.nodes.context(asked.with_shared(place, text))[0] for text in texts)
            attacked, neutral = (asked.logits(text, items) for text in shared)
            for weight in WEIGHTS:
                stands = placed(attacked, weight)
                others = [placed(neutral, weight)]
                yield Line.of(case.attack, place, "inside", stands, others, placed(own, weight), weight)


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
    times = {"attacked": sum(one.attacked for one in told), "neutral": sum(one.neutral for one in told)}
    return {
        "models": dict(recommender.models),
        "shoppers": len(found),
        **weights,
        "next": {"cases": len(told), **times},
    }
