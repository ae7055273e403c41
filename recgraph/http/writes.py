"""The endpoints that write: events, products, and forgetting a shopper. Each answers when it is on disk."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from fastapi.responses import JSONResponse, Response

from recgraph.http.access import Entrance, check_sees, check_unbound
from recgraph.http.bodies import (
    ChangedJson,
    EventsRequest,
    GoneJson,
    Id,
    ItemJson,
    ItemsRequest,
    WrittenJson,
)
from recgraph.http.keys import Grant
from recgraph.http.problems import Refusal, documented
from recgraph.service import Service
from recgraph.store.records import as_utc

_REFUSED = (400, 401, 403, 408, 413, 422, 429, 500, 503)


def router(service: Service, entrance: Entrance) -> APIRouter:
    """These endpoints over one service."""
    routes, writing = APIRouter(prefix="/v1", responses=documented(*_REFUSED)), entrance.writing
    records, writes, erases = (Depends(entrance.access.asks(scope)) for scope in ("events", "catalog", "erase"))

    @routes.post(
        "/events",
        summary="Record what shoppers did",
        status_code=202,
        response_class=JSONResponse,
        responses={202: {"model": WrittenJson, "description": "On disk; the next answer knows them."}},
    )
    async def events(body: EventsRequest, grant: Grant = records) -> Response:
        """All of them or none. An `event_id` that this user has had already is `known` and not written again, so a
        batch may be sent twice."""
        for event in body.events:
            check_sees(grant, event.user_id)
        told = await writing.run(_record, service, body, grant)
        entrance.meters.recorded(told)
        return JSONResponse(told, 202)

    @routes.post(
        "/items",
        summary="Add and change products",
        response_class=JSONResponse,
        responses={200: {"model": ChangedJson, "description": "On disk; the next answer knows them."}},
    )
    async def items(body: ItemsRequest, grant: Grant = writes) -> Response:
        """What is given is written, the rest stays: a price, a stock, a new product."""
        check_unbound(grant)
        return JSONResponse({"changed": await writing.run(service.upsert, [_row(item) for item in body.items])})

    @routes.delete(
        "/users/{user_id}",
        summary="Forget a shopper",
        response_class=JSONResponse,
        responses={200: {"model": GoneJson}},
    )
    async def forget(user_id: Annotated[Id, Path()], grant: Grant = erases) -> Response:
        """Out of events, summaries, runs, checkpoints and conversations, for good. Snapshots and adapters made earlier
        may still hold them: docs/operations.md."""
        check_sees(grant, user_id)
        return JSONResponse({"gone": await writing.run(service.forget, user_id)})

    return routes


def _record(service: Service, body: EventsRequest, grant: Grant) -> dict[str, int]:
    """A key bound to a user names only products there are: it must not fill the catalogue."""
    if grant.user_id:
        named = {event.item_id for event in body.events if event.item_id}
        if missing := sorted(named - service.items(sorted(named)).keys()):
            raise Refusal(422, "unknown-item", f"No product '{missing[0]}' is in the catalogue.")
    return service.record([event.model_dump() for event in body.events])


def _row(item: ItemJson) -> dict[str, Any]:
    given = item.model_dump(exclude_unset=True)
    if isinstance(given.get("first_seen"), datetime):
        given["first_seen"] = as_utc(given["first_seen"])
    return given
