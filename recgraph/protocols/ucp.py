"""UCP over REST: the shop's profile at /.well-known/ucp and the catalogue under /ucp.

A `fastapi` router: it reads a request, asks shopping.py, and says errors as UCP does. It knows no product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from ucp_sdk.models.schemas.shopping.catalog_lookup import GetProductRequest, LookupRequest
from ucp_sdk.models.schemas.shopping.catalog_search import SearchRequest

from recgraph.errors import RecgraphError, SettingsError
from recgraph.http.access import Entrance, with_scope
from recgraph.http.problems import Refusal, refusal_of
from recgraph.protocols.access import Caller, ProtocolOptions, Refused, refused
from recgraph.protocols.profiles import VERSION, profile_of_header
from recgraph.protocols.shopping import LOOKUP, SEARCH, SECONDS, UcpCatalogue
from recgraph.service import Service
from recgraph.tools.llm.untrusted import one_line

_AT = f"https://ucp.dev/{VERSION}"
_PROFILE_SECONDS = 300  # that others may keep the shop's profile
_ERROR = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "content": {"type": "string"}},
    "required": ["code", "content"],
}
_STATUS = {
    400: "The request is malformed, or too large",
    401: "No key, or an unknown one",
    403: "The key may not do this",
    422: "The agent's profile is malformed or of another version",
    424: "The agent's profile cannot be read",
    429: "Too many requests",
    503: "The shop cannot answer now",
}


class _UcpRoute(APIRoute):
    """Says errors as UCP does: `{"code", "content"}`, 400 for a body that is not what was asked for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        serve = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                await _check_text(request)
                return await serve(request)
            except RequestValidationError as error:
                wrong = error.errors()[0]
                place = ".".join(str(part) for part in wrong["loc"][1:])
                return _error(400, "invalid_request", f"{place or 'body'}: {wrong['msg']}")
            except Refused as error:
                return _error(error.status, error.code, str(error))
            except Refusal as error:
                return _error(error.status, refused(error).code, error.detail, error.headers)
            except HTTPException as error:  # of a body that is no text
                return _error(error.status_code, "invalid_request", error.detail)
            except SettingsError as error:
                return _error(400, "invalid_request", str(error))
            except RecgraphError as error:
                refusal = refusal_of(error)  # which names no file of this machine
                return _error(refusal.status, refusal.kind, refusal.detail, refusal.headers)

        return told


def router(service: Service, entrance: Entrance, options: ProtocolOptions | None = None) -> APIRouter:
    """The routes of a shop. `options` come from the environment where none are given."""
    catalogue, reading = UcpCatalogue(service, options), entrance.writing
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": what, "content": {"application/json": {"schema": _ERROR}}}
        for status, what in _STATUS.items()
    }
    made = APIRouter(route_class=_UcpRoute, tags=["ucp"], responses=errors)

    @made.get("/.well-known/ucp", summary="The shop's UCP profile", responses={})
    def profile(request: Request) -> JSONResponse:
        url = catalogue.options.url or str(request.base_url).rstrip("/")
        # What is told by the Host of a request is for who sent it: a cache would tell others.
        kept = f"public, max-age={_PROFILE_SECONDS}" if catalogue.options.url else "no-store"
        return JSONResponse(business_profile(url), headers={"Cache-Control": kept})

    def caller(request: Request) -> Caller:
        grant = with_scope(entrance.access.admitted(request.scope), "recommend")
        return Caller.of(grant, profile_of_header(request.headers.get("ucp-agent", "")))

    @made.post("/ucp/catalog/search", summary="Search products")
    async def search(request: Request, body: SearchRequest) -> JSONResponse:
        clock = service.clock(most=SECONDS)
        ask = partial(catalogue.search, body, caller(request), clock)
        return _fresh(await entrance.answering.run(ask, clock=clock))

    @made.post("/ucp/catalog/lookup", summary="Products and variants by their ids")
    async def lookup(request: Request, body: LookupRequest) -> JSONResponse:
        return _fresh(await reading.run(catalogue.lookup, body, caller(request)))

    @made.post("/ucp/catalog/product", summary="One product with its options")
    async def product(request: Request, body: GetProductRequest) -> JSONResponse:
        return _fresh(await reading.run(catalogue.product, body, caller(request)))

    return made


def business_profile(url: str) -> dict[str, Any]:
    """What the shop offers to agents, at which addresses."""
    service = {"version": VERSION, "spec": f"{_AT}/specification/overview"}
    rest = {"transport": "rest", "schema": f"{_AT}/services/shopping/rest.openapi.json", "endpoint": f"{url}/ucp"}
    mcp = {"transport": "mcp", "schema": f"{_AT}/services/shopping/mcp.openrpc.json", "endpoint": f"{url}/mcp"}
    return {
        "ucp": {
            "version": VERSION,
            "services": {"dev.ucp.shopping": [{**service, **rest}, {**service, **mcp}]},
            "capabilities": {SEARCH: [_capability("search")], LOOKUP: [_capability("lookup")]},
            "payment_handlers": {},
        }
    }


def _capability(name: str) -> dict[str, str]:
    return {
        "version": VERSION,
        "spec": f"{_AT}/specification/shopping/catalog/{name}",
        "schema": f"{_AT}/schemas/shopping/catalog_{name}.json",
    }


async def _check_text(request: Request) -> None:
    """Refused for a body with half a character (a lone surrogate), which no database and no answer can hold."""
    try:
        json.dumps(await request.json(), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused("invalid_request", 400, "body: it holds half a character (a lone surrogate).") from None
    except (ValueError, RecursionError):
        return  # no JSON: whoever reads it says so


def _fresh(told: dict[str, Any]) -> JSONResponse:
    """Prices and stock are of now, and the order may be one shopper's."""
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


def _error(status: int, code: str, content: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    asks = {"WWW-Authenticate": 'Bearer realm="ucp"'} if status == 401 else {}
    return JSONResponse({"code": code, "content": one_line(content)}, status, {**asks, **(headers or {})})
