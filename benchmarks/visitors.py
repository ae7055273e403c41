"""The clients of doors.py: shoppers who ask, click, buy and talk, agents who search over UCP, a shop that changes its
products; and what they saw. How the server is started and what happens to it meanwhile is unknown here.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

QUERIES = ("wool cardigan", "black boots under 150", "linen shirt not white", "a warm coat", "red dress", "")
TURNS = ("something warm for winter", "under 120", "not black", "something cheaper", "why this?", "forget the price")
AGENT = {"UCP-Agent": 'profile="https://agent.example/profile.json"'}
ACTS = {"ask": 0.4, "talk": 0.15, "search": 0.1, "record": 0.25, "change": 0.06, "read": 0.04}  # shares of requests
STREAMED = 0.25  # of what is asked


@dataclass
class Counted:
    """What all of them saw. Times are those of time.monotonic()."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)  # 5xx without a reason to come again
    cut: Counter[str] = field(default_factory=Counter)  # connections that broke, by path
    again: int = 0  # batches of events that were sent again
    unseen: int = 0  # events that the history read after them did not have
    acknowledged: list[str] = field(default_factory=list)  # ids of events
    degraded: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[float, float, bool, bool]] = field(default_factory=list)  # begun, ended, with an LLM, marked
    off_sale: dict[str, float] = field(default_factory=dict)  # products by when the server acknowledged it
    shown_off_sale: int = 0
    shown_bought: int = 0  # products shown to who had bought them

    def report(self) -> dict[str, Any]:
        return {
            "requests": sum(map(len, self.seconds.values())),
            "statuses": dict(sorted(self.statuses.items())),
            "bad": dict(self.bad),
            "cut": dict(self.cut),
            "ms": {
                path: {
                    **{f"p{q}": round(float(np.percentile(times, q)) * 1000) for q in (50, 95, 99)},
                    "count": len(times),
                }
                for path, times in sorted(self.seconds.items())
            },
            "degraded": dict(self.degraded),
            "shown_off_sale": self.shown_off_sale,
            "shown_bought": self.shown_bought,
            "events": len(self.acknowledged),
            "sent_again": self.again,
            "unseen": self.unseen,
        }


