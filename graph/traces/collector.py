"""Whether spans are made, and where they are sent: to the collector of OpenTelemetry that the environment names.

What is in them is spans.py's, which is imported only where there is a collector: without one nothing is made, and
nothing of OpenTelemetry is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recgraph.graph.replay.past import recgraph_version

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from recgraph.graph.recommender import Recommender

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PATIENCE = 3.0  # seconds for a collector to take spans, so that a dead one does not hold up the end of a process
_log = logging.getLogger(__name__)


@contextmanager
def traced(recommender: Recommender) -> Iterator[Tracer | None]:
    """A recommender whose runs make spans while the block lasts, and the tracer; as `exporting` sends them."""
    with exporting() as tracer:
        if tracer is not None:
            from recgraph.graph.traces.spans import trace_runs

            trace_runs(recommender, tracer)
        yield tracer


@contextmanager
def exporting(environ: Mapping[str, str] | None = None) -> Iterator[Tracer | None]:
    """A tracer whose spans go to the collector that the environment names (OTEL_EXPORTER_OTLP_ENDPOINT, and the other
    variables of OpenTelemetry's SDK); those that wait are sent when the block ends, or a process that does not end it.
    None where it names none, where the SDK is not installed, or takes a setting for an error.

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
    try:
        provider = TracerProvider(resource=Resource.create({} if _named(environ) else {SERVICE_NAME: "recgraph"}))
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(timeout=None if _timed(environ) else _PATIENCE))
        )
    except ValueError as error:  # spans are not worth an answer
        _log.warning("no spans are sent, for OpenTelemetry does not take its settings in the environment: %s", error)
        yield None
        return
    try:
        yield provider.get_tracer("recgraph", recgraph_version())
    finally:
        provider.shutdown()


def _named(environ: Mapping[str, str]) -> bool:
    return "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in environ


def _timed(environ: Mapping[str, str]) -> bool:
    return any(one in environ for one in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"))
