"""The conversation as `langgraph dev` and other LangGraph servers open it (langgraph.json): `make_graph`.

The store and models come from the settings (RECGRAPH_STORE, RECGRAPH_LLM, recgraph.toml); RECGRAPH_CHAT_MODEL names a
chat model, "provider:model". The server keeps the threads. One recommender serves all of them; it closes with the
process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import Any

from recgraph.graph.assistant.agent import open_model
from recgraph.graph.assistant.talk import build_talk
from recgraph.graph.recommender import Recommender
from recgraph.graph.wiring import Graph

_opening = threading.Lock()
_opened: list[Graph] = []


async def make_graph(config: dict[str, Any] | None = None) -> Graph:
    """The compiled conversation, opened at the first call. A client gives `messages`, and `user_id` once a thread."""
    return await asyncio.to_thread(open_graph)  # a server's event loop must not wait for models and files


def open_graph() -> Graph:
    """The same for who has no event loop."""
    with _opening:
        if not _opened:
            shop = Recommender.open()
            atexit.register(shop.close)
            shop.warm_up()
            name = os.environ.get("RECGRAPH_CHAT_MODEL", "")
            _opened.append(build_talk(shop, model=open_model(name) if name else None))
        return _opened[0]
