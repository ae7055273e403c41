"""Errors as problem JSON (RFC 9457): each of recgraph's errors is a status, a title and a sentence that says what mends
it. Nothing in it comes from the store's disk or from another shopper: no paths, no ids but those that were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from recgraph.errors import (
    EmptyStore,
    LLMError,
    ModelMissing,
    RecgraphError,
    SettingsError,
    StoreBusy,
    StoreReadOnly,
    UnknownRun,
    UnknownUser,
)
from recgraph.http.bodies import ProblemJson

# On every answer, unless it says otherwise.
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
RETRY_AFTER = {"Retry-After": "1"}
_MEDIA = "application/problem+json"
_MOST_ERRORS = 20  # wrong fields that are named


class Refusal(Exception):
    """Raised by an endpoint: the request is refused with this problem."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, headers or {}


def request_id_of(scope: Scope) -> str:
    """The id of a request, given by its sender where that is harmless."""
    return str(scope.get("recgraph.request_id", ""))


def unauthorized() -> Refusal:
    """No key, or none that is known."""
    detail = "Give a key as `Authorization: Bearer KEY`; `recgraph keys add NAME` makes one."
    return Refusal(401, "no-key", detail, {"WWW-Authenticate": "Bearer"})


def refusal_of(error: RecgraphError) -> Refusal:
    """What one of recgraph's errors is to who asked over HTTP."""
    match error:
        case UnknownUser():
            detail = "No events of this user are known. For a new shopper set new_user, or record events first."
            return Refusal(404, "unknown-user", detail)
        case UnknownRun():
            return Refusal(404, "unknown-run", "No run of this id is in the run log; runs are deleted after a time.")
        case SettingsError():
            return Refusal(422, "wrong-value", str(error))
        case StoreBusy():
            return Refusal(503, "busy", "Another process holds the store. Ask again.", RETRY_AFTER)
        case StoreReadOnly():
            return Refusal(503, "read-only", "The store or its disk cannot be written. Its operator has to act.")
        case EmptyStore():
            return Refusal(503, "empty", "The store has no products: POST /v1/items, or recgraph ingest.")
        case LLMError() | ModelMissing():
            return Refusal(503, "model", "The language model does not answer. Ask again.", RETRY_AFTER)
    return Refusal(503, "store", "The store cannot be used now. Ask again, or ask its operator: recgraph doctor.")


def problem_json(scope: Scope, refusal: Refusal) -> dict[str, Any]:
    """A problem as plain data."""
    return {
        "type": f"urn:recgraph:problem:{refusal.kind}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "request_id": request_id_of(scope),
    }


def problem(request: Request, refusal: Refusal, **more: Any) -> JSONResponse:
    """The answer to a refused request."""
    content = {**problem_json(request.scope, refusal), **more}
    return JSONResponse(content, refusal.status, dict(refusal.headers), media_type=_MEDIA)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI has them, each a problem."""
    return {
        status: {"model": ProblemJson, "description": HTTPStatus(status).phrase, "content": {_MEDIA: {}}}
        for status in statuses
    }


def add_handlers(app: FastAPI) -> None:
    """Every error that leaves an endpoint becomes a problem."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return problem(request, error)

    @app.exception_handler(RecgraphError)
    async def known(request: Request, error: RecgraphError) -> JSONResponse:
        return problem(request, refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [
            {"where": ".".join(map(str, one["loc"]))[:200], "what": str(one["msg"])[:200]}
            for one in error.errors()[:_MOST_ERRORS]
        ]
        first = f"{wrong[0]['where']}: {wrong[0]['what']}." if wrong else "The request cannot be read."
        return problem(request, Refusal(422, "invalid", first), errors=wrong)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        kind = HTTPStatus(error.status_code).name.lower().replace("_", "-")
        return problem(request, Refusal(error.status_code, kind, str(error.detail), dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        detail = "This is a fault of recgraph. Its log has more under the request id."
        # The server drops the connection after a crash, which a client that keeps it would meet in its next request.
        return problem(request, Refusal(500, "fault", detail, {**SECURITY, "Connection": "close"}))
