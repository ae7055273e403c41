"""Wires the nodes of a recommendation into one compiled LangGraph, and sees to it that every run of it has a deadline.

It knows the nodes' order and what a run leaves in a checkpoint; not what a node does, nor the tools it works with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import Context
from itertools import pairwise
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import RetryPolicy

from recgraph.errors import LLMUnavailable
from recgraph.graph.nodes import Nodes
from recgraph.graph.state import CHECKPOINT_TYPES, RunContext, RunRequest, State
from recgraph.graph.summary.summarizers import Work

Part = TypeVar("Part")
Graph = CompiledStateGraph[Any, Any, Any, Any]


class TimedGraph(Graph):
    """A compiled graph whose runs each have `seconds`, counted from where they begin, unless a `RunContext` is given:
    to the run itself, or to the run of a graph in which this one is a node.

    A default of LangGraph's own would be one moment for all runs, so it is made here, where every run begins: `invoke`,
    a node of another graph and the streams all come through these two.
    """

    def __init__(self, *, seconds: float, **compiled: Any) -> None:
        super().__init__(**compiled)
        self.seconds = seconds

    @classmethod
    def of(cls, graph: Graph, seconds: float) -> TimedGraph:
        """A compiled graph with its deadline."""
        attributes = {name: value for name, value in vars(graph).items() if name != "__orig_class__"}
        timed = cls(seconds=seconds, **attributes)
        vars(timed).update(attributes)  # what LangGraph sets after it has made a graph
        return timed

    def stream(
        self, input: Any, config: RunnableConfig | None = None, *, context: Any = None, **options: Any
    ) -> Iterator[Any]:
        """As LangGraph's."""
        yield from super().stream(input, config, context=context or self._context(), **options)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, *, context: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        """As LangGraph's."""
        parts = cast(Any, super().astream(input, config, context=context or self._context(), **options))
        async with aclosing(parts):
            async for part in parts:
                yield part

    def _context(self) -> RunContext:
        """The outer run's, where it has one that is ours; else one that begins now."""
        try:
            outer: Runtime[Any] | None = get_runtime()
        except (RuntimeError, KeyError):  # outside of any run, or in one that is not a graph's
            outer = None
        given = outer.context if outer is not None else None
        return given if isinstance(given, RunContext) else RunContext.within(self.seconds)


def build_graph(
    nodes: Nodes, summarize: Graph, seconds: float, checkpointer: BaseCheckpointSaver[Any] | None = None
) -> Graph:
    """Wires DESIGN 4. LLM nodes are tried twice where the server cannot be reached; then their fallback takes over. A
    run without a `RunContext` has `seconds`."""
    retry = RetryPolicy(initial_interval=0.2, max_attempts=2, jitter=False, retry_on=LLMUnavailable)
    graph = StateGraph(State, context_schema=RunContext, input_schema=RunRequest)
    # It goes on to understand, or to explain where nothing is left to recommend.
    graph.add_node("load_history", nodes.begin)
    graph.add_node("understand", nodes.understand)
    graph.add_node("recall_memory", nodes.recall_memory)
    graph.add_node("summarize", summarize, error_handler=cast(Any, nodes.without_summary))
    graph.add_node("recommend", nodes.recommend, retry_policy=retry, error_handler=cast(Any, nodes.without_prediction))
    graph.add_node("retrieve", nodes.retrieve)
    graph.add_node("rerank", nodes.rerank, retry_policy=retry, error_handler=cast(Any, nodes.without_scores))
    graph.add_node("explain", nodes.explain)
    graph.add_edge(START, "load_history")
    order = ["understand", "recall_memory", "summarize", "recommend", "retrieve", "rerank", "explain", END]
    for one, following in pairwise(order):
        graph.add_edge(one, following)
    return TimedGraph.of(graph.compile(checkpointer=checkpointer, name="recgraph"), seconds)


def apart(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a run that has nothing of the run around it: a recommender that a node or a tool of an agent asks
    keeps no checkpoints in the agent's thread, and streams as it does alone."""
    context = Context()
    while True:
        try:
            part = context.run(next, parts)
        except StopIteration:
            return
        yield part


def serializer() -> JsonPlusSerializer:
    """Writes and reads what a run puts into its checkpoints, and no other type: for a checkpointer of yours."""
    return JsonPlusSerializer(
        allowed_msgpack_modules=[(kind.__module__, kind.__name__) for kind in (*CHECKPOINT_TYPES, Work)]
    )
