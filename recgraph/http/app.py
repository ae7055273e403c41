"""The HTTP application: endpoints, guard, keys and counters put together over one `Service`.

It opens and closes nothing; `recgraph serve` (serve.py) does. Further doors (UCP, MCP) are given to it; all share one
entrance.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse, Response
from opentelemetry.trace import Tracer
from starlette.middleware.trustedhost import TrustedHostMiddleware

from recgraph import __version__
from recgraph.errors import RecgraphError
from recgraph.graph.traces.spans import trace_runs
from recgraph.http import answers, chat, page, writes
from recgraph.http.access import Entrance
from recgraph.http.bodies import StateJson
from recgraph.http.guard import Guard
from recgraph.http.keys import Grant, Keys
from recgraph.http.limits import Gate, Limits
from recgraph.http.problems import RETRY_AFTER, Refusal, add_handlers, documented
from recgraph.service import Service

Door = Callable[[Service, Entrance], APIRouter]
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_AGAIN = 5.0  # seconds until warming up is tried again
_log = logging.getLogger(__name__)


def create_app(
    service: Service,
    keys: Keys,
    limits: Limits | None = None,
    *,
    hosts: Sequence[str] = LOOPBACK,
    doors: Sequence[Door] = (),
    tracer: Tracer | None = None,
) -> FastAPI:
    """The application. `hosts` are the names it answers to (a page that rebinds its own name to this machine has
    another), ("*",) for any. `tracer` makes a span of every request, and of every node that answers it."""
    entrance, ready = Entrance(keys, limits), anyio.Event()
    service.recommender.observers.append(entrance.meters.answer)
    if tracer is not None:
        trace_runs(service.recommender, tracer)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_warm_up, service, ready)
            yield
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="recgraph",
        summary="Recommendations for shops whose products carry text",
        version=__version__,
        lifespan=running,
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "logs": False},  # spans hold paths, and these ids; errors what was typed
    )
    app.include_router(_states(service, ready, entrance.writing))
    app.include_router(_metrics(entrance))
    app.include_router(page.router())
    for door in (answers.router, writes.router, chat.router, *doors):
        app.include_router(door(service, entrance))
    add_handlers(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    same_origin = not keys.required
    app.add_middleware(Guard, meters=entrance.meters, limits=entrance.limits, same_origin=same_origin, tracer=tracer)
    return app


def _states(service: Service, ready: anyio.Event, reading: Gate) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health", summary="Whether the process lives", responses={200: {"model": StateJson}})
    async def health() -> Response:
        """Asks nothing of the store."""
        return JSONResponse({"status": "ok", "version": __version__})

    @routes.get(
        "/ready",
        summary="Whether answers come at once",
        responses={200: {"model": StateJson}, **documented(503)},
    )
    async def readiness() -> Response:
        """After what the first answer needs is loaded, and while the store can be read."""
        if not ready.is_set():
            raise Refusal(503, "starting", "What answers need is being loaded. Ask again.", RETRY_AFTER)
        await reading.run(service.health)
        return JSONResponse({"status": "ready", "version": __version__})

    return routes


def _metrics(entrance: Entrance) -> APIRouter:
    routes, any_key = APIRouter(), Depends(entrance.access.asks())

    @routes.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(401, 429, 503)},
    )
    async def metrics(_: Grant = any_key) -> Response:
        """For any key."""
        return Response(entrance.meters.text(), media_type="text/plain; version=0.0.4")

    return routes


async def _warm_up(service: Service, ready: anyio.Event) -> None:
    """Loads what the first answer needs; where that does not work now, again and again."""
    while not ready.is_set():
        try:
            await anyio.to_thread.run_sync(partial(service.warm_up), abandon_on_cancel=True)
        except RecgraphError as error:
            _log.error("warming up: %s", error)
            await anyio.sleep(_AGAIN)
        else:
            ready.set()
            _log.info("ready")
