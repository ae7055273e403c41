"""A real server in a thread, over a small shop: what the tests of the HTTP door share."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS, FakeEncoder

from recgraph.graph.recommender import Recommender
from recgraph.http.app import create_app
from recgraph.http.keys import Keys
from recgraph.http.limits import Limits
from recgraph.http.serve import listening, server_of
from recgraph.service import Service
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.tools.llm.protocol import LLM


def copied_shop(loaded_stores: Callable[[str, Path], Path], folder: Path) -> Path:
    """The small shop of fakes.py in a folder of the test's own."""
    tables = folder / "tables"
    tables.mkdir()
    for kind, text in (("items", SHOP_ITEMS), ("events", SHOP_EVENTS), ("exposures", SHOP_EXPOSURES)):
        (tables / f"{kind}.csv").write_text(text, encoding="utf-8")
    return Path(shutil.copyfile(loaded_stores("shop", tables), folder / "shop.duckdb"))


@dataclass
class Served:
    """A running server: where, over what, and a client of it."""

    url: str
    service: Service
    keys: Keys
    client: httpx.Client

    def ask(self, user_id: str = "U1", **asked: Any) -> httpx.Response:
        return self.client.post("/v1/recommendations", json={"user_id": user_id, **asked})


@contextmanager
def serving(
    store: Path,
    limits: Limits | None = None,
    keys: Keys | None = None,
    *,
    agents: bool = False,
    llm: LLM | None = None,
    deadline: float = 30.0,
    **app: Any,
) -> Iterator[Served]:
    """A server over a store, on a port of its own; ends when the block does. `agents`: with the doors of UCP and MCP;
    `deadline`: seconds that the settings give an answer."""
    settings = replace(Settings(), store=str(store), llm="none", deadline=deadline)
    keys = keys or Keys.beside(store)
    with Recommender(Store.open(store), settings, FakeEncoder(), llm) as recommender:
        service = Service(recommender)
        if agents:
            from recgraph.protocols.access import ProtocolOptions
            from recgraph.protocols.mcp_server import mcp_router
            from recgraph.protocols.ucp import router

            euros = ProtocolOptions(currency="EUR")
            app["doors"] = [partial(made, options=euros) for made in (router, mcp_router)]
        server = server_of(create_app(service, keys, limits, **app))
        with listening("127.0.0.1", 0) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                with httpx.Client(base_url=url, timeout=30) as client:
                    wait_until_ready(client)
                    yield Served(url, service, keys, client)
            finally:
                server.should_exit = True
                thread.join()


def wait_until_ready(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server is not ready after half a minute")
