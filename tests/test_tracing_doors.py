"""Spans by every door that recommends, sent to a real collector: the commands that ask, an assistant's server, a batch
in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs recgraph[otel]")

from click.testing import CliRunner
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from test_batch import COMMAND, SITE, settings, words
from test_llm_server import FakeServer
from test_tracing import Came, collector, names_and_scores

from recgraph.cli import main
from recgraph.errors import StoreError
from recgraph.graph.batch.batch import BatchRequest, run
from recgraph.graph.batch.work import SPAN
from recgraph.graph.recommendation import NODES
from recgraph.graph.traces.spans import RUN
from recgraph.store.db import Store


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> Iterator[Came]:
    """What comes to the collector that the environment names."""
    with collector() as (address, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        yield came


@pytest.fixture
def shop(make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("recgraph.graph.recommender.encoder_of", lambda *_: FakeEncoder())
    with make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES) as store:
        return store.path


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`recgraph` with an encoder that costs nothing, in the processes that it starts too."""
    (tmp_path / "sitecustomize.py").write_text(SITE.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    file = tmp_path / "command.py"
    file.write_text(COMMAND.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    return file


def spans_of(came: Came) -> list[Span]:
    return [
        span for _, sent in came for one in sent.resource_spans for scope in one.scope_spans for span in scope.spans
    ]


def named(came: Came, name: str) -> list[Span]:
    return [one for one in spans_of(came) if one.name == name]


def told(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}


def clean(came: Came) -> bool:
    """Whether no user, word or product is in what was sent."""
    text = "\n".join(str(span) for span in spans_of(came)).lower()
    return not any(word in text for word in ('"u1"', '"u2"', '"u3"', "linen", "harrow", "s1oliv"))


def test_a_command_that_recommends_sends_its_spans(shop: Path, came: Came) -> None:
    given = ["run", "--user", "U1", "--query", "linen shirt", "--store", str(shop), "--llm", "none", "--json"]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 0
    [asked] = named(came, RUN)
    assert told(asked)["recgraph.run_id"] in done.stdout
    assert {one.name for one in spans_of(came) if one.parent_span_id == asked.span_id} == set(NODES)
    assert clean(came)


def test_the_answer_is_shown_before_its_spans_are_sent(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that does not answer would hold it up for seconds."""
    from contextlib import contextmanager

    from recgraph.graph.traces import collector as of_graph

    shown: list[str] = []

    @contextmanager
    def slow(recommender: Any) -> Iterator[None]:
        yield
        shown.append("spans")

    monkeypatch.setattr(of_graph, "traced", slow)
    monkeypatch.setattr("recgraph.ask.json_text", lambda told: shown.append("answer") or "")
    given = ["run", "--user", "U1", "--store", str(shop), "--llm", "none", "--json"]
    assert CliRunner().invoke(main, given, catch_exceptions=False).exit_code == 0
    assert shown == ["answer", "spans"]


def test_a_conversation_in_the_terminal_sends_its_spans(shop: Path, came: Came) -> None:
    given = ["chat", "--user", "U1", "--store", str(shop), "--llm", "none"]
    done = CliRunner().invoke(main, given, input="linen shirt\n/quit\n", catch_exceptions=False)
    assert done.exit_code == 0
    assert len(named(came, RUN)) == 1
    assert clean(came)


@pytest.mark.slow
def test_a_server_of_an_assistant_sends_its_spans_when_it_ends(shop: Path, came: Came, command: Path) -> None:
    pytest.importorskip("mcp")
    import anyio
    from mcp import Client, StdioServerParameters

    given = [str(command), "mcp", "--store", str(shop), "--llm", "none"]

    async def talk() -> None:
        asked = StdioServerParameters(command=sys.executable, args=given, env=dict(os.environ))
        async with Client(asked) as client:
            assert not (await client.call_tool("recommend", {"user_id": "U1", "query": "linen shirt"})).is_error

    anyio.run(talk)
    assert len(named(came, RUN)) == 1
    assert clean(came)


def test_a_batch_makes_a_span_a_shard_with_what_is_in_it(shop: Path, came: Came, tmp_path: Path) -> None:
    run(BatchRequest(tmp_path / "out", shard_size=2), settings(shop))
    shards = sorted((told(one) for one in spans_of(came)), key=lambda one: one["recgraph.shard.number"])
    assert {one.name for one in spans_of(came)} == {SPAN}
    assert [one["recgraph.shard.users"] for one in shards] == [2, 1]
    assert shards[1] == {
        "recgraph.shard.number": 1,
        "recgraph.shard.users": 1,
        "recgraph.shard.answered": 1,
        "recgraph.shard.kept": 0,
        "recgraph.shard.empty": 0,
        "recgraph.shard.degraded": 0,
        "recgraph.shard.rows": 10,
    }
    assert clean(came)


def test_of_a_shard_that_fails_the_kind_of_its_error_is_told(
    shop: Path, came: Came, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise StoreError("no answer for U1")

    monkeypatch.setattr("recgraph.graph.batch.work.answers", fails)
    with pytest.raises(StoreError):
        run(BatchRequest(tmp_path / "out"), settings(shop))
    [failed] = spans_of(came)
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert told(failed) == {"recgraph.shard.number": 0, "error.type": "StoreError"}
    assert not failed.events
    assert clean(came)


def test_with_a_model_the_runs_of_a_batch_are_under_its_shards(shop: Path, came: Came, tmp_path: Path) -> None:
    server = FakeServer(chat=(200, names_and_scores))
    try:
        chosen = settings(shop, llm="", llm_url=server.url)
        run(BatchRequest(tmp_path / "out", shard_size=2, threads=2), chosen)
    finally:
        server.close()
    shards, runs = ({one.span_id: one for one in named(came, name)} for name in (SPAN, RUN))
    assert (len(shards), len(runs)) == (2, 3)
    assert {one.parent_span_id for one in runs.values()} == shards.keys()
    nodes = {one.span_id.hex(): one for one in spans_of(came) if one.parent_span_id in runs}
    asked = [head["traceparent"].split("-")[2] for _, _, head in server.seen if "traceparent" in head]
    assert {nodes[one].name for one in asked} == {"recommend", "rerank"}
    assert clean(came)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_each_worker_of_a_batch_sends_its_spans_before_it_ends(
    shop: Path, came: Came, command: Path, tmp_path: Path, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="the engine ray needs the extra `scale`")
    more = ("--engine", engine, "--workers", "2", "--shard-size", "1")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    environ["OTEL_BSP_SCHEDULE_DELAY"] = "600000"  # ms: what is sent, is sent at the end
    given = [sys.executable, str(command), *words(shop, tmp_path / "out", *more)]
    done = subprocess.run(given, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert sorted(told(one)["recgraph.shard.number"] for one in spans_of(came)) == [0, 1, 2]
    assert {one.name for one in spans_of(came)} == {SPAN}
