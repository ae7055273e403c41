"""Around every request, whatever answers it: its id, its body's size and time, tricks with paths, headers that keep a
browser from doing harm, one line in the log, the counters.

Pure ASGI, so that streams pass through it. It knows nothing of endpoints; what it logs and counts is the template of a
path, never the path.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import urlsplit

import anyio
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, Tracer, format_trace_id, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recgraph.http.limits import Limits
from recgraph.http.metrics import Meters, method_of
from recgraph.http.problems import SECURITY, Refusal, problem, request_id_of

UNMATCHED = "unmatched"  # in logs, counters and spans, for a path that no endpoint has
_PROBES = ("/health", "/ready", "/metrics")  # asked every few seconds by machines: no spans
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What one layer reads as one path and another as another: encoded slashes, dots and NULs, empty and dot segments.
_TRICKS = re.compile(rb"(?i)%(2f|5c|2e|00|0[1-9a-f]|1[0-9a-f]|7f|25)|[\x00-\x20\x7f-\xff\\]|//|/\.\.?(/|$)")
_LONGEST = 2000  # bytes of a path
_log = logging.getLogger("recgraph.http.requests")


class Guard:
    """The outermost layer of the application but for what turns a crash into an answer."""

    def __init__(
        self, app: ASGIApp, *, meters: Meters, limits: Limits, same_origin: bool, tracer: Tracer | None = None
    ) -> None:
        """`same_origin` refuses what a page of another site sends: where no key is asked for, any page of a browser on
        this machine could. `tracer` makes a span of every request, in the trace that its sender began."""
        self.app, self.meters, self.same_origin, self.tracer = app, meters, same_origin, tracer
        self.body, self.seconds = limits.body, limits.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["recgraph.request_id"] = given if _ID.fullmatch(given) else uuid.uuid4().hex
        begun, status, span = time.perf_counter(), 500, self._span(scope)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id_of(scope)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                await self._admit(scope, receive, answer)
        finally:
            self._note(scope, status, time.perf_counter() - begun, span)
            span.end()

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: Refusal | None = None
        path = bytes(scope.get("raw_path") or scope["path"].encode())
        if _TRICKS.search(path.partition(b"?")[0]) or len(path) > _LONGEST:
            refusal = Refusal(400, "path", "The path holds what no address here has; an id with a slash has none.")
        elif self.same_origin and not _of_same_origin(Headers(scope=scope)):
            refusal = Refusal(403, "origin", "A page of another site may not ask here. Serve it with keys instead.")
        else:
            body = await self._read(scope, receive)
            if isinstance(body, bytes):
                await self.app(scope, _again(body, receive), send)
                return
            refusal = body
        await problem(Request(scope), refusal)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Refusal:
        """The whole body, or the refusal: it is too large by its header or by its chunks, or takes too long."""
        large = Refusal(413, "too-large", f"A request may have {self.body:,} bytes. Send it in parts.")
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front may go by the other one, and take a part of this body for the next request.
            close = {"Connection": "close"}
            return Refusal(400, "length", "Content-Length or Transfer-Encoding, not both.", close)
        told = headers.get("content-length", "0")
        if told.isdigit() and int(told[:20]) > self.body:
            return large
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(self.seconds) as clock:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    break
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self.body:
                    return large
                if not message.get("more_body"):
                    return b"".join(parts)
        late = "The body did not arrive in time." if clock.cancelled_caught else "The body was cut off."
        return Refusal(408, "too-slow", f"{late} Send it again.", {"Connection": "close"})

    def _span(self, scope: Scope) -> Span:
        """Of a request that has just come; its name is known at its end. Baggage is not taken over: it may hold
        anything."""
        if self.tracer is None or scope["path"] in _PROBES:
            return INVALID_SPAN
        around = TraceContextTextMapPropagator().extract(Headers(scope=scope))
        return self.tracer.start_span(UNMATCHED, around, SpanKind.SERVER)

    def _note(self, scope: Scope, status: int, seconds: float, span: Span) -> None:
        template = str(getattr(scope.get("route"), "path", "") or UNMATCHED)
        method = method_of(scope["method"])
        self.meters.request(template, method, status, seconds)
        told = {"method": scope["method"], "path": template, "status": status, "ms": round(seconds * 1000, 1)}
        told |= {"request_id": request_id_of(scope), "key": scope.get("recgraph.key", "")}
        if span.is_recording():
            span.update_name(f"{method} {template}")
            span.set_attributes({"http.request.method": method, "http.route": template})
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            told["trace_id"] = format_trace_id(span.get_span_context().trace_id)
        _log.info("request", extra={"told": told})


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what else comes."""
    given = False

    async def told() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return told


def _of_same_origin(headers: Headers) -> bool:
    """Whether no page of another site sent this: a browser says so in one of two headers."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
