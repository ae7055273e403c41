"""What the HTTP door bears: so many clients for so many minutes, who ask, record events, change products, read why.

It starts `recgraph serve` over a copy of a store and counts, from outside: statuses and p50/p95/p99 by path, events
that were acknowledged and are not in the store afterwards, products shown that were just bought, and the server's
memory before and after. `--rebuild` has another process load products into the store half way.

    python benchmarks/doors.py --store shop.duckdb [--minutes 10] [--clients 20] [--rebuild] [--llm none]

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from damage import machine

from recgraph.store.db import Store

QUERIES = ("wool cardigan", "black boots under 150", "linen shirt not white", "a warm coat", "red dress", "")
ASKS, RECORDS, CHANGES = 0.6, 0.3, 0.05  # shares of what clients do; the rest reads summaries and runs
THINKING = 0.2  # seconds between two requests of a client, at the mean


@dataclass
class Counted:
    """What the clients saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)  # events, by user
    degraded: Counter[str] = field(default_factory=Counter)
    stale: int = 0  # products shown to who had just bought them

    def report(self) -> dict[str, Any]:
        return {
            "requests": sum(map(len, self.seconds.values())),
            "statuses": dict(sorted(self.statuses.items())),
            "ms": {
                path: {f"p{q}": round(float(np.percentile(times, q)) * 1000) for q in (50, 95, 99)}
                for path, times in sorted(self.seconds.items())
            },
            "degraded": dict(self.degraded),
            "stale": self.stale,
        }


@dataclass
class Client:
    """One of many; its shopper is its own, so that what it bought can be counted."""

    user_id: str
    web: httpx.AsyncClient
    items: list[str]
    users: list[str]
    counted: Counted
    draw: random.Random
    bought: set[str] = field(default_factory=set)
    run_id: str = ""

    async def live(self, until: float) -> None:
        while time.monotonic() < until:
            await self.act()
            await asyncio.sleep(self.draw.expovariate(1 / THINKING))

    async def act(self) -> None:
        share = self.draw.random()
        if share < ASKS:
            await self.ask()
        elif share < ASKS + RECORDS:
            await self.record()
        elif share < ASKS + RECORDS + CHANGES:
            row = {"item_id": self.draw.choice(self.items), "price": self.draw.randint(5, 200)}
            await self.call("POST", "/v1/items", json={"items": [row]})
        elif self.run_id and share < 0.98:
            await self.call("GET", "/v1/runs/{id}", f"/v1/runs/{self.run_id}")
        else:
            await self.call("GET", "/v1/users/{id}/summary", f"/v1/users/{self.draw.choice(self.users)}/summary")

    async def ask(self) -> None:
        own = self.draw.random() < 0.5
        user_id = self.user_id if own else self.draw.choice(self.users)
        body = {"user_id": user_id, "query": self.draw.choice(QUERIES), "new_user": True}
        answer = await self.call("POST", "/v1/recommendations", json=body)
        if answer is None:
            return
        told = answer.json()
        self.run_id = told["run_id"]
        self.counted.degraded.update({note.partition(":")[0] for note in told["degraded"]})
        if own:
            self.counted.stale += len(self.bought & {line["item_id"] for line in told["items"]})

    async def record(self) -> None:
        """A purchase or some clicks; sent again where the answer did not come, as a shop does."""
        action = "purchase" if self.draw.random() < 0.1 else "click"
        count = 1 if action == "purchase" else self.draw.randint(1, 3)
        events = [
            {"event_id": uuid.uuid4().hex, "user_id": self.user_id, "action": action, "item_id": item_id}
            for item_id in self.draw.sample(self.items, count)
        ]
        for _ in range(10):
            if await self.call("POST", "/v1/events", json={"events": events}) is not None:
                self.counted.acknowledged[self.user_id] += count
                if action == "purchase":
                    self.bought.add(str(events[0]["item_id"]))
                return
            await asyncio.sleep(1)

    async def call(self, method: str, template: str, path: str = "", **given: Any) -> httpx.Response | None:
        """The answer, where it was a good one."""
        begun = time.monotonic()
        try:
            answer = await self.web.request(method, path or template, **given)
        except httpx.HTTPError as error:
            self.counted.statuses[f"{method} {template} {type(error).__name__}"] += 1
            return None
        self.counted.seconds[f"{method} {template}"].append(time.monotonic() - begun)
        self.counted.statuses[f"{method} {template} {answer.status_code}"] += 1
        return answer if answer.status_code < 300 else None


def memory_of(pid: int) -> int:
    """Resident MiB of a process."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) // 1024


async def load(url: str, store: Path, counted: Counted, pid: int, options: argparse.Namespace) -> list[int]:
    """All clients at once; the server's memory at six moments."""
    with Store.open(store) as opened:
        items = [item.item_id for item in opened.find_items(limit=2000)]
        users = [row.user_id for row in opened.users(200)]
    minutes: float = options.minutes
    until, memory = time.monotonic() + minutes * 60, []
    limits = httpx.Limits(max_connections=options.clients, max_keepalive_connections=options.clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as web:
        clients = [
            Client(f"door-{number}", web, items, users, counted, random.Random(number))
            for number in range(options.clients)
        ]
        tasks = [asyncio.create_task(client.live(until)) for client in clients]
        for moment in range(6):
            await asyncio.sleep(max(0.0, until - time.monotonic() - minutes * 60 * (5 - moment) / 6))
            memory.append(memory_of(pid))
            if moment == 2 and options.rebuild:
                tasks.append(asyncio.create_task(rebuild(store)))
        await asyncio.gather(*tasks)
    return memory


async def rebuild(store: Path) -> None:
    """Another process loads products into the store that is being served."""
    file = store.parent / "items.csv"
    rows = [f"NEW{n},Novel wool cardigan {n},knitwear,{20 + n}" for n in range(500)]
    file.write_text("\n".join(["item_id,title,category,price", *rows]) + "\n")
    command = (sys.executable, "-m", "recgraph.cli", "ingest", "tables", str(file), "--store", str(store))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit("The load half way failed; its message stands above.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--llm", default="none")
    parser.add_argument("serve", nargs="*", help="more options of recgraph serve, after --")
    options = parser.parse_args()
    counted = Counted()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copyfile(options.store, Path(folder) / "shop.duckdb"))
        command = [sys.executable, "-m", "recgraph.cli", "serve", "--store", str(store), "--llm", options.llm]
        command += ["--port", "0", "--rate", "1000000/second", *options.serve]
        with (
            open(Path(folder) / "log", "wb") as log,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            ) as server,
        ):
            assert server.stdout is not None
            url = re.findall(r"http://\S+", server.stdout.readline())[0]
            begun = time.monotonic()
            while httpx.get(f"{url}/ready").status_code != 200:
                time.sleep(0.1)
            ready, first = time.monotonic() - begun, memory_of(server.pid)
            memory = asyncio.run(load(url, store, counted, server.pid, options))
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
        with Store.open(store) as opened:
            kept = {user: len(opened.history(user)) for user in counted.acknowledged}
        # one that was written and whose answer was lost ten times over is kept and was not acknowledged
        lost = sum(max(0, count - kept[user]) for user, count in counted.acknowledged.items())
    told = {
        **machine(),
        "clients": options.clients,
        "minutes": options.minutes,
        "rebuild": options.rebuild,
        "ready_s": round(ready, 1),
        **counted.report(),
        "events": sum(counted.acknowledged.values()),
        "lost": lost,
        "memory_mib": [first, *memory],
        "exit": ended,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
