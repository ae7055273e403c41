"""Spans of OpenTelemetry: one a run, under it one a node; and the header by which a server goes on in their trace.

Nothing of a person is in them: no id, no word that was typed, no product. Where they are sent is collector.py's; what
asks for runs (an HTTP request, a shard of a batch) makes its own span around them, which those of the runs are put
under. Opened only where spans are wanted: the extra is `pip install 'recgraph[otel]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langgraph.config import get_config
from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from recgraph.graph.recommendation import kinds_of
from recgraph.tools.llm.protocol import Carrying, Usage

if TYPE_CHECKING:
    from recgraph.graph.recommender import Recommender

RUN = "recommend a user"
_ASKED = ("run_id", "mode", "paradigm", "k")  # of what a run is asked, what says nothing of whom
_HANDLER = "__error_handler__"  # before a node's name where LangGraph runs what answers for it
_TRACEPARENT = "traceparent"  # without the `tracestate`: what senders of requests write there is theirs


def trace_runs(recommender: Recommender, tracer: Tracer) -> None:
    """Has a recommender's runs make spans. A model behind a server is told the node that asks it, so that the server's
    own spans are put under it."""
    recommender.callbacks.append(partial(NodeSpans, tracer))
    if isinstance(recommender.llm, Carrying):
        recommender.llm.carry(traceparent)


def traceparent() -> dict[str, str]:
    """The W3C header that names the node that runs here or, outside of nodes, the span that is open; {} for none."""
    carried: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carried, _of_node())
    return {name: value for name, value in carried.items() if name == _TRACEPARENT}


def _of_node() -> Context | None:
    """The context of the node that runs here. Looked up by the run that LangGraph gives it, for a callback cannot make
    a span current: an asynchronous run tells it of a node's end in another context than of its beginning."""
    try:
        told = get_config().get("callbacks")
    except RuntimeError:  # outside of any run
        return None
    if not isinstance(told, BaseCallbackManager) or told.parent_run_id is None:
        return None
    spans = (one for one in told.handlers if isinstance(one, NodeSpans))
    return next((found for one in spans if (found := one.within(told.parent_run_id))), None)


@contextmanager
def spanning(tracer: Tracer, name: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A span around a block, which gives it what there is to tell. Of an error only its kind is told."""
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield partial(_tell, span)
        except BaseException as error:
            _fail(span, error)
            raise


class NodeSpans(BaseCallbackHandler):
    """Makes the spans of one run, within the span that is open where it is made. Give a run a new one, as `trace_runs`
    does, or `config={"callbacks": [NodeSpans(tracer)]}` for a run of the graph itself."""

    run_inline = True  # of an asynchronous run too: what begins first, is told first

    def __init__(self, tracer: Tracer) -> None:
        self._tracer, self._around = tracer, contexts.get_current()
        self._spans: dict[UUID, Span] = {}
        self._within: dict[UUID, Context] = {}  # of every part that runs, also of those that have no span

    def on_chain_start(
        self,
        serialized: Mapping[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        """A run, a node, or something inside a node begins."""
        outer = self._within.get(parent_run_id) if parent_run_id else None
        node = (metadata or {}).get("langgraph_node")
        if outer is not None and name != node:
            self._within[run_id] = outer
            return
        label = RUN if outer is None else str(node).replace(_HANDLER, "instead of ")
        span = self._tracer.start_span(label, outer or self._around)
        if outer is None and isinstance(inputs, Mapping):
            _tell(span, {one: inputs[one] for one in _ASKED if inputs.get(one) is not None})
        self._spans[run_id], self._within[run_id] = span, set_span_in_context(span, outer or self._around)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """It has ended."""
        span = self._ended(run_id)
        if span is not None:
            if isinstance(outputs, Mapping):
                _tell(span, _found(outputs))
            span.end()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It broke off. The error's text may hold what a shopper typed: only its kind is told."""
        span = self._ended(run_id)
        if span is not None:
            _fail(span, error)
            span.end()

    def within(self, run_id: UUID) -> Context | None:
        """The context of what runs under this id, its node's."""
        return self._within.get(run_id)

    def _ended(self, run_id: UUID) -> Span | None:
        self._within.pop(run_id, None)
        return self._spans.pop(run_id, None)


def _found(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a node or a run has found, the counts."""
    told: dict[str, Any] = {one: outputs[one] for one in ("blocks", "cached_blocks") if outputs.get(one) is not None}
    if isinstance(usage := outputs.get("tokens"), Usage):
        told |= {"tokens.prompt": usage.prompt, "tokens.cached": usage.cached, "tokens.completion": usage.completion}
    told |= {one: len(outputs[one]) for one in ("candidates", "recommended") if outputs.get(one) is not None}
    missing = sorted(kinds_of(outputs.get("degraded") or ()))
    return {**told, **({"degraded": missing} if missing else {})}


def _tell(span: Span, told: Mapping[str, Any]) -> None:
    span.set_attributes({f"recgraph.{name}": value for name, value in told.items()})


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(StatusCode.ERROR)
