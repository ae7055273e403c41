"""Spans: one a request, under it one a run, under that one a node; nothing of a person in them; none where none are
asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs recgraph[otel]")
pytest.importorskip("fastapi")

from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder, FakeLLM
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from serving import copied_shop, serving
from test_http_serve import process, wait_until_ready
from test_llm_server import FakeServer, answer, logprobs

from recgraph.errors import LLMUnavailable
from recgraph.graph.recommendation import NODES
from recgraph.graph.recommender import Recommender
from recgraph.graph.traces.collector import exporting
from recgraph.graph.traces.spans import RUN, NodeSpans, trace_runs, traceparent
from recgraph.settings import Settings, load_settings
from recgraph.store.db import Store
from recgraph.tools.llm.protocol import LLM
from recgraph.tools.llm.server import ServerLLM

Came = list[tuple[str, ExportTraceServiceRequest]]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


@pytest.fixture
def ask(make_store: Callable[..., Store], tracer: Tracer) -> Iterator[Callable[..., Any]]:
    opened: list[Recommender] = []

    def asked(llm: LLM | None, **how: Any) -> Any:
        store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
        opened.append(Recommender(store, load_settings({}, k=3), FakeEncoder(), llm))
        opened[-1].callbacks.append(lambda: NodeSpans(tracer))
        return opened[-1].recommend("U1", "linen shirt", **how)

    yield asked
    for one in opened:
        one.close()


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {one.name: one for one in spans.get_finished_spans()}


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def text_of(spans: InMemorySpanExporter) -> str:
    return "\n".join(span.to_json() for span in spans.get_finished_spans())


def test_a_run_is_a_span_and_each_of_its_nodes_one_under_it(
    ask: Callable[..., Any], spans: InMemorySpanExporter
) -> None:
    found = ask(FakeLLM('{"item_id": "S1OLIV", "title": "Harrow Linen Shirt"}'))
    run = by_name(spans)[RUN]
    under = sorted(
        (one for one in spans.get_finished_spans() if parent_of(one) == run.context.span_id),
        key=lambda one: one.start_time or 0,
    )
    assert [one.name for one in under] == list(NODES)
    assert parent_of(run) is None
    assert run.attributes is not None
    assert run.attributes["recgraph.run_id"] == found.run_id
    assert run.attributes["recgraph.recommended"] == 3
    assert run.attributes["recgraph.tokens.prompt"] == found.tokens.prompt > 0
    assert all(
        (run.start_time or 0) <= (one.start_time or 0) <= (one.end_time or 0) <= (run.end_time or 0) for one in under
    )


def test_nothing_of_a_person_is_in_a_span(ask: Callable[..., Any], spans: InMemorySpanExporter) -> None:
    found = ask(FakeLLM('{"item_id": "S1OLIV", "title": "Harrow Linen Shirt"}'))
    assert found.items
    told = text_of(spans).lower()
    for word in ("u1", "linen", "shirt", "wool", "harrow", *(line.item.item_id.lower() for line in found.items)):
        assert word not in told


def test_of_an_error_only_its_kind_is_told_and_what_was_missing_is(
    ask: Callable[..., Any], spans: InMemorySpanExporter
) -> None:
    found = ask(FakeLLM(raises=LLMUnavailable("no answer to: linen shirt")))
    assert len(found.items) == 3
    failed = by_name(spans)["recommend"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes == {"error.type": "LLMUnavailable"}
    assert by_name(spans)["instead of recommend"].status.status_code is StatusCode.UNSET
    run = by_name(spans)[RUN]
    assert run.attributes is not None
    assert "recommend" in run.attributes["recgraph.degraded"]  # type: ignore[operator]
    assert "linen" not in text_of(spans)


def test_a_run_is_put_under_the_span_that_is_open_where_it_is_asked_for(
    ask: Callable[..., Any], spans: InMemorySpanExporter, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("a page") as page:
        ask(None)
    assert parent_of(by_name(spans)[RUN]) == page.get_span_context().span_id


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_goes_on_in_the_trace_that_its_sender_began(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path, spans: InMemorySpanExporter, tracer: Tracer,
    caplog: pytest.LogCaptureFixture, stream: bool,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "recgraph.http.requests")
    with serving(copied_shop(loaded_stores, tmp_path), tracer=tracer) as served:
        asked = {"user_id": "U1", "query": "linen shirt", "stream": stream}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": "who=U1"}
        assert served.client.post("/v1/recommendations", json=asked, headers=headers).status_code == 200
        assert served.client.get("/v1/users/U1/history").status_code == 200
        assert served.client.get("/v1/nothing/U1").status_code == 404
        told = [one.told for one in caplog.records if one.msg == "request"]  # type: ignore[attr-defined]
    named = by_name(spans)
    request, run = named["POST /v1/recommendations"], named[RUN]
    assert request.kind is SpanKind.SERVER
    assert trace.format_trace_id(request.context.trace_id) == TRACE
    assert trace.format_span_id(parent_of(request) or 0) == PARENT
    assert parent_of(run) == request.context.span_id
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/recommendations",
        "http.response.status_code": 200,
    }
    assert {"GET /v1/users/{user_id}/history", "GET unmatched"} <= named.keys()
    assert not [name for name in named if "ready" in name or "health" in name]
    assert '"U1"' not in text_of(spans)
    assert "linen" not in text_of(spans)
    assert [one["trace_id"] for one in told if one["path"] == "/v1/recommendations"] == [TRACE]


@pytest.fixture
def model() -> Iterator[FakeServer]:
    server = FakeServer(chat=(200, names_and_scores))
    yield server
    server.close()


@pytest.fixture
def served(make_store: Callable[..., Store], model: FakeServer, tracer: Tracer) -> Iterator[Recommender]:
    """A recommender with a model behind a server, that makes spans."""
    store, settings = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES), load_settings({}, k=3, summarizer="llm")
    with Recommender(store, settings, FakeEncoder(), ServerLLM(model.url)) as recommender:
        trace_runs(recommender, tracer)
        yield recommender


@pytest.mark.parametrize("how", ["alone", "graph", "asynchronous graph"])
def test_what_a_node_asks_of_a_served_model_carries_its_span(
    served: Recommender, model: FakeServer, spans: InMemorySpanExporter, tracer: Tracer, how: str
) -> None:
    if how == "alone":
        served.recommend("U1", "linen shirt")
    else:
        asked: Any = {"user_id": "U1", "query": "linen shirt"}
        config: Any = {"callbacks": [NodeSpans(tracer)]}
        served.graph.invoke(asked, config) if how == "graph" else asyncio.run(served.graph.ainvoke(asked, config))
    named = {one.context.span_id: one for one in spans.get_finished_spans()}
    carried = [(path, headers.get("traceparent", "")) for path, _, headers in model.seen]
    assert [path for path, told in carried if not told] == ["/v1/models"]  # asked when the model was opened
    asking = {named[int(told.split("-")[2], 16)].name for _, told in carried if told}
    assert asking == {"step", "recommend", "rerank"}
    trace_id = trace.format_trace_id(by_name(spans)[RUN].context.trace_id)
    assert {told.split("-")[1] for _, told in carried if told} == {trace_id}


def test_of_the_trace_only_ids_are_carried_to_a_served_model(served: Recommender, model: FakeServer) -> None:
    state = trace.TraceState([("shop", "U1")])
    sender = trace.SpanContext(int(TRACE, 16), int(PARENT, 16), True, trace.TraceFlags(1), state)
    token = contexts.attach(baggage.set_baggage("who", "U1", trace.set_span_in_context(trace.NonRecordingSpan(sender))))
    try:
        served.recommend("U1", "linen shirt")
        assert traceparent() == {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    finally:
        contexts.detach(token)
    assert len([one for _, _, one in model.seen if TRACE in one.get("traceparent", "")]) > 3
    for _, _, headers in model.seen:
        assert not {"tracestate", "baggage"} & headers.keys()
        assert "U1" not in headers.values()


def test_without_spans_a_served_model_is_sent_no_header_of_them(
    make_store: Callable[..., Store], model: FakeServer
) -> None:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    with Recommender(store, load_settings({}, k=3), FakeEncoder(), ServerLLM(model.url)) as recommender:
        assert recommender.recommend("U1", "linen shirt").items
    assert len(model.seen) > 3
    assert not [one for _, _, one in model.seen if "traceparent" in one]
    assert traceparent() == {}


def test_without_an_endpoint_or_with_tracing_switched_off_there_is_no_tracer() -> None:
    for environ in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}):
        with exporting(environ) as tracer:
            assert tracer is None


def test_without_the_extra_there_is_no_tracer_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) as tracer:
        assert tracer is None
    assert "pip install 'recgraph[otel]'" in caplog.text


def test_settings_that_the_sdk_does_not_take_cost_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of a queue that is smaller than what is sent at once ended `recgraph run`."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) as tracer:
        assert tracer is None
    assert "no spans are sent" in caplog.text


def test_a_run_without_a_tracer_is_given_no_callbacks(make_store: Callable[..., Store]) -> None:
    with Recommender(make_store(SHOP_ITEMS, SHOP_EVENTS), Settings(), FakeEncoder(), None) as recommender:
        assert recommender.callbacks == []
        assert recommender.recommend("U1").items


def names_and_scores(body: dict[str, Any]) -> dict[str, Any]:
    """What a served model says that says Yes to all, and names the first product that it may."""
    if body.get("logprobs"):
        return answer("Yes", logprobs=logprobs(t10=-0.5, t20=-1.0))
    held = re.search(r"ID:\(([^|)]+)", body.get("structured_outputs", {}).get("regex", ""))
    return answer("ID:" + held[1].replace("\\n", "\n") if held else "Likes linen.")


@contextmanager
def collector() -> Iterator[tuple[str, Came]]:
    """What takes spans over OTLP/HTTP: its address, and what came to which path."""
    came: Came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_the_command_sends_its_spans_to_the_collector_that_the_environment_names(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    with collector() as (address, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with process(copied_shop(loaded_stores, tmp_path)) as (running, url):
            with httpx.Client(base_url=url) as client:
                wait_until_ready(client)
                headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
                assert client.post("/v1/recommendations", json={"user_id": "U1"}, headers=headers).status_code == 200
            running.terminate()
            _, err = running.communicate(timeout=60)
            assert running.returncode == 0, err
    assert {path for path, _ in came} == {"/v1/traces"}
    resources = [one for _, sent in came for one in sent.resource_spans]
    sent = [span for one in resources for scope in one.scope_spans for span in scope.spans]
    assert {"POST /v1/recommendations", RUN, *NODES} <= {span.name for span in sent}
    assert {span.trace_id.hex() for span in sent if span.name == RUN} == {TRACE}
    assert {
        pair.value.string_value for one in resources for pair in one.resource.attributes if pair.key == "service.name"
    } == {"recgraph"}
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [line["trace_id"] for line in lines if line.get("path") == "/v1/recommendations"] == [TRACE]


@pytest.mark.slow
def test_a_collector_that_is_not_there_costs_neither_the_answer_nor_the_end(
    loaded_stores: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with process(copied_shop(loaded_stores, tmp_path)) as (running, url):
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
            assert client.post("/v1/recommendations", json={"user_id": "U1"}).status_code == 200
        running.terminate()
        _, err = running.communicate(timeout=25)
    assert running.returncode == 0, err