@dataclass
class Client:
    """One of many. Its shopper and the products it changes are its own, so that what the server should know is
    certain."""

    user_id: str
    web: httpx.AsyncClient
    items: list[str]  # that are bought and clicked
    own: list[str]  # that it changes
    users: list[str]
    counted: Counted
    draw: random.Random
    think: float  # seconds between two requests, at the mean
    deadline: float  # seconds for an answer; 0: the server's own
    acts: list[tuple[str, float]]  # what it does, and which share of its requests it is
    bought: set[str] = field(default_factory=set)
    run_id: str = ""
    thread: str = ""
    turns: list[str] = field(default_factory=list)

    async def live(self, until: float) -> None:
        names, shares = zip(*self.acts, strict=True)
        await asyncio.sleep(self.draw.random() * self.think)
        while time.monotonic() < until:
            await getattr(self, self.draw.choices(names, shares)[0])()
            await asyncio.sleep(self.draw.expovariate(1 / self.think))

    async def ask(self) -> None:
        user_id = self.user_id if self.draw.random() < 0.5 else self.draw.choice(self.users)
        body: dict[str, Any] = {"user_id": user_id, "query": self.draw.choice(QUERIES), "new_user": True}
        if self.deadline:
            body["deadline_ms"] = round(self.deadline * 1000)
        streamed, begun = self.draw.random() < STREAMED, time.monotonic()
        name = "POST /v1/recommendations" + (" (stream)" if streamed else "")
        answer = await self.call(name, json={**body, "stream": streamed})
        if answer is None:
            return
        told = self.last_event(name, answer.text) if streamed else answer.json()
        if told:
            self.run_id = told["run_id"]
            asked_llm = told["tokens"]["prompt"] > 0
            marked = bool(told["degraded"] or told["plan"])
            self.counted.answers.append((begun, time.monotonic(), asked_llm, marked))
            self.judge(told["items"], told["degraded"], begun, user_id)

    async def talk(self) -> None:
        """One turn of a conversation of three to five."""
        if not self.turns:
            self.thread = uuid.uuid4().hex
            self.turns = [TURNS[0], *self.draw.sample(TURNS[1:], self.draw.randint(2, 4))]
        begun = time.monotonic()
        body = {"user_id": self.user_id, "text": self.turns.pop(0), "thread": self.thread}
        answer = await self.call("POST /v1/chat", json=body)
        if answer is not None:
            told = answer.json()
            self.judge(told["products"], told["degraded"], begun, self.user_id)

    async def search(self) -> None:
        """An agent's search, for nobody in particular."""
        begun, query = time.monotonic(), self.draw.choice(QUERIES[:-1])
        answer = await self.call("POST /ucp/catalog/search", json={"query": query}, headers=AGENT)
        if answer is not None:
            sold = [one for product in answer.json()["products"] for one in product["variants"]]
            offered = [{"item_id": one["id"]} for one in sold if one["availability"]["available"]]
            self.judge(offered, (), begun, "")

    async def record(self) -> None:
        """A purchase or some clicks; sent again under the same ids where the answer did not come, as a shop does. The
        history has them at once."""
        action = "purchase" if self.draw.random() < 0.1 else "click"
        count = 1 if action == "purchase" else self.draw.randint(1, 3)
        events = [
            {"event_id": uuid.uuid4().hex, "user_id": self.user_id, "action": action, "item_id": item_id}
            for item_id in self.draw.sample(self.items, count)
        ]
        for tried in range(10):
            self.counted.again += tried > 0
            if await self.call("POST /v1/events", json={"events": events}) is not None:
                self.counted.acknowledged += [f"{len(self.user_id)}:{self.user_id}:{one['event_id']}" for one in events]
                if action == "purchase":
                    self.bought.add(events[0]["item_id"])
                await self.look({one["item_id"] for one in events})
                return
            await asyncio.sleep(1)

    async def look(self, recorded: set[str]) -> None:
        """Reads the newest events, which must be those just recorded, whichever process answers."""
        path = f"/v1/users/{self.user_id}/history?limit={len(recorded)}"
        answer = await self.call("GET /v1/users/{id}/history", path)
        if answer is not None:
            self.counted.unseen += len(recorded - {event["item_id"] for event in answer.json()["events"]})

    async def change(self) -> None:
        """A new price, or a product that is sold out, or is there again."""
        item_id, off = self.draw.choice(self.own), self.counted.off_sale
        there = item_id in off or self.draw.random() < 0.5
        if there:
            off.pop(item_id, None)
        row = {"item_id": item_id, "price": self.draw.randint(5, 200), "in_stock": there}
        if await self.call("POST /v1/items", json={"items": [row]}) is not None and not there:
            off[item_id] = time.monotonic()

    async def read(self) -> None:
        if self.run_id and self.draw.random() < 0.5:
            await self.call("GET /v1/runs/{id}", f"/v1/runs/{self.run_id}")
        else:
            await self.call("GET /v1/users/{id}/summary", f"/v1/users/{self.draw.choice(self.users)}/summary")

    def judge(self, shown: Iterable[dict[str, Any]], degraded: Iterable[str], begun: float, user_id: str) -> None:
        """Counts what an answer did without, and the products that should not be in it."""
        self.counted.degraded.update({note.partition(":")[0] for note in degraded})
        ids = {line["item_id"] for line in shown}
        self.counted.shown_off_sale += sum(self.counted.off_sale.get(one, begun) < begun for one in ids)
        if user_id == self.user_id:
            self.counted.shown_bought += len(self.bought & ids)

    def last_event(self, name: str, text: str) -> dict[str, Any]:
        """The answer at the end of server-sent events; counted as bad where it is none."""
        *_, last = text.strip().split("\n\n")
        kind, _, data = last.partition("\n")
        if kind == "event: answer":
            return dict(json.loads(data.removeprefix("data: ")))
        self.counted.bad[f"{name} {kind} {data[:200]}"] += 1
        return {}

    async def call(self, name: str, path: str = "", **given: Any) -> httpx.Response | None:
        """The answer, where it was a good one. `name` is under what it is counted: a method and a path."""
        method, template = name.split()[:2]
        begun = time.monotonic()
        try:
            answer = await self.web.request(method, path or template, **given)
        except httpx.HTTPError as error:
            self.counted.statuses[f"{name} {type(error).__name__}"] += 1
            self.counted.cut[name] += 1
            return None
        self.counted.seconds[name].append(time.monotonic() - begun)
        self.counted.statuses[f"{name} {answer.status_code}"] += 1
        if answer.status_code >= 500 and not (answer.status_code == 503 and "retry-after" in answer.headers):
            self.counted.bad[f"{name} {answer.status_code} {answer.text[:200]}"] += 1
        return answer if answer.status_code < 300 else None
