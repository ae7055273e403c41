"""The nodes of the recommendation graph but `summarize`, each a function of the state and of the tools it is given.

`load_history → recall_memory → summarize → recommend → retrieve → rerank → explain` (DESIGN 4). A node returns only what it changed.
The LLM nodes raise the LLM's errors; the `without_*` functions are their fallbacks, which take over when retries are used up and say
what is missing in `degraded`, so that a failing or late LLM never loses a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, cast

import numpy as np
from langgraph.errors import NodeError
from langgraph.runtime import Runtime
from langgraph.types import Command

from recgraph.errors import LLMError
from recgraph.graph import prompts
from recgraph.graph.explain import reasons
from recgraph.graph.state import RunContext, Scored, State
from recgraph.graph.summarize import profile_fallback
from recgraph.store.records import Event, Item
from recgraph.tools.llm.protocol import LLM, Prompt
from recgraph.tools.memory import QueryMemory
from recgraph.tools.retrieve import Candidate, Retriever


class StoreReader(Protocol):
    """What the nodes read of the store."""

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]: ...
    def items(self, item_ids: Sequence[str]) -> dict[str, Item]: ...


class TitlesOnly:
    """A reader that keeps what a shop says of its products beside their titles to itself (F table 3, "w/o product attributes")."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    def history(self, user_id: str, before: datetime | None = None, limit: int | None = None) -> list[Event]:
        return self._reader.history(user_id, before, limit)

    def items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Items with their name, style and stock alone."""
        known = self._reader.items(item_ids)
        return {
            key: Item(key, one.name, parent_id=one.parent_id, first_seen=one.first_seen, in_stock=one.in_stock, listed=one.listed)
            for key, one in known.items()
        }


def yes_probability(log_yes: float, log_no: float) -> float:
    """p = sigmoid(logit_yes - logit_no): the difference of log-probabilities is the difference of logits (DESIGN 7)."""
    difference = max(-700.0, min(700.0, log_yes - log_no))
    return 1 / (1 + math.exp(-difference))


def paper_eq3(log_yes: float, log_no: float) -> float:
    """T eq. 3 to the letter: a softmax of the two probabilities, which squeezes every p into (0.27, 0.73). Kept to compare."""
    yes, no = math.exp(log_yes), math.exp(log_no)
    return math.exp(yes) / (math.exp(yes) + math.exp(no))


class Nodes:
    """The nodes over one set of tools. `retriever` and `memory` give the tool fitted before a moment (None is now)."""

    def __init__(
        self,
        reader: StoreReader,
        llm: LLM | None,
        retriever: Callable[[datetime | None], Retriever],
        memory: Callable[[datetime | None], QueryMemory],
        *,
        wording: str = "fashion",
        currency: str = "",
        recent: int = 3,
        history: int = 2,
        prompt_tokens: int = 1024,
        constrain: str = "shown",
        free_title: bool = True,
        memory_queries: int = 2,
        memory_products: int = 2,
        candidates: int = 20,
        mixup: int = 1,
        rerank_weight: float = 0.1,
        catalogue: Sequence[str] = (),
        next_adapter: str | None = None,
        fit_adapter: str | None = None,
    ) -> None:
        self.reader, self.llm, self.retriever, self.memory = reader, llm, retriever, memory
        self.wording, self.currency, self.recent, self.earlier, self.prompt_tokens = wording, currency, recent, history, prompt_tokens
        self.constrain, self.free_title = constrain, free_title
        self.memory_queries, self.memory_products = memory_queries, memory_products
        self.candidates, self.mixup, self.rerank_weight = candidates, mixup, rerank_weight
        self.catalogue, self.known = catalogue, frozenset(catalogue)
        self.next_adapter, self.fit_adapter = next_adapter, fit_adapter

    def load_history(self, state: State) -> State:
        """The user's events before `as_of`, oldest first, and the products in them."""
        history = self.reader.history(state["user_id"], state.get("as_of"))
        missing = [] if history else ["load_history: no events of this user" + (" before the as-of time" if state.get("as_of") else "")]
        items = self.reader.items(sorted({event.item_id for event in history if event.item_id}))
        return {"history": history, "items": items, "degraded": missing}

    def recall_memory(self, state: State) -> State:
        """F 4.2: the stored queries nearest to this one, and what was on top of their results."""
        query = state.get("query") or ""
        if not query or not self.memory_queries:
            return {"memory": []}
        hits = self.memory(state.get("as_of")).lookup(query, queries=self.memory_queries, products=self.memory_products)
        return {"memory": hits, "items": self.reader.items(sorted({item_id for hit in hits for item_id in hit.item_ids}))}

    def recommend(self, state: State, runtime: Runtime[RunContext]) -> State:
        """F 4.2: the LLM names the next item by id and title. The id can only be one of the catalogue's (`constrain`)."""
        if self.llm is None:
            return {"prediction": None}
        prompt, shown = self.next_prompt(state)
        choices = self._choices(state, shown)
        form = prompts.next_form(choices, state["items"], free_title=self.free_title) if choices else None
        deadline = runtime.context.deadline if runtime.context else None
        [answer], usage = self.llm.generate([prompt], max_tokens=64, form=form, adapter=self.next_adapter, deadline=deadline)
        prediction = prompts.parse_next(answer.text, self.known.__contains__, {key: state["items"][key] for key in shown})
        notes = [] if prediction.item_id else ["recommend: the answer named no product of the catalogue"]
        return {"prediction": prediction, "tokens": usage, "degraded": notes}

    def retrieve(self, state: State) -> State:
        """F 4.4: catalogue items for the predicted text, at least `candidates` and `k` of them where the catalogue has so many."""
        prediction = state.get("prediction")
        found = self.retriever(state.get("as_of")).candidates(
            predicted_id=prediction.item_id or None if prediction else None,
            predicted_title=prediction.title if prediction else "",
            query=state.get("query") or "",
            history=state["history"],
            memory=state["memory"],
            k=max(self.candidates, state["k"]),
            mode=state["mode"],
            mixup_n=self.mixup,
        )
        wanted = [candidate.item_id for candidate in found] + ([prediction.item_id] if prediction and prediction.item_id else [])
        return {"candidates": found, "items": self.reader.items(wanted)}

    def rerank(self, state: State, runtime: Runtime[RunContext]) -> State:
        """T 4.3: one Yes/No prompt a candidate. The first `candidates` are scored; further ones keep their order behind them. With a weight of 0
        nothing is asked."""
        if self.llm is None or not self.rerank_weight or not state["candidates"]:
            return {"scored": _in_order(state["candidates"])}
        head, tail = state["candidates"][: self.candidates], state["candidates"][self.candidates :]
        items = [state["items"][candidate.item_id] for candidate in head]
        asked = prompts.fit_prompts(self.shared(state), items, wording=self.wording)
        deadline = runtime.context.deadline if runtime.context else None
        pairs, usage = self.llm.score(asked, adapter=self.fit_adapter, deadline=deadline)
        scored = blend(head, pairs, self.rerank_weight)
        lowest = min(line.score for line in scored)
        return {"scored": [*scored, *_in_order(tail, below=lowest)], "tokens": usage}

    def explain(self, state: State) -> State:
        """A reason for each of the first k, made of events of this user and remembered queries only."""
        return {"recommended": reasons(state)}

    def without_summary(self, state: State, error: NodeError) -> Command[Any]:
        """The LLM summarizer failed: the profile stands in."""
        update = {"summary": profile_fallback(state, self.currency), "degraded": [_told(error, "the counted profile stands in")]}
        return Command(update=update, goto="recommend")

    def without_prediction(self, state: State, error: NodeError) -> Command[Any]:
        """The recommender LLM failed: retrieval goes on without a prediction."""
        return Command(update={"prediction": None, "degraded": [_told(error, "retrieved without a prediction")]}, goto="retrieve")

    def without_scores(self, state: State, error: NodeError) -> Command[Any]:
        """The reranker failed: the order of retrieval stands."""
        return Command(update={"scored": _in_order(state["candidates"]), "degraded": [_told(error, "in the order of retrieval")]}, goto="explain")

    def _recent(self, state: State) -> tuple[list[Event], list[Event]]:
        """Earlier events and the most recent ones, from the `recent`-th last item event on, so that its searches stay with it."""
        events = list(state["history"])
        places = [place for place, event in enumerate(events) if event.item_id]
        cut = places[-self.recent] if 0 < self.recent <= len(places) else (0 if self.recent else len(events))
        recent = [event for event in events[cut:] if event.item_id]
        return [*events[:cut], *(event for event in events[cut:] if not event.item_id)], recent

    def shared(self, state: State) -> str:
        """What both tasks' prompts share; training writes its examples with it too."""
        summary = state.get("summary")
        _, recent = self._recent(state)
        return prompts.shared_text(summary.text if summary else "", state.get("query") or "", recent, state["items"])

    def next_prompt(self, state: State) -> tuple[Prompt, list[str]]:
        """The prompt, cut to `prompt_tokens` by dropping the oldest events, and the ids it shows, in the order shown."""
        assert self.llm is not None
        earlier, recent = self._recent(state)
        shown_earlier = earlier[-self.earlier :] if self.earlier else []
        shared = self.shared(state)
        while True:
            prompt = prompts.next_prompt(shared, shown_earlier, state["memory"], state["items"], wording=self.wording)
            if self.llm.count_tokens(prompt.system + prompt.user) <= self.prompt_tokens or not shown_earlier:
                break
            shown_earlier = shown_earlier[1:]
        remembered = [item_id for hit in state["memory"] for item_id in hit.item_ids]
        shown = [*remembered, *(event.item_id for event in [*recent, *shown_earlier] if event.item_id)]
        return prompt, [item_id for item_id in dict.fromkeys(shown) if item_id in state["items"]]

    def _choices(self, state: State, shown: Sequence[str]) -> Sequence[str]:
        if self.constrain == "off":
            return ()
        if self.constrain == "shown" and shown:
            return shown
        # Where nothing is shown and the catalogue is too large to be a form, the answer is free and the parser alone decides.
        return self.catalogue if self.llm is not None and len(self.catalogue) <= self.llm.max_choices else ()


