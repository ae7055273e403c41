"""The endpoints that answer: recommendations, what is known of a shopper, and why a run said what it said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, format_sse_event

from recgraph.errors import RecgraphError, StoreBusy, StoreError, UnknownRun
from recgraph.http.access import Entrance, check_sees, check_unbound
from recgraph.http.bodies import (
    HistoryJson,
    Id,
    RecommendationJson,
    RecommendationRequest,
    ReplayJson,
    ShopJson,
    SummaryJson,
    UsersJson,
)
from recgraph.http.keys import Grant
from recgraph.http.problems import Refusal, documented, problem_json, refusal_of
from recgraph.service import Clock, Service
from recgraph.tools.wish.wish import Wish

RunId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$", examples=["1f0c2b7a9d3e"])]
UserId = Annotated[Id, Path()]
# As OpenAPI describes a stream: what each of its events is.
SERVER_SENT: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {"event": {"type": "string"}, "data": {"type": "string", "description": "JSON"}},
            "required": ["event", "data"],
        }
    }
}
_REFUSED = (400, 401, 403, 408, 413, 422, 429, 500, 503)


def router(service: Service, entrance: Entrance) -> APIRouter:
    """These endpoints over one service."""
    routes = APIRouter(prefix="/v1", responses=documented(*_REFUSED))
    may, answering, reading = Depends(entrance.access.asks("recommend")), entrance.answering, entrance.writing

    @routes.post(
        "/recommendations",
        summary="Recommend products",
        response_class=JSONResponse,
        responses={
            200: {
                "model": RecommendationJson,
                "description": "The answer; with `stream` server-sent events: `node`s, then `answer` or `problem`.",
                "content": SERVER_SENT,
            },
            **documented(404),
        },
    )
    async def recommend(request: Request, body: RecommendationRequest, grant: Grant = may) -> Response:
        """Ten (or `k`) products for a shopper, best first, each with its reason, its source and the events behind it.
        What had to be done without stands in `degraded`; the wish's hard parts hold all the same."""
        check_sees(grant, body.user_id)
        clock = service.clock(body.deadline_ms and body.deadline_ms / 1000)
        asked = partial(_asked, service, body, clock)
        if not body.stream:
            return JSONResponse(await answering.run(last, asked, clock=clock))
        pieces = answering.stream(asked, clock)
        first = await anext(pieces)  # what is refused, is so before the answer begins
        return EventSourceResponse(server_sent(request, first, pieces))

    @routes.get(
        "/users",
        summary="The most active shoppers",
        response_class=JSONResponse,
        responses={200: {"model": UsersJson}},
    )
    async def users(
        like: Annotated[str, Query(max_length=100, description="a part of the id")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        grant: Grant = may,
    ) -> Response:
        """A page of them, for a page to pick one from. Not for a key that is bound to a user."""
        check_unbound(grant)
        return JSONResponse({"users": await reading.run(service.users, limit, like)})

    @routes.get(
        "/users/{user_id}/summary",
        summary="What is known of a shopper",
        response_class=JSONResponse,
        responses={200: {"model": SummaryJson}, **documented(404)},
    )
    async def summary(user_id: UserId, grant: Grant = may) -> Response:
        """Sentences, each with the events it was made from."""
        check_sees(grant, user_id)
        return JSONResponse(await answering.run(service.summary, user_id))

    @routes.get(
        "/users/{user_id}/history",
        summary="What a shopper did",
        response_class=JSONResponse,
        responses={200: {"model": HistoryJson}, **documented(404)},
    )
    async def history(user_id: UserId, limit: Annotated[int, Query(ge=1, le=500)] = 40, grant: Grant = may) -> Response:
        """The newest events, oldest first."""
        check_sees(grant, user_id)
        return JSONResponse({"events": await reading.run(service.history, user_id, limit)})

    @routes.get("/shop", summary="The shop", response_class=JSONResponse, responses={200: {"model": ShopJson}})
    async def shop(grant: Grant = may) -> Response:
        """Its name and currency, how many products and shoppers it has, and what answers."""
        return JSONResponse(await reading.run(service.shop))

    @routes.get(
        "/runs/{run_id}",
        summary="Why a run said what it said",
        response_class=JSONResponse,
        responses={200: {"model": RecommendationJson}, **documented(404)},
    )
    async def run(run_id: RunId, grant: Grant = may) -> Response:
        """The answer as it was given: sources, evidence, plan, what was missing."""
        return JSONResponse(await reading.run(_past, service, run_id, grant))

    @routes.get(
        "/runs/{run_id}/replay",
        summary="The same run again, with the data of then",
        response_class=JSONResponse,
        responses={200: {"model": ReplayJson}, **documented(404, 409)},
    )
    async def replay(run_id: RunId, grant: Grant = may) -> Response:
        """Whether it is the same answer, which products moved, and what it hung on that is another one now."""
        return JSONResponse(await answering.run(_replayed, service, run_id, grant))

    return routes


def _asked(service: Service, body: RecommendationRequest, clock: Clock) -> Iterator[dict[str, Any]]:
    """The steps and the answer."""
    wish = Wish.from_dict(body.wish.model_dump()) if body.wish else None
    if body.filters:
        price = body.filters.price.model_dump()
        chosen = service.filters(body.filters.want, body.filters.avoid, price)
        wish = (wish or Wish()).with_filters(chosen.want, chosen.avoid, chosen.price)
    yield from service.stream(
        body.user_id,
        body.query,
        wish=wish,
        exclude=body.exclude,
        k=body.k,
        as_of=body.as_of or None,
        clock=clock,
        thread=body.thread,
        new_user=body.new_user,
    )


def last(asked: Callable[[], Iterator[dict[str, Any]]]) -> dict[str, Any]:
    """The answer, without the steps to it."""
    *_, answer = asked()
    return answer


async def server_sent(
    request: Request, first: dict[str, Any], pieces: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[bytes]:
    """Server-sent events: a `node` each, the `answer` or `reply` last; `problem` where it breaks off."""
    yield _event(first)
    try:
        async for piece in pieces:
            yield _event(piece)
    except Refusal as refusal:
        yield format_sse_event(event="problem", data_str=json.dumps(problem_json(request.scope, refusal)))
    except RecgraphError as error:
        told = problem_json(request.scope, refusal_of(error))
        yield format_sse_event(event="problem", data_str=json.dumps(told))


def _event(piece: dict[str, Any]) -> bytes:
    name = "answer" if "items" in piece else "reply" if "products" in piece else "node"
    return format_sse_event(event=name, data_str=json.dumps(piece, ensure_ascii=False))


def _past(service: Service, run_id: str, grant: Grant) -> dict[str, Any]:
    """A run that whoever asks may see; another user's is not there."""
    found = service.past(run_id)
    if not grant.sees(str(found.get("user_id"))):
        raise UnknownRun(f"Run '{run_id}' is not in the run log.")
    return found


def _replayed(service: Service, run_id: str, grant: Grant) -> dict[str, Any]:
    _past(service, run_id, grant)
    try:
        return service.replay(run_id)
    except (StoreBusy, UnknownRun):
        raise
    except StoreError:
        detail = "This run cannot be given again: its request was not kept. GET /v1/runs/{id} shows what was answered."
        raise Refusal(409, "not-kept", detail) from None
