"""The HTTP client beneath the OpenAI client, for a server that cannot be trusted to answer well.

A response has a size, and an end in time even where it comes a byte at a time; it is taken as it is sent, never
unpacked; a redirect is not followed, so neither key nor prompt goes to another place. Each request has a connection of
its own: it can be broken off from another thread, and is never one that the server closed for idleness as the request
went out. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import openai

from recgraph.tools.llm.threads import current

MOST_BYTES = 512 << 10  # of a response; the longest that is asked for, the tokens of a prompt, takes some 20 kB


class TooMuch(openai.OpenAIError):
    """A response that is larger than any that is asked for, or packed."""


_thread = threading.local()


@contextlib.contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """What this thread sends in the block has these headers besides."""
    _thread.headers = headers
    try:
        yield
    finally:
        _thread.headers = {}


class BoundedClient(openai.DefaultHttpxClient):
    """An httpx (or httpx2, as openai has it) client whose every response is whole, small and in time when `send`
    returns."""

    def send(self, request: Any, **options: Any) -> Any:
        """The response, read. The time is what the request's timeout says, all phases together."""
        seconds = (request.extensions.get("timeout") or {}).get("read")
        until = None if seconds is None else time.monotonic() + seconds
        request.headers["Accept-Encoding"] = "identity"
        request.headers["Connection"] = "close"
        request.headers.update(getattr(_thread, "headers", {}))
        request.extensions = {**request.extensions, "trace": _breakable}
        response = super().send(request, **{**options, "stream": True, "follow_redirects": False})
        try:
            content = _content(response, request, until)
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_BODY]
        return type(response)(response.status_code, headers=headers, content=content, request=request)


_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


def _content(response: Any, request: Any, until: float | None) -> bytes:
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise TooMuch("the response is packed, which was not asked for")
    content = bytearray()
    for part in response.iter_raw():
        content += part
        if len(content) > MOST_BYTES:
            raise TooMuch(f"the response is larger than {MOST_BYTES >> 10} KiB")
        if until is not None and time.monotonic() > until:
            raise openai.APITimeoutError(request=request)
    return bytes(content)


def _breakable(event: str, info: dict[str, Any]) -> None:
    """Makes the connection that was just opened known to the batch the thread works for."""
    batch = current()
    if batch is None or event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
        return
    opened: socket.socket | None = info["return_value"].get_extra_info("socket")

    def break_off() -> None:
        with contextlib.suppress(OSError):  # closed already
            if opened is not None:
                opened.shutdown(socket.SHUT_RDWR)

    batch.register(break_off)
