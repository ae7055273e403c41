"""What the page asks for and the HTTP door of the tests has not: the shop's facts, a history, a chat of one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from recgraph.store.db import Store


def routes(place: Path) -> APIRouter:
    made = APIRouter(prefix="/v1")

    @made.get("/shop")
    def shop() -> dict[str, Any]:
        with Store.open(place) as store:
            facts = {key: store.meta(key) or "" for key in ("name", "currency", "simulated")}
            return {**facts, **store.counts()}

    @made.get("/users/{user_id}/history")
    def history(user_id: str, limit: int = 20) -> dict[str, Any]:
        with Store.open(place) as store:
            events = store.history(user_id, limit=limit)
            items = store.items(sorted({event.item_id for event in events if event.item_id}))
        return {
            "events": [
                {
                    "seq": event.seq,
                    "ts": event.ts.isoformat(),
                    "action": event.action,
                    "item_id": event.item_id,
                    "title": items[event.item_id].name if event.item_id in items else "",
                    "query": event.query,
                }
                for event in events
            ]
        }

    @made.post("/chat")
    def chat(body: dict[str, Any], request: Request) -> StreamingResponse:
        asked = {"user_id": body["user_id"], "query": body["text"], "thread": body["thread"], "stream": True}
        return StreamingResponse(_reply(str(request.base_url), asked), media_type="text/event-stream")

    return made


def _reply(url: str, asked: dict[str, Any]) -> Iterator[str]:
    answer = httpx.post(f"{url}v1/recommendations", json=asked).text.replace("event: answer", "event: reply")
    *steps, last = answer.strip().split("\n\n")
    found = json.loads(last.split("data: ", 1)[1])
    reply = {"text": f"{len(found['items'])} products.", "products": found["items"], "understood": found["understood"]["parts"]}
    yield "\n\n".join([*steps, f"event: reply\ndata: {json.dumps(reply)}", ""])