def blend(candidates: Sequence[Candidate], pairs: Sequence[tuple[float, float]], weight: float) -> list[Scored]:
    """Orders candidates by (1 - weight) x retrieval + weight x Yes/No, both as z-scores; ties keep the order of retrieval.

    `pairs` are log-probabilities of Yes and No, one a candidate. Ranking by the logit difference, not by T eq. 3 (DESIGN 7).
    """
    retrieval = _standard(np.array([-math.log1p(rank) for rank in range(len(candidates))]))
    logits = np.array([yes - no for yes, no in pairs])
    scores = (1 - weight) * retrieval + weight * _standard(logits)
    order = np.argsort(-scores, kind="stable")
    return [Scored(candidates[i], round(float(scores[i]), 6), yes_probability(*pairs[i])) for i in order]


def _standard(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    spread = float(values.std())
    return cast("np.ndarray[Any, np.dtype[np.float64]]", (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values))


def _in_order(candidates: Sequence[Candidate], below: float = 1.0) -> list[Scored]:
    return [Scored(candidate, round(below - 0.01 * (place + 1), 6), None) for place, candidate in enumerate(candidates)]


def _told(error: NodeError, instead: str) -> str:
    """One line for `degraded`. Only the LLM's own errors are survivable; anything else is a bug and goes up."""
    if not isinstance(error.error, LLMError):
        raise error.error
    return f"{error.node}: {error.error} ({instead})"
