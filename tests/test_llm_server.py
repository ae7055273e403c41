"""The vLLM client against servers that are dead, slow, drip, garble or refuse: small real HTTP servers in a thread. The
real vLLM is in test_vllm.py."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")

from recgraph.errors import LLMError, LLMGarbled, LLMRefused, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.open import open_llm
from recgraph.tools.llm.protocol import LLM, Form, Prompt
from recgraph.tools.llm.server import MAX_CHOICES, ServerLLM, _size_in_name

PROMPT = Prompt("Answer Yes or No.", "Red shoes?")
BASE = "SmolLM2-135M-Instruct"
MODELS = {
    "object": "list",
    "data": [{"id": BASE, "object": "model", "parent": None}, {"id": "rec", "object": "model", "parent": BASE}],
}
KEY = "sk-very-secret-key"
Reply = tuple[int, Any]  # status and body: JSON-able, bytes as they are, or a function of the request's body


class FakeServer:
    """Answers by path; `seen` holds (path, body, headers) of every request. With `drip` it sends that many bytes each
    50 ms."""

    drip = 0

    def __init__(self, **replies: Reply) -> None:
        self.replies: dict[str, Reply] = {
            "models": (200, MODELS),
            "tokenize": (200, self.tokenize),
            "chat": (200, answer("Yes")),
            **replies,
        }
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply()

            def do_POST(self) -> None:
                self.reply()

            def reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                outer.seen.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
                kind = next(
                    kind
                    for kind, part in (("models", "/v1/models"), ("tokenize", "/tokenize"), ("chat", "/chat/"))
                    if part in self.path
                )
                status, content = outer.replies[kind]
                if callable(content):
                    content = content(body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    for place in range(0, len(data), outer.drip or len(data) or 1):
                        time.sleep(0.05 if outer.drip else 0)
                        self.wfile.write(data[place : place + (outer.drip or len(data))])
                except OSError:
                    pass  # the client gave up, as a test of a slow server wants

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @staticmethod
    def tokenize(body: dict[str, Any]) -> dict[str, Any]:
        last = body["messages"][-1]
        return {"tokens": [1, 2, 3] + ([{"Yes": 10, "No": 20}[last["content"]]] if last["role"] == "assistant" else [])}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def answer(text: str, reason: str = "stop", logprobs: Any = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def logprobs(**found: float) -> dict[str, Any]:
    listed = [
        {"token": token.replace("t", "token_id:"), "logprob": value, "bytes": None, "top_logprobs": []}
        for token, value in found.items()
    ]
    return {"content": [{"token": "token_id:99", "logprob": -0.1, "bytes": None, "top_logprobs": listed}]}


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(**replies: Reply) -> FakeServer:
        servers.append(FakeServer(**replies))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_the_client_is_an_llm_and_learns_what_is_served(serve: Callable[..., FakeServer]) -> None:
    llm: LLM = ServerLLM(serve().url, adapters={"recommend": "rec"})
    assert (llm.name, llm.parameters) == ("SmolLM2-135M-Instruct", 135_000_000)
    assert set(llm.adapters) == {"recommend", "rec"}
    assert isinstance(open_llm(url=serve().url), ServerLLM)


def test_answers_come_in_order_with_their_tokens_counted(serve: Callable[..., FakeServer]) -> None:
    server = serve(chat=(200, lambda body: answer("about " + body["messages"][1]["content"])))
    found, usage = ServerLLM(server.url).generate([Prompt("S", str(number)) for number in range(20)], max_tokens=7)
    assert [completion.text for completion in found] == [f"about {number}" for number in range(20)]
    assert (usage.prompt, usage.completion, usage.cached) == (180, 40, 80)
    body = server.seen[-1][1]
    assert body["temperature"] == 0
    assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))


def test_the_adapter_is_the_served_model_name(serve: Callable[..., FakeServer]) -> None:
    server = serve()
    llm = ServerLLM(server.url, adapters={"recommend": "rec"})
    llm.generate([PROMPT], adapter="recommend")
    assert server.seen[-1][1]["model"] == "rec"
    llm.generate([PROMPT])
    assert server.seen[-1][1]["model"] == "SmolLM2-135M-Instruct"
    with pytest.raises(ValueError, match="'other' is no adapter"):
        llm.generate([PROMPT], adapter="other")


def test_scores_are_read_by_token_id(serve: Callable[..., FakeServer]) -> None:
    server = serve(chat=(200, answer("Maybe", logprobs=logprobs(t10=-1.5, t20=-0.5))))
    scores, usage = ServerLLM(server.url).score([PROMPT] * 3)
    assert scores == [(-1.5, -0.5)] * 3
    assert usage.prompt == 27
    body = server.seen[-1][1]
    assert (body["logprobs"], body["top_logprobs"], body["logprob_token_ids"]) == (True, 0, [10, 20])


def test_a_form_is_sent_as_a_regular_expression_and_checked(serve: Callable[..., FakeServer]) -> None:
    form = Form("ID: ", ("B.1", "B2"), "\nTitle: ")
    server = serve(chat=(200, answer("ID: B2\nTitle: Red shoes")))
    found, _ = ServerLLM(server.url).generate([PROMPT], form=form)
    assert found[0].text == "ID: B2\nTitle: Red shoes"
    assert server.seen[-1][1]["structured_outputs"] == {"regex": r"ID: (B\.1|B2)\nTitle: [^\n]+"}
    for text, reason in (("ID: Bx1\nTitle: Red", "stop"), ("ID: B", "length")):
        garbling = serve(chat=(200, answer(text, reason)))
        with pytest.raises(LLMGarbled, match="form"):
            ServerLLM(garbling.url).generate([PROMPT], form=form)
    with pytest.raises(ValueError, match=str(MAX_CHOICES)):
        ServerLLM(server.url).generate([PROMPT], form=Form("", tuple(map(str, range(MAX_CHOICES + 1))), ""))


def test_a_dead_server_is_no_error_until_it_is_asked_and_is_found_again_when_it_lives(
    serve: Callable[..., FakeServer],
) -> None:
    server = serve()
    port = server.http.server_port
    server.close()
    llm = ServerLLM(server.url)
    assert llm.name == f"llm at 127.0.0.1:{port}"
    for call in (lambda: llm.generate([PROMPT]), lambda: llm.score([PROMPT])):
        with pytest.raises(LLMUnavailable, match=f"127.0.0.1:{port} cannot be reached"):
            call()
    living = serve()
    llm._client.base_url = living.url + "/"  # as if the server came back
    llm.connect()
    assert llm.name == "SmolLM2-135M-Instruct"


def test_a_kept_connection_that_the_server_closes_costs_no_answer(serve: Callable[..., FakeServer]) -> None:
    """vLLM closed idle connections just when the next request went out on them, and that request was lost."""
    server = serve()
    handler = server.http.RequestHandlerClass
    handler.protocol_version = "HTTP/1.1"  # keeps connections, as vLLM does
    reply, served = handler.do_POST, set[int]()

    def dropped_when_used_again(self: BaseHTTPRequestHandler) -> None:
        if self.client_address[1] in served:
            self.close_connection = True
            return
        served.add(self.client_address[1])
        reply(self)

    handler.do_POST = dropped_when_used_again
    llm = ServerLLM(server.url)
    for _ in range(3):
        assert llm.generate([PROMPT])[0][0].text == "Yes"
    assert len(served) == 3


def test_a_server_that_drops_every_connection_is_told_as_such(serve: Callable[..., FakeServer]) -> None:
    server = serve()
    asked: list[int] = []

    def dropped(self: BaseHTTPRequestHandler) -> None:
        asked.append(self.client_address[1])
        self.close_connection = True

    server.http.RequestHandlerClass.do_POST = dropped
    with pytest.raises(LLMUnavailable, match="disconnected without sending a response"):
        ServerLLM(server.url).generate([PROMPT])
    assert len(asked) == 2  # once more, not for ever


def test_a_slow_server_is_a_timeout_at_the_deadline(serve: Callable[..., FakeServer]) -> None:
    def slow(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(3)
        return answer("Yes")

    llm = ServerLLM(serve(chat=(200, slow)).url)
    started = time.monotonic()
    with pytest.raises(LLMTimeout):
        llm.generate([PROMPT] * 3, deadline=started + 0.3)
    assert time.monotonic() - started < 1.5
    with pytest.raises(LLMTimeout):
        llm.generate([PROMPT], deadline=time.monotonic() - 1)


def test_a_dripping_server_cannot_stretch_the_deadline(serve: Callable[..., FakeServer]) -> None:
    server = serve(chat=(200, answer("Yes")))
    llm = ServerLLM(server.url)
    llm._answer_tokens(llm._base, PROMPT, ("Yes", "No"), None)
    server.drip = 5
    started = time.monotonic()
    for call in (llm.generate, llm.score):
        with pytest.raises(LLMTimeout):
            call([PROMPT], deadline=time.monotonic() + 0.3)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        ((500, {"error": {"message": "out of memory"}}), LLMUnavailable, "status 500"),
        ((429, {"error": {"message": "busy"}}), LLMUnavailable, "status 429"),
        ((401, {"error": {"message": f"bad key {KEY}"}}), LLMRefused, "RECGRAPH_LLM_API_KEY"),
        ((404, {"error": {"message": "no such model"}}), LLMError, "no such model"),
        ((400, {"error": {"message": f"max_tokens too large {KEY}"}}), LLMError, "max_tokens too large"),
        ((200, b"<html>gateway</html>"), LLMGarbled, "no answer"),
        ((200, b""), LLMGarbled, "no answer"),
        ((200, {"choices": []}), LLMGarbled, "answer"),
        ((200, {"unrelated": 1}), LLMGarbled, "answer"),
        ((200, [1, 2]), LLMGarbled, "answer"),
        ((200, answer("")), LLMGarbled, "empty answer"),
    ],
)
def test_what_goes_wrong_has_its_own_error_and_never_shows_the_key(
    serve: Callable[..., FakeServer], reply: Reply, error: type[LLMError], words: str
) -> None:
    llm = ServerLLM(serve(chat=reply).url, api_key=KEY)
    with pytest.raises(error, match=words) as caught:
        llm.generate([PROMPT])
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "found",
    [None, {"content": []}, logprobs(t10=-1.0), {"content": [{"token": "Yes", "logprob": -1, "top_logprobs": []}]}],
)
def test_missing_log_probabilities_are_garbled(serve: Callable[..., FakeServer], found: Any) -> None:
    with pytest.raises(LLMGarbled):
        ServerLLM(serve(chat=(200, answer("Yes", logprobs=found))).url).score([PROMPT, PROMPT])


def test_a_wrong_key_or_model_is_told_when_the_object_is_made(serve: Callable[..., FakeServer]) -> None:
    with pytest.raises(LLMError, match="refuses the key"):
        ServerLLM(serve(models=(401, {"error": {"message": "no"}})).url, api_key=KEY)
    with pytest.raises(LLMError, match=r"does not serve 'other'; it serves SmolLM2-135M-Instruct, rec"):
        ServerLLM(serve().url, model="other")
    with pytest.raises(LLMError, match="does not serve the adapter 'lost'"):
        ServerLLM(serve().url, adapters={"recommend": "lost"})
    with pytest.raises(LLMError, match="no server address"):
        ServerLLM("ftp://x")


def test_the_key_is_sent_but_never_printed(serve: Callable[..., FakeServer], caplog: pytest.LogCaptureFixture) -> None:
    server = serve()
    with caplog.at_level(logging.DEBUG, logger="recgraph"):
        llm = ServerLLM(server.url, api_key=KEY)
        llm.generate([PROMPT])
    assert server.seen[-1][2]["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(llm) + caplog.text + repr(llm._chat)


def test_the_key_of_another_service_is_never_sent(
    serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve()
    ServerLLM(server.url).generate([PROMPT])
    assert all(KEY not in headers["authorization"] for _, _, headers in server.seen)


def test_an_unencrypted_key_to_another_machine_is_warned_about(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerLLM, "connect", lambda self, deadline=None: None)
    with caplog.at_level(logging.WARNING, logger="recgraph"):
        ServerLLM("http://127.0.0.1:8000/v1", api_key=KEY)
        ServerLLM("https://gpu.example.org/v1", api_key=KEY)
        assert caplog.text == ""
        ServerLLM("http://gpu.example.org:8000/v1", api_key=KEY)
    assert "sent unencrypted to gpu.example.org:8000" in caplog.text


def test_the_size_is_read_out_of_a_model_name() -> None:
    names = {
        "SmolLM2-135M-Instruct": 135_000_000,
        "Qwen/Qwen2.5-1.5B": 1_500_000_000,
        "meta-llama/Llama-3.1-8B": 8_000_000_000,
        "base": None,
    }
    assert {name: _size_in_name(name) for name in names} == names
