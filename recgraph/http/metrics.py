"""Counters for Prometheus: requests by path template and status, seconds of each node, what was missing, prompt tokens.

Labels come from short lists that are known beforehand, never from a request: no ids, no words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from recgraph.graph.recommendation import NODES, Recommendation, kinds_of

_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meters:
    """The counters of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter("recgraph_requests", "Requests answered", ["method", "path", "status"], **kept)
        self._seconds = Histogram("recgraph_request_seconds", "Until the end", ["path"], buckets=_SECONDS, **kept)
        self._nodes = Histogram("recgraph_node_seconds", "In a node of the graph", ["node"], buckets=_SECONDS, **kept)
        self._degraded = Counter("recgraph_degraded", "Answers that did without something", ["kind"], **kept)
        self._tokens = Counter("recgraph_prompt_tokens", "Read by the LLM, or known from its cache", ["from"], **kept)
        self._events = Counter("recgraph_events", "Events by what became of them", ["what"], **kept)
        self._waiting = Gauge("recgraph_inside", "Requests that are worked on or wait", ["gate"], **kept)

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """A request has ended. `method` as `method_of` gives it."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def answer(self, told: Recommendation) -> None:
        """A recommendation was given, to whoever asked at whichever door."""
        for node in NODES:
            if milliseconds := told.timings_ms.get(node):
                self._nodes.labels(node).observe(milliseconds / 1000)
        for kind in kinds_of(told.degraded):
            self._degraded.labels(kind).inc()
        self._tokens.labels("cached").inc(told.tokens.cached)
        self._tokens.labels("computed").inc(max(0, told.tokens.prompt - told.tokens.cached))

    def recorded(self, told: Mapping[str, int]) -> None:
        """Events came in."""
        for what in ("written", "known"):
            self._events.labels(what).inc(told[what])

    def watch(self, gate: str, inside: Callable[[], int]) -> None:
        """Shows how many are inside a gate."""
        self._waiting.labels(gate).set_function(inside)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)


def method_of(named: str) -> str:
    """A request's method, from a short list."""
    return named if named in _METHODS else "other"
