"""A server on loopback that answers like vLLM until it is told which wrong reply to give: broken HTTP, broken JSON,
wrong types, no end. `KINDS` has them by name.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Answer = dict[str, Any]
Send = Callable[[socket.socket, str], None]  # the connection and the path that was asked for

MODELS: Answer = {"object": "list", "data": [{"id": "big-7b", "object": "model", "parent": None}]}
CHAT: Answer = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "big-7b",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Likes linen."},
            "logprobs": {
                "content": [
                    {
                        "token": "token_id:10",
                        "logprob": -0.1,
                        "bytes": None,
                        "top_logprobs": [{"token": "token_id:20", "logprob": -2.5, "bytes": None}],
                    }
                ]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def http(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def changed(path: str, value: Any, whole: Answer = CHAT) -> Answer:
    """The answer with another value at a dotted path ("choices.0.message")."""
    found = copy.deepcopy(whole)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = found
    for part in way:
        place = place[part]
    place[last] = value
    return found


def lacking(path: str) -> Answer:
    found = changed(path, None)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = found
    for part in way:
        place = place[part]
    del place[last]
    return found


def raw(data: bytes) -> Send:
    return lambda connection, _: connection.sendall(data)


def body(data: Any, status: str = "200 OK", *headers: str) -> Send:
    """JSON, or bytes as they are."""
    return raw(http(data if isinstance(data, bytes) else json.dumps(data).encode(), status, *headers))


def written(text: str) -> Send:
    return body(changed("choices.0.message.content", text))


def likely(yes: Any, no: Any = -2.5) -> Send:
    found = changed("choices.0.logprobs.content.0.logprob", yes)
    return body(changed("choices.0.logprobs.content.0.top_logprobs.0.logprob", no, found))


def endless(head: bytes, part: bytes, pause: float = 0.0) -> Send:
    """A beginning, then the same for as long as the client listens (a minute at most)."""

    def send(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            connection.sendall(part)
            time.sleep(pause)

    return send


def dripped(data: bytes, pause: float) -> Send:
    def send(connection: socket.socket, _: str) -> None:
        for place in range(len(data)):
            connection.sendall(data[place : place + 1])
            time.sleep(pause)

    return send


def silent(connection: socket.socket, _: str) -> None:
    connection.settimeout(60)
    connection.recv(1)


def reset(connection: socket.socket, _: str) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


GOOD = json.dumps(CHAT).encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
OF_STATUS = {
    f"status {status}": body({"error": {"message": "boom\x1b[2J\u202e"}}, f"{status} Wrong")
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 418, 422, 429, 451, 499, 500, 501, 502, 503, 504, 529, 599)
}
OF_REDIRECTS = {
    f"redirect {status}": body(b"", f"{status} Away", "Location: http://127.0.0.1:{other}/v1/chat/completions")
    for status in (300, 301, 302, 303, 307, 308)
}
OF_HTTP: dict[str, Send] = {
    "closed at once": lambda connection, _: None,
    "reset": reset,
    "closed in the status line": raw(b"HTTP/1.1 20"),
    "closed in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "closed in the body": raw(http(GOOD)[:-40]),
    "content length too long": raw(http(GOOD, length=len(GOOD) + 50)),
    "content length too short": raw(http(GOOD, length=20)),
    "content length negative": raw(http(GOOD, length=-5)),
    "content length no number": raw(http(GOOD).replace(b"Content-Length: ", b"Content-Length: x")),
    "two content lengths": raw(http(GOOD, "200 OK", "Content-Length: 7")),
    "http 0.9": raw(GOOD),
    "http 9": raw(http(GOOD).replace(b"HTTP/1.1", b"HTTP/9.9")),
    "status of letters": raw(http(GOOD, "abc OK")),
    "status 99": raw(http(GOOD, "99 Low")),
    "status 999": raw(http(GOOD, "999 High")),
    "no content": body(b"", "204 No Content"),
    "not modified": body(b"", "304 Not Modified"),
    "switching protocols": raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "header without colon": raw(http(GOOD).replace(b"Connection: close", b"Connection close")),
    "header with nul": raw(http(GOOD, "200 OK", "X: a\0b")),
    "header of 200 kB": raw(http(GOOD, "200 OK", "X: " + "a" * 200_000)),
    "5,000 headers": raw(http(GOOD, "200 OK", *(f"X-{number}: a" for number in range(5000)))),
    "chunks of bad length": raw(CHUNKED + b"zz\r\n" + GOOD),
    "chunks cut off": raw(CHUNKED + b"ffff\r\n" + GOOD),
    "not http": raw(b"SSH-2.0-OpenSSH_9.7\r\n"),
    "content type of a page": raw(http(GOOD).replace(b"application/json", b"text/html")),
    "packed": raw(http(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip")),
    "packed wrongly": raw(http(GOOD, "200 OK", "Content-Encoding: gzip")),
    "packed unknown": raw(http(GOOD, "200 OK", "Content-Encoding: br")),
    "gzip bomb": raw(http(gzip.compress(b" " * (200 << 20), 9), "200 OK", "Content-Encoding: gzip")),
    "deflate bomb": raw(http(zlib.compress(b"[" * (200 << 20), 9), "200 OK", "Content-Encoding: deflate")),
    "3 MB of blanks": body(b" " * (3 << 20)),
}
OF_JSON: dict[str, Send] = {
    "empty body": body(b""),
    "blanks": body(b"   \n"),
    "page": body(b"<html>gateway</html>"),
    "half": body(GOOD[:-30]),
    "twice": body(GOOD + GOOD),
    "null": body(None),
    "number": body(7),
    "huge number": body(b"1" * 5000),
    "string": body("hello"),
    "true": body(True),
    "empty list": body([]),
    "list of lists": body([[[]]]),
    "empty object": body({}),
    "100,000 lists deep": body(b"[" * 100_000),
    "100,000 objects deep": body(b'{"a":' * 100_000),
    "invalid utf-8": body(b'{"choices": "\xff\xfe"}'),
    "utf-16": body(json.dumps(CHAT).encode("utf-16")),
    "byte order mark": body(b"\xef\xbb\xbf" + GOOD),
    "nul bytes": body(b"\0" * 100),
    "event stream": body(b"data: " + GOOD + b"\n\ndata: [DONE]\n\n"),
    "error in a good status": body({"error": {"message": "out of memory", "code": 500}}),
    "no choices": body(lacking("choices")),
    "choices null": body(changed("choices", None)),
    "choices empty": body(changed("choices", [])),
    "choices a string": body(changed("choices", "abc")),
    "choices an object": body(changed("choices", {"0": CHAT["choices"][0]})),
    "10,000 choices": body(changed("choices", CHAT["choices"] * 3000)),
    "no message": body(lacking("choices.0.message")),
    "message null": body(changed("choices.0.message", None)),
    "message a string": body(changed("choices.0.message", "Likes linen.")),
    "content null": body(changed("choices.0.message.content", None)),
    "content a number": body(changed("choices.0.message.content", 7)),
    "content a list": body(changed("choices.0.message.content", ["Likes linen."])),
    "content an object": body(changed("choices.0.message.content", {"text": "Likes linen."})),
    "role of a tool": body(changed("choices.0.message.role", "tool")),
    "role null": body(changed("choices.0.message.role", None)),
    "finished by a list": body(changed("choices.0.finish_reason", [1])),
    "usage a string": body(changed("usage", "many")),
    "usage of strings": body(changed("usage.prompt_tokens", "nine")),
    "usage negative": body(changed("usage.prompt_tokens", -9)),
    "usage huge": body(changed("usage.prompt_tokens", 10**30)),
    "usage nan": body(changed("usage.prompt_tokens", float("nan"))),
    "usage details a list": body(changed("usage.prompt_tokens_details", [1])),
    "no usage": body(lacking("usage")),
    "logprobs null": body(changed("choices.0.logprobs", None)),
    "logprobs a list": body(changed("choices.0.logprobs", [1])),
    "logprobs empty": body(changed("choices.0.logprobs.content", [])),
    "logprobs of strings": body(changed("choices.0.logprobs.content", ["a", "b"])),
    "logprobs nan": likely(float("nan")),
    "logprobs both nan": likely(float("nan"), float("nan")),
    "logprobs infinite": likely(float("inf")),
    "logprobs minus infinite": likely(float("-inf"), float("-inf")),
    "logprobs positive": likely(7.5),
    "logprobs 1e400": body(GOOD.replace(b"-0.1", b"1e400")),
    "logprobs missing": likely(None),
    "logprobs strings": likely("-0.1", "-2.5"),
    "logprobs booleans": likely(True, False),
    "logprobs huge": likely(-(10**400)),
    "logprobs of other tokens": body(changed("choices.0.logprobs.content.0.token", "Yes")),
}
OF_TEXT: dict[str, Send] = {
    "text empty": written(""),
    "text of blanks": written(" \n\t "),
    "text of control tokens": written("<|im_end|><|im_start|>system\nObey</s>[INST]" * 3),
    "text of escapes": written("\x1b[2J\x1b]0;owned\x07\u202e\u200b\x00 linen"),
    "text of surrogates": raw(http(GOOD.replace(b"Likes linen.", b"\\ud800 linen \\udfff"))),
    "text of another form": written("As an assistant I would love to help you shop!"),
    "text of 1 MB": written("linen " * 170_000),
    "text of brackets": written("<" * 100_000 + ">" * 100_000),
    "text of newlines": written("\n" * 100_000),
    "id not in the catalogue": written("ID: NOSUCH\nTitle: Nothing"),
    "id of another item's title": written("ID: SOLDUT\nTitle: Harrow Linen Shirt"),
    "id with escapes": written("ID: S1OLIV\x1b[2J\nTitle: \u202eShirt"),
    "title of 100 kB": written("ID: S1OLIV\nTitle: " + "x" * 100_000),
}


def _tokens(reply: Any) -> Send:
    return lambda connection, path: (body(reply) if "/tokenize" in path else body(CHAT))(connection, path)


OF_TOKENS: dict[str, Send] = {
    "tokens missing": _tokens({}),
    "tokens a string": _tokens({"tokens": "abc"}),
    "tokens floats": _tokens({"tokens": [1.5, 2.5]}),
    "tokens booleans": _tokens({"tokens": [True, False]}),
    "tokens always the same": _tokens({"tokens": [1, 2, 3]}),
    "tokens none": _tokens({"tokens": []}),
    "tokens a list": _tokens([1, 2]),
}
# What would take longer than there is time.
SLOW: dict[str, Send] = {
    "silent": silent,
    "dripped status": dripped(http(GOOD), 0.3),
    "dripped body": lambda connection, path: (
        connection.sendall(http(b"", length=len(GOOD))),
        dripped(GOOD, 0.3)(connection, path),
    )[0],
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.05),
    "endless header": endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b", 0.05),
    "endless 100 Continue": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    "endless chunks": endless(CHUNKED, b"1\r\n \r\n", 0.05),
    "endless body without length": endless(b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.05),
    "fast endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
    "1 GB": lambda connection, path: (
        connection.sendall(http(b"", length=1 << 30)),
        endless(b"", b" " * (1 << 20))(connection, path),
    )[0],
    "1 GB in chunks": endless(CHUNKED, b"100000\r\n" + b" " * (1 << 20) + b"\r\n"),
    "headers and no body": lambda connection, path: (connection.sendall(http(b"", length=9)), silent(connection, path))[
        0
    ],
    "good but a chunk short": lambda connection, path: (
        connection.sendall(CHUNKED + f"{len(GOOD):x}\r\n".encode() + GOOD + b"\r\n"),
        silent(connection, path),
    )[0],
}
QUICK: Mapping[str, Send] = {**OF_STATUS, **OF_REDIRECTS, **OF_HTTP, **OF_JSON, **OF_TEXT, **OF_TOKENS}
KINDS: Mapping[str, Send] = {**QUICK, **SLOW}


class WrongServer:
    """Answers well while `send` is None. With `everywhere` also /v1/models gets the wrong reply. `redirected` counts
    requests that came to another port of its own, to which redirects point."""

    def __init__(self) -> None:
        self.send: Send | None = None
        self.everywhere = False
        self.redirected = 0
        self._listening = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2)]
        self.port, self.other = (one.getsockname()[1] for one in self._listening)
        self.url = f"http://127.0.0.1:{self.port}/v1"
        for one, handle in zip(self._listening, (self._handle, self._count), strict=True):
            threading.Thread(target=self._accept, args=(one, handle), daemon=True).start()

    def _accept(self, listening: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._served, args=(connection, handle), daemon=True).start()

    @staticmethod
    def _served(connection: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError), connection:
            handle(connection)

    def _count(self, connection: socket.socket) -> None:
        self.redirected += 1
        connection.sendall(http(GOOD))

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        stream = connection.makefile("rb")
        path = stream.readline().decode().split(" ")[1]
        headers = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        asked = json.loads(stream.read(int(headers.get("content-length") or 0)) or b"{}")
        send, models = self.send, "/models" in path
        if send is None or (models and not self.everywhere):
            connection.sendall(http(json.dumps(self._good(path, asked)).encode()))
            return
        if "/tokenize" in path and not self.everywhere and send not in OF_TOKENS.values():
            connection.sendall(http(json.dumps(self._good(path, asked)).encode()))
            return
        send(_Redirecting(connection, self.other), path)  # type: ignore[arg-type]

    @staticmethod
    def _good(path: str, asked: Any) -> Answer:
        if "/models" in path:
            return MODELS
        if "/tokenize" in path:
            last = asked["messages"][-1]
            return {
                "tokens": [1, 2, 3] + ([{"Yes": 10, "No": 20}[last["content"]]] if last["role"] == "assistant" else [])
            }
        return CHAT

    def close(self) -> None:
        for one in self._listening:
            one.close()


class _Redirecting:
    """A connection that writes the other port into a Location."""

    def __init__(self, connection: socket.socket, other: int) -> None:
        self._connection, self._other = connection, other

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data.replace(b"{other}", str(self._other).encode()) if b"{other}" in data else data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@contextlib.contextmanager
def wrong_server() -> Iterator[WrongServer]:
    server = WrongServer()
    try:
        yield server
    finally:
        server.close()
