"""The endpoint of a conversation: one turn in, the steps of the answer and the reply out.

What the words mean and which products are shown is the assistant's (graph/assistant); a thread is of one shopper.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse

from recgraph.http.access import Entrance, check_sees
from recgraph.http.answers import SERVER_SENT, last, server_sent
from recgraph.http.bodies import ChatRequest, ReplyJson
from recgraph.http.keys import Grant
from recgraph.http.problems import documented
from recgraph.service import Service


def router(service: Service, entrance: Entrance) -> APIRouter:
    """This endpoint over one service."""
    routes, may = APIRouter(prefix="/v1"), Depends(entrance.access.asks("recommend"))

    @routes.post(
        "/chat",
        summary="Say something to the shop's assistant",
        response_class=JSONResponse,
        responses={
            200: {
                "model": ReplyJson,
                "description": "The reply; with `stream` server-sent events: `node`s, then `reply` or `problem`.",
                "content": SERVER_SENT,
            },
            **documented(400, 401, 403, 408, 413, 422, 429, 500, 503),
        },
    )
    async def chat(request: Request, body: ChatRequest, grant: Grant = may) -> Response:
        """One turn of a conversation. Wishes add up within a `thread`: every product shown fits all that was said in
        it; where nothing does, the reply asks back. Needs no language model."""
        check_sees(grant, body.user_id)
        clock = service.clock()
        asked = partial(service.chat, body.user_id, body.text, body.thread, clock)
        if not body.stream:
            return JSONResponse(await entrance.answering.run(last, asked, clock=clock))
        pieces = entrance.answering.stream(asked, clock)
        return EventSourceResponse(server_sent(request, await anext(pieces), pieces))

    return routes
