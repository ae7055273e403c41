"""Spans of OpenTelemetry: one a run, under it one a node, and where they are sent.

Nothing of a person is in them: no id, no word that was typed, no product. What happens to a span on its way is the
SDK's and the collector's; what asks for a run (an HTTP request) makes its own span around it, which the run's is put
under. Opened only where spans are wanted: the extra is `pip install 'recgraph[otel]'`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context

from recgraph.graph.recommendation import kinds_of
from recgraph.tools.llm.protocol import Usage

RUN = "recommend a user"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_ASKED = ("run_id", "mode", "paradigm", "k")  # of what a run is asked, what says nothing of whom
_PATIENCE = 3.0  # seconds for a collector to take spans, so that a dead one does not hold up the end of a process
_HANDLER = "__error_handler__"  # before a node's name where LangGraph runs what answers for it
_log = logging.getLogger(__name__)


class NodeSpans(BaseCallbackHandler):
    """Makes the spans of one run, within the span that is open where it is made. Give a run a new one:
    `recommender.callbacks.append(lambda: NodeSpans(tracer))`, or `config={"callbacks": [NodeSpans(tracer)]}` for a run
    of the graph itself."""

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
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            span.end()

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


@contextmanager
def exporting(version: str, environ: Mapping[str, str] | None = None) -> Iterator[Tracer | None]:
    """A tracer whose spans go to the collector that the environment names (OTEL_EXPORTER_OTLP_ENDPOINT, and the other
    variables of OpenTelemetry's SDK); those that wait are sent when the block ends. None where it names none, or where
    the SDK is not installed.

    The provider is not made the process's own, so that other libraries' spans, which hold what we leave out, go
    nowhere.
    """
    environ = os.environ if environ is None else environ
    if not any(environ.get(one) for one in ENDPOINTS) or environ.get("OTEL_TRACES_EXPORTER") == "none":
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        _log.warning("no spans are sent, though an endpoint is named: pip install 'recgraph[otel]'")
        yield None
        return
    named = "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in environ
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "recgraph"}))
    told = any(one in environ for one in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"))
    exporter = OTLPSpanExporter(timeout=None if told else _PATIENCE)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("recgraph", version)
    finally:
        provider.shutdown()
