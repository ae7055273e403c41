"""The vLLM client against servers that are dead, slow, drip, garble or refuse: small real HTTP servers in a thread. The
real vLLM is in test_vllm.py."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from within import within

pytest.importorskip("langchain_openai", reason="needs recgraph[vllm]")

from recgraph.errors import LLMError, LLMGarbled, LLMRefused, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.forms import MAX_CHOICES
from recgraph.tools.llm.open import open_adapted, open_llm
from recgraph.tools.llm.protocol import LLM, Form, Prompt
from recgraph.tools.llm.served_ids import served_ids
from recgraph.tools.llm.server import ServerLLM, _size_in_name
from recgraph.tools.served import breaker

PROMPT = Prompt("Answer Yes or No.", "Red shoes?")
BASE = "SmolLM2-135M-Instruct"
MODELS = {
    "object": "list",
    "data": [{"id": BASE, "object": "model", "parent": None}, {"id": "rec", "object": "model", "parent": BASE}],
}
KEY = "sk-very-secret-key"
PATHS = {
    "models": "/v1/models",
    "tokenize": "/tokenize",
    "detokenize": "/detokenize",
    "chat": "/chat/",
    "scoring": "/generative_scoring",
    "metrics": "/metrics",
}
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
                kind = next((kind for kind, part in PATHS.items() if part in self.path), "")
                status, content = outer.replies.get(kind, (404, {"error": {"message": "Not Found"}}))
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
        if "prompt" in body:
            return {"tokens": [ord(one) for one in body["prompt"]]}
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


def test_a_server_with_a_catalogue_takes_forms_of_any_size(serve: Callable[..., FakeServer]) -> None:
    mark = {"id": served_ids("0123abcd", 9000), "object": "model", "parent": None}
    server = serve(models=(200, {"data": [*MODELS["data"], mark]}), chat=(200, answer("ID: 17\nTitle: Hat")))
    client = ServerLLM(server.url)
    assert (client.name, client.adapters) == (BASE, ("rec",))  # it is no model
    form = Form("ID:", tuple(f" {number}" for number in range(MAX_CHOICES + 1)), "\nTitle:")
    assert len(form.choices) <= client.max_choices
    assert client.generate([PROMPT], form=form)[0][0].text == "ID: 17\nTitle: Hat"
    assert server.seen[-1][1]["vllm_xargs"] == {"recgraph_ids": 1}
    assert "structured_outputs" not in server.seen[-1][1]
    few = Form("ID:", (" 17",), "\nTitle:")  # these alone, whatever else the catalogue has
    client.generate([PROMPT], form=few)
    assert "vllm_xargs" not in server.seen[-1][1]
    server.replies["chat"] = (200, answer("ID: 17b\nTitle: Hat"))
    for _ in range(4):  # no failure of the server's: it is not left alone for that
        with pytest.raises(LLMError, match="Its catalogue is another one") as it:
            client.generate([PROMPT], form=form)
        assert type(it.value) is LLMError


def test_a_model_under_an_adapters_name_has_that_adapter_in_its_weights(serve: Callable[..., FakeServer]) -> None:
    names = ("small-135M-merged", "default-0123abcd-recommend")
    listed = [{"id": name, "object": "model", "parent": None, "root": "/merged"} for name in names]
    server = serve(models=(200, {"data": listed}), chat=(200, answer("a hat")))
    client = ServerLLM(server.url)
    assert (client.name, client.adapters, client.roots) == (names[0], names[1:], {names[1]: "/merged"})
    client.generate([PROMPT], adapter=names[1])
    assert server.seen[-1][1]["model"] == names[1]


def test_adapters_of_a_server_that_was_away_are_known_once_it_has_answered(
    serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve(models=(503, "starting"))
    client, used = open_adapted("", "rec", tmp_path / "shop.duckdb", url=server.url)
    assert (used.names, used.later and used.later()) == ({}, None)
    server.replies["models"] = (200, MODELS)
    client.generate([PROMPT])
    assert used.later is not None
    found = used.later()
    assert found is not None
    assert (found.names, found.notes, found.later) == ({"next": "rec", "fit": "rec"}, (), None)


def test_a_model_whose_own_name_looks_like_an_adapters_is_asked(serve: Callable[..., FakeServer]) -> None:
    """It was taken for an adapter, and the server for one that lists no model."""
    listed = [{"id": "shop-20250115-next", "parent": None}, {"id": "rec", "parent": "shop-20250115-next"}]
    client = ServerLLM(serve(models=(200, {"data": listed})).url)
    assert (client.name, client.adapters) == ("shop-20250115-next", ("rec",))


class Later:
    """The clock of some seconds on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


