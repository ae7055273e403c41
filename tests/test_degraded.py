"""A dead, a slow and a garbling LLM server: the request is never lost, and the answer says what was missing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder
from within import within

from recgraph.graph.recommender import Recommender
from recgraph.settings import load_settings
from recgraph.store.db import Store

pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")
from recgraph.tools.llm.open import open_llm

MODELS = {
    "object": "list",
    "data": [{"id": "big-7b", "object": "model", "created": 0, "owned_by": "x", "parent": None}],
}


class Server:
    """An OpenAI-like server on loopback that answers each POST with what `answer()` gives, after `delay` seconds."""

    def __init__(self, answer: Callable[[], tuple[int, bytes]], delay: float = 0.0) -> None:
        outer = self
        self.posts = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, json.dumps(MODELS).encode())

            def do_POST(self) -> None:
                outer.posts += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(delay)
                self._send(*answer())

            def _send(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def chat(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "big-7b", "choices": [choice]}
    ).encode()


@pytest.fixture
def ask(make_store: Callable[..., Store]) -> Iterator[Callable[..., Any]]:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    path: Path = store.path
    store.close()
    opened: list[Recommender] = []

    def _ask(url: str, deadline: float = 20.0) -> Any:
        settings = load_settings({}, "/nonexistent", store=str(path), summarizer="llm")
        opened.append(Recommender(Store.open(path), settings, FakeEncoder(), open_llm(url=url)))  # type: ignore[arg-type]
        return opened[-1].recommend("U1", "linen shirt", deadline=deadline)

    yield _ask
    for recommender in opened:
        recommender.close()


def complete(found: Any) -> None:
    assert len({line.item.item_id for line in found.items}) == 10
    assert all(line.reason for line in found.items)
    assert found.summary.text
    assert [note.split(":")[0] for note in found.degraded] == ["summarize", "recommend", "rerank"]


@pytest.mark.slow
def test_a_dead_server_costs_the_llm_but_not_the_answer(ask: Callable[..., Any]) -> None:
    server = Server(lambda: (200, b"{}"))
    server.stop()  # the port is closed now
    found = ask(server.url)
    complete(found)
    assert found.timings_ms["total"] < 20_000


@pytest.mark.slow
def test_a_slow_server_is_left_at_the_deadline(ask: Callable[..., Any]) -> None:
    server = Server(lambda: (200, chat("Likes linen.")), delay=30.0)
    with within(8):
        found = ask(server.url, deadline=1.5)
        complete(found)
    assert server.posts == 1  # no further try after the deadline
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        (200, b"{}"),
        (200, b"\xff\xfe not json at all"),
        (200, chat("")),
        (500, b'{"error": {"message": "boom"}}'),
    ],
    ids=["empty object", "no json", "empty text", "status 500"],
)
def test_a_garbling_server_costs_the_llm_but_not_the_answer(ask: Callable[..., Any], answer: tuple[int, bytes]) -> None:
    server = Server(lambda: answer)
    found = ask(server.url)
    assert len({line.item.item_id for line in found.items}) == 10
    assert {"recommend", "rerank"} <= {note.split(":")[0] for note in found.degraded}
    assert found.summary.text
    server.stop()


@pytest.mark.slow
def test_text_that_is_not_the_asked_for_form_is_not_taken_for_an_answer(ask: Callable[..., Any]) -> None:
    server = Server(lambda: (200, chat("As an assistant I would love to help you shop!")))
    found = ask(server.url)
    assert found.prediction is None or not found.prediction.valid
    assert len(found.items) == 10
    assert any(note.startswith("rerank") for note in found.degraded)
    server.stop()
