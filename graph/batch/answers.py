"""Answers for many users, without a request of theirs: what each would get who opens the shop now.

Without a language model the nodes of the graph are run here, each for many users at once (`at_once`); what they say is
what the graph says (tests/test_batch.py). Left out is the summary, which only a model reads. With a model the graph is
asked user by user, by several threads where a server answers (`by_graph`). Neither leaves a run in the log. Shards,
files and processes are unknown here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime

from recgraph.errors import StoreError
from recgraph.graph.batch.outage import Outage
from recgraph.graph.nodes import NAMED_NOTHING, Nodes
from recgraph.graph.recommendation import Recommendation, kinds_of, rounded
from recgraph.graph.recommender import Recommender
from recgraph.graph.state import RunContext, State
from recgraph.store.batch.tables import Row

AT_ONCE = 64  # users that are answered together
_TRIES = 2  # a server may go away again, and what it says may be of no use every time
_ASKING = {"summarize", "recommend", "rerank"}


def answers(
    recommender: Recommender, user_ids: Sequence[str], threads: int = 1, outage: Outage | None = None
) -> Iterator[Recommendation]:
    """One of each user, in their order, by the recommender's settings. `outage` is what is known of a server."""
    return by_graph(recommender, user_ids, threads, outage) if recommender.llm else at_once(recommender, user_ids)


def at_once(recommender: Recommender, user_ids: Sequence[str]) -> Iterator[Recommendation]:
    """Without a language model."""
    for start in range(0, len(user_ids), AT_ONCE):
        part = user_ids[start : start + AT_ONCE]
        recommender.read_ahead(part)
        states = run_nodes(recommender.nodes, [{"user_id": user_id} for user_id in part])
        yield from (_told(recommender, state) for state in states)


def run_nodes(nodes: Nodes, asked: Sequence[State]) -> list[State]:
    """The final states of requests that need no model and are as of one moment: load_history, understand, retrieve,
    rerank and explain, in that order."""
    runtime = Runtime(context=RunContext())
    states, left = [], []
    for request in asked:
        begun = nodes.begin(request, runtime)
        states.append(_after(request, cast(Mapping[str, Any], begun.update)))
        if begun.goto == "understand":
            left.append(len(states) - 1)
    for place in left:
        states[place] = _after(_after(states[place], nodes.understand(states[place], runtime)), _WITHOUT_MODEL)
    found = nodes.retrieve_all([states[place] for place in left]) if left else []
    for place, update in zip(left, found, strict=True):
        states[place] = _after(states[place], update)
        states[place] = _after(states[place], nodes.rerank(states[place], runtime))
    return [_after(state, nodes.explain(state, runtime)) for state in states]


# What recall_memory, summarize and recommend say where there is neither a query nor a model, the summary left out.
_WITHOUT_MODEL: Mapping[str, Any] = {"memory": [], "summary": None, "prediction": None}


def _after(state: State, update: Mapping[str, Any] | State) -> State:
    """The state with what a node returned, as the graph's reducers add it (graph/state.py)."""
    added = {**state, **update}
    added["items"] = {**state.get("items", {}), **update.get("items", {})}
    for name in ("degraded", "left_out"):
        added[name] = [*state.get(name, ()), *update.get(name, ())]  # type: ignore[misc]
    return cast(State, added)


def by_graph(
    recommender: Recommender, user_ids: Sequence[str], threads: int = 1, outage: Outage | None = None
) -> Iterator[Recommendation]:
    """With a language model. Whom a server was lost for is asked again once it is back. What it summarised is kept for
    next time, as a single run keeps it."""
    llm = recommender.llm
    assert llm is not None
    away = outage or Outage(llm, recommender.adapters.names.values())
    ended = threading.Event()

    def ask(user_id: str) -> Recommendation:
        state = _asked(recommender, user_id)
        for _ in range(_TRIES):
            if llm.on_cpu or not _is_lost(state) or not away.is_over(ended):
                break
            state = _asked(recommender, user_id)
        return _told(recommender, state, _unsaved(recommender, state))

    around = copy_context()  # with the span that runs are put under: a thread would begin without
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(lambda user_id: around.copy().run(ask, user_id), user_ids)
        finally:  # Ctrl-C does not wait for a server that is away
            ended.set()


def _asked(recommender: Recommender, user_id: str) -> State:
    recommender.take_adapters()
    context, asked = RunContext.within(recommender.settings.deadline), {"user_id": user_id}
    config: RunnableConfig = {"callbacks": [made() for made in recommender.callbacks]}
    return cast(State, recommender.graph.invoke(cast(Any, asked), config, context=cast(Any, context)))


def _is_lost(state: State) -> bool:
    """Whether a stage that asks a model had to do without. An answer that named no product was given: asked again, the
    model would say the same."""
    notes = [note for note in state.get("degraded") or () if note != NAMED_NOTHING]
    return not _ASKING.isdisjoint(kinds_of(notes))


def _unsaved(recommender: Recommender, state: State) -> list[str]:
    """Keeps the summaries that a model wrote; what there is to say where they cannot be."""
    made = [one for one in state.get("made") or () if one.model != "profile"]  # counting costs less than keeping
    try:
        if made:
            recommender.store.save_summaries(made)
    except StoreError as error:
        return [f"save: summaries were not kept for next time: {error}"]
    return []


def _told(recommender: Recommender, state: State, unsaved: Sequence[str] = ()) -> Recommendation:
    notes = [*recommender.adapters.notes, *state.get("degraded", ()), *unsaved]
    models = recommender.models
    return Recommendation.of(cast(State, {**state, "degraded": notes}), {"total": 0.0}, models, recommender.currency)


def rows_of(found: Recommendation, events: int) -> Iterator[Row]:
    """The rows of an answer (store/batch/shards.py), in the words of the public JSON; none where nothing was left to
    recommend."""
    degraded, run = list(found.degraded), json.dumps(found.run_facts(), ensure_ascii=False)
    for line in found.items:
        product = (line.rank, line.item.item_id, rounded(line.score), rounded(line.yes))
        reason = (line.source, line.reason, list(line.event_seqs))
        yield (found.user_id, *product, *reason, events, degraded, run)