def test_a_dead_server_is_no_error_until_it_is_asked_and_is_found_again_when_it_lives(
    serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    port = server.http.server_port
    server.close()
    llm = ServerLLM(server.url)
    assert llm.name == f"llm at 127.0.0.1:{port}"
    for call in (lambda: llm.generate([PROMPT]), lambda: llm.score([PROMPT])):
        with pytest.raises(LLMUnavailable, match=f"127.0.0.1:{port} cannot be reached"):
            call()
    with pytest.raises(LLMUnavailable, match="failed 3 times in a row and is asked again in 2 s"):
        llm.connect()
    living = serve()
    monkeypatch.setattr(breaker, "time", Later(2.0))
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
    assert len(asked) == 3  # twice more, not for ever


def test_a_busy_server_is_asked_again_within_the_deadline(serve: Callable[..., FakeServer]) -> None:
    told = [(503, {"error": {"message": "starting"}}), (429, {"error": {"message": "busy"}}), (200, answer("Yes"))]
    server = serve()
    server.replies = Queued(server.replies, told)
    assert ServerLLM(server.url).generate([PROMPT])[0][0].text == "Yes"
    server.replies = Queued(server.replies, [(503, {}), (503, {}), (200, answer("Yes"))])
    with within(0.4), pytest.raises(LLMError):  # no time for another try
        ServerLLM(server.url).generate([PROMPT], deadline=time.monotonic() + 0.4)


class Queued(dict[str, Reply]):
    """Replies of which those to chat requests come one after the other."""

    def __init__(self, others: dict[str, Reply], chats: list[Reply]) -> None:
        super().__init__(others)
        self.chats = chats

    def get(self, kind: str, default: Any = None) -> Any:
        return self.chats.pop(0) if kind == "chat" and self.chats else super().get(kind, default)


def dropping(server: FakeServer) -> None:
    def dropped(self: BaseHTTPRequestHandler) -> None:
        self.close_connection = True

    server.http.RequestHandlerClass.do_POST = dropped


def slow(server: FakeServer) -> None:
    server.replies["chat"] = (200, lambda body: time.sleep(2) or answer("Yes"))


def dead(server: FakeServer) -> None:
    server.close()


@pytest.mark.parametrize(
    "harm",
    [
        dropping,
        slow,
        dead,
        lambda server: server.replies.update(chat=(500, {"error": {"message": "dead engine"}})),
        lambda server: server.replies.update(chat=(200, b"<html>")),
    ],
    ids=["drops", "slow", "dead", "500", "garbled"],
)
def test_what_failed_three_times_is_not_asked_for_a_while_then_by_one_alone(
    serve: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch, harm: Callable[[FakeServer], None]
) -> None:
    server = serve()
    llm = ServerLLM(server.url)
    well = server.replies["chat"]
    harm(server)
    for _ in range(breaker.FAILURES):
        with pytest.raises(LLMError):
            llm.generate([PROMPT], deadline=time.monotonic() + 0.6)
    asked = len(server.seen)
    with within(0.5):
        for _ in range(200):
            with pytest.raises(LLMUnavailable, match="is not asked: it failed 3 times in a row"):
                llm.generate([PROMPT])
    assert len(server.seen) == asked
    if harm in (dead, dropping):
        return
    monkeypatch.setattr(breaker, "time", Later(2.5))
    server.replies["chat"] = (500, {})
    with pytest.raises(LLMUnavailable, match="status 500"):  # the one that tries
        llm.generate([PROMPT])
    with pytest.raises(LLMUnavailable, match="asked again in 4 s"):
        llm.generate([PROMPT])
    monkeypatch.setattr(breaker, "time", Later(7.0))
    server.replies["chat"] = well
    for _ in range(3):
        assert llm.generate([PROMPT])[0][0].text == "Yes"


def test_an_adapter_that_fails_leaves_the_others_and_the_base_alone(serve: Callable[..., FakeServer]) -> None:
    server = serve()
    llm = ServerLLM(server.url)
    server.replies["chat"] = (500, {})
    for _ in range(breaker.FAILURES):
        with pytest.raises(LLMUnavailable, match="status 500"):
            llm.generate([PROMPT], adapter="rec")
    server.replies["chat"] = (200, answer("Yes"))
    with pytest.raises(LLMUnavailable, match="is not asked"):
        llm.generate([PROMPT], adapter="rec")
    assert llm.generate([PROMPT])[0][0].text == "Yes"


def test_a_caller_without_time_and_a_wrong_request_are_no_failures_of_the_server(
    serve: Callable[..., FakeServer],
) -> None:
    server = serve()
    llm = ServerLLM(server.url)
    for _ in range(5):
        with pytest.raises(LLMTimeout):
            llm.generate([PROMPT], deadline=time.monotonic() - 1)
    server.replies["chat"] = (400, {"error": {"message": "too long"}})
    for _ in range(5):
        with pytest.raises(LLMError, match="too long"):
            llm.generate([PROMPT])


def test_of_those_who_come_after_the_pause_one_alone_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    one = breaker.Breaker()
    for _ in range(breaker.FAILURES):
        one.failed("fit", "it is dead")
    monkeypatch.setattr(breaker, "time", Later(3.0))
    assert [bool(one.refusal("fit")) for _ in range(3)] == [False, True, True]
    one.undecided("fit")  # it had no time to find out
    assert [bool(one.refusal("fit")) for _ in range(2)] == [False, True]
    one.worked("fit")
    assert not one.refusal("fit")


# ── A whole list in one request ───────────────────────────────────────────────────────────────────────────────────────


SHARED = "Bought a coat.\n\n[Next Item]\n"
LIST = [Prompt("S", f"{SHARED}hat {number}") for number in range(4)]


def template(body: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer of letters."""
    if "prompt" in body:
        text = body["prompt"]
    else:
        text = "".join(f"<{one['role']}>{one['content']}</>" for one in body["messages"]) + "<assistant>"
        if body["messages"][-1]["role"] == "assistant":
            text = template({"messages": body["messages"][:-1]})["text"] + body["messages"][-1]["content"]
    return {"tokens": [ord(one) for one in text], "text": text}


def scored(*scores: Any, prompt: int = 400) -> dict[str, Any]:
    data = [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)]
    return {"data": data, "usage": {"prompt_tokens": prompt, "completion_tokens": 4, "total_tokens": prompt + 4}}


def counters(hits: int, queries: int) -> bytes:
    kinds = {"hits": hits, "queries": queries}
    lines = [f'vllm:prefix_cache_{kind}_total{{engine="0"}} {float(count)}' for kind, count in kinds.items()]
    return "\n".join(["# HELP a b", *lines, 'vllm:prefix_cache_hits_created{engine="0"} 1.7e+09']).encode()


@pytest.fixture
def listing(serve: Callable[..., FakeServer]) -> FakeServer:
    """A server that scores lists."""
    base = {"id": BASE, "object": "model", "parent": None, "max_model_len": 2048}
    return serve(
        models=(200, {"object": "list", "data": [base]}),
        tokenize=(200, template),
        detokenize=(200, lambda body: {"prompt": "".join(map(chr, body["tokens"]))}),
        scoring=(200, scored(0.9, 0.5, 0.1, 0.0)),
        chat=(200, answer("Yes", logprobs=logprobs(t89=-1.0, t78=-2.0))),
    )


def paths(server: FakeServer) -> list[str]:
    return [path.rpartition("/")[2] for path, _, _ in server.seen]


def test_a_whole_list_is_one_request_with_what_is_shared_once(listing: FakeServer) -> None:
    llm = ServerLLM(listing.url)
    scores, usage = llm.score(LIST)
    assert [round(1 / (1 + 2.718281828459045 ** (no - yes)), 6) for yes, no in scores] == [0.9, 0.5, 0.1, 0.0]
    assert (usage.prompt, usage.completion) == (400, 4)
    body = next(body for path, body, _ in listing.seen if "scoring" in path)
    assert body["query"] == f"<system>S</><user>{SHARED}"
    assert body["items"] == [f"hat {number}</><assistant>" for number in range(4)]
    assert body["label_token_ids"] == [ord("Y"), ord("N")]
    listing.seen.clear()
    llm.score([Prompt("S", f"Bought a hat.\n\n[Next Item]\ncoat {number}") for number in range(4)])
    assert set(paths(listing)) <= {"generative_scoring", "metrics"}  # the template is known by now
    assert paths(listing).count("generative_scoring") == 1
    assert "completions" not in paths(listing)


def test_a_server_without_that_path_is_asked_prompt_by_prompt_and_never_again(listing: FakeServer) -> None:
    del listing.replies["scoring"]
    llm = ServerLLM(listing.url)
    for _ in range(2):
        assert llm.score(LIST)[0] == [(-1.0, -2.0)] * 4
    assert paths(listing).count("generative_scoring") == 1


@pytest.mark.parametrize("change", ["tokens", "detokenize", "window", "systems", "cut"])
def test_prompts_that_cannot_be_parted_for_certain_are_asked_one_by_one(listing: FakeServer, change: str) -> None:
    asked = LIST
    if change == "tokens":  # "\n" and what follows are one token there
        listing.replies["tokenize"] = (
            200,
            lambda body: {"tokens": [*template(body)["tokens"], *([7] if "prompt" in body else [])]},
        )
    if change == "detokenize":
        del listing.replies["detokenize"]
    if change == "window":
        listing.replies["models"] = (200, MODELS)
    if change == "systems":
        asked = [Prompt(f"S{number}", one.user) for number, one in enumerate(LIST)]
    if change == "cut":  # the server cuts prompts that are too long without a word
        listing.replies["scoring"] = (200, scored(0.9, 0.5, 0.1, 0.0, prompt=4 * 2040))
    assert ServerLLM(listing.url).score(asked)[0] == [(-1.0, -2.0)] * 4


@pytest.mark.parametrize(
    "page",
    [
        *({}, [], b"x", scored(0.5), {"data": [{"index": 1, "score": 0.5}] * 4}),
        *(scored(0.1, 0.2, 0.3, wrong) for wrong in (1.5, -0.1, True, "0.3", None, float("nan"))),
    ],
)
def test_scores_that_are_none_are_garbled(listing: FakeServer, page: Any) -> None:
    listing.replies["scoring"] = (200, page)
    with pytest.raises(LLMGarbled):
        ServerLLM(listing.url).score(LIST)


def test_the_hits_of_the_prefix_cache_are_read_of_the_servers_counters(listing: FakeServer) -> None:
    looks = [counters(100, 1000), counters(450, 1400)]
    listing.replies["metrics"] = (200, lambda body: looks.pop(0) if len(looks) > 1 else looks[0])
    llm = ServerLLM(listing.url)
    assert llm.score(LIST)[1].cached == 350  # of 400: 7 of 8
    assert llm.score(LIST)[1].cached == 350  # not looked at again within two seconds
    assert paths(listing).count("metrics") == 2
    for wrong in (b"", b"vllm:prefix_cache_hits_total x\n", counters(0, 0)):
        listing.replies["metrics"] = (200, wrong)
        assert ServerLLM(listing.url).score(LIST)[1].cached == 0


def test_a_slow_server_is_a_timeout_at_the_deadline(serve: Callable[..., FakeServer]) -> None:
    def slow(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(3)
        return answer("Yes")

    llm = ServerLLM(serve(chat=(200, slow)).url)
    with within(1.5), pytest.raises(LLMTimeout):
        llm.generate([PROMPT] * 3, deadline=time.monotonic() + 0.3)
    with pytest.raises(LLMTimeout):
        llm.generate([PROMPT], deadline=time.monotonic() - 1)


def test_a_dripping_server_cannot_stretch_the_deadline(serve: Callable[..., FakeServer]) -> None:
    server = serve(chat=(200, answer("Yes")))
    llm = ServerLLM(server.url)
    llm._yes_no._answer_tokens(llm._base, PROMPT, ("Yes", "No"), None)
    server.drip = 5
    with within(2):
        for call in (llm.generate, llm.score):
            with pytest.raises(LLMTimeout):
                call([PROMPT], deadline=time.monotonic() + 0.3)


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
