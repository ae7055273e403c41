"""What the HTTP door bears: so many clients for so many minutes, who ask, talk, record events, change products, search
as agents and read why (visitors.py).

It starts `recgraph serve` over a copy of a store and counts from outside: statuses and p50/p95/p99 by path; events that
were acknowledged and are not in the store afterwards, or twice; products shown that were off sale or just bought; the
memory of the server each minute. `--rebuild` has another process load products into the store half way.
`--kill-worker` kills one of several workers with SIGKILL half way, in which connections are cut; clients send their
event ids again. `--llm` starts `recgraph llm serve` beside it (RECGRAPH_VLLM_PYTHON names the Python that has vLLM),
kills vLLM with SIGKILL twice (once, where it is not ready again in time), and counts answers that did without it and
did not say so, and how long it took until answers had it again.

    python benchmarks/doors.py --store shop.duckdb [--minutes 10] [--clients 20] [--think 1] [--rebuild] [--llm]
    python benchmarks/doors.py --store shop.duckdb --minutes 5 --clients 200 --think 4 --acts record=9 ask=1 \\
        --kill-worker -- --workers 4

Prints one line of JSON; what the servers said stays in the folder of --keep.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from damage import machine
from visitors import ACTS, Client, Counted

from recgraph.store.db import Store

KILLS = (0.25, 0.6)  # shares of the time after which vLLM is killed
STARTING = 600.0  # seconds for vLLM to be ready, and to be ready again
BACK = 120.0  # seconds after it for an answer that has it
EVERY = 60.0  # seconds between two looks at the memory
RECGRAPH = (sys.executable, "-m", "recgraph.cli")


# ── The language model ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Model:
    """`recgraph llm serve` as a process, what it said, and when it was killed and ready again."""

    process: subprocess.Popen[str]
    url: str
    ready: list[float] = field(default_factory=list)
    killed: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if line.startswith("ready after"):
                self.ready.append(time.monotonic())

    async def is_ready(self) -> bool:
        """Waits until it is as often ready as it was started; False where it does not become so."""
        last = time.monotonic() + STARTING
        while len(self.ready) <= len(self.killed) and time.monotonic() < last and self.process.poll() is None:
            await asyncio.sleep(0.2)
        return len(self.ready) > len(self.killed)

    async def kill(self, moments: list[float], end: float) -> None:
        """SIGKILL for vLLM at these moments, or when it is ready again after the one before, but not after the end. Its
        parent is to notice and start it again."""
        for moment in moments:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            if await self.is_ready() and time.monotonic() < end:
                for child in children(self.process.pid):
                    os.kill(child, signal.SIGKILL)
                self.killed.append(time.monotonic())

    def report(self, counted: Counted) -> dict[str, Any]:
        """How it went: seconds until it was ready again and until an answer had it, and what answers said meanwhile."""
        spans = list(zip(self.killed, self.ready[1:], strict=False))
        without = [one for one in counted.answers if any(down < one[0] and one[1] < up for down, up in spans)]
        back = [
            next((ended - down for begun, ended, used, marked in counted.answers if begun > up and used), None)
            for down, up in spans
        ]
        return {
            "llm": {
                "killed": len(self.killed),
                "ready_again_s": [round(up - down, 1) for down, up in spans],
                "answers_again_s": [round(one, 1) if one is not None else None for one in back],
                "answers_with_it": sum(used for _, _, used, _ in counted.answers),
                "answers_while_dead": len(without),
                "unmarked_while_dead": sum(not (used or marked) for _, _, used, marked in without),
                "unmarked": sum(not (used or marked) for _, _, used, marked in counted.answers),
            }
        }


def children(pid: int) -> list[int]:
    """The processes that a process started, of all its threads."""
    return [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]


@contextlib.contextmanager
def model_server(store: Path, log: Path) -> Iterator[Model]:
    """The base model behind vLLM, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*RECGRAPH, "llm", "serve", "--adapter", "none", "--port", str(port), "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=unbuffered()) as it:
        model = Model(it, f"http://127.0.0.1:{port}/v1")
        listener = threading.Thread(target=model.listen)
        listener.start()
        try:
            yield model
        finally:
            it.terminate()
            listener.join()
            log.write_text("\n".join(model.said), encoding="utf-8")


# ── The door ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def unbuffered() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def memory_of(pid: int) -> dict[str, int]:
    """MiB of a process and those it started: resident, and its own alone."""
    files = [Path(f"/proc/{one}/smaps_rollup") for one in (pid, *children(pid))]
    text = "\n".join(file.read_text() for file in files if file.exists())
    sizes = {"rss": r"^Rss:\s+(\d+)", "private": r"^Private_\w+:\s+(\d+)"}
    return {name: sum(map(int, re.findall(pattern, text, re.MULTILINE))) // 1024 for name, pattern in sizes.items()}


@dataclass
class Door:
    """A server that runs over a store: where it is reached, its process, and products and shoppers of the shop."""

    url: str
    pid: int
    store: Path
    items: list[str]
    users: list[str]
    killed: dict[str, Any] = field(default_factory=dict)

    def is_ready(self, workers: int) -> bool:
        """Whether each of the workers is, as far as new connections tell, of which the system chooses the worker."""
        try:
            return all(httpx.get(f"{self.url}/ready").status_code == 200 for _ in range(10 * workers - 9))
        except httpx.TimeoutException:  # none of them takes connections yet
            return False

    async def kill_worker(self, moment: float) -> None:
        """Ends one of its workers, and waits for another in its place."""
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        before = set(children(self.pid))
        os.kill(max(before), signal.SIGKILL)
        begun = time.monotonic()
        while not set(children(self.pid)) - before and time.monotonic() < begun + BACK:
            await asyncio.sleep(0.1)
        again = time.monotonic() - begun if set(children(self.pid)) - before else None
        self.killed = {"killed_worker": {"of": len(before), "another_after_s": again and round(again, 1)}}


async def load(door: Door, counted: Counted, model: Model | None, options: argparse.Namespace) -> list[dict[str, int]]:
    """All clients at once, and what is done to the servers meanwhile; the memory of the door over the time."""
    seconds, memory = options.minutes * 60, []
    begun = time.monotonic()
    limits = httpx.Limits(max_connections=options.clients, max_keepalive_connections=options.clients)
    async with httpx.AsyncClient(base_url=door.url, timeout=120, limits=limits) as web, asyncio.TaskGroup() as tasks:
        clients = [
            Client(
                f"door-{number}",
                web,
                door.items,
                door.items[number :: options.clients],
                door.users,
                counted,
                random.Random(number),
                options.think,
                options.deadline,
                options.acts,
            )
            for number in range(options.clients)
        ]
        living = [tasks.create_task(client.live(begun + seconds)) for client in clients]
        if options.rebuild:
            tasks.create_task(rebuild(door.store, begun + seconds / 2))
        if options.kill_worker:
            tasks.create_task(door.kill_worker(begun + seconds / 2))
        moments = [begun + share * seconds for share in KILLS]
        killing = tasks.create_task(model.kill(moments, begun + seconds)) if model else None
        while not all(task.done() for task in living):
            await asyncio.wait(living, timeout=min(EVERY, seconds / 3))
            memory.append(memory_of(door.pid))
        if model and killing:
            await killing
            await has_model(model, clients[0])
    return memory


async def has_model(model: Model, client: Client) -> None:
    """Asks until an answer has the language model again, also where the time of the clients ended before."""
    if not await model.is_ready():
        return
    seen, last = client.counted.answers, time.monotonic() + BACK
    while time.monotonic() < last and not any(begun > model.ready[-1] and used for begun, _, used, _ in seen):
        await client.ask()
        await asyncio.sleep(client.think)


async def rebuild(store: Path, moment: float) -> None:
    """Another process loads products into the store that is being served."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
    file = store.parent / "items.csv"
    rows = [f"NEW{n},Novel wool cardigan {n},knitwear,{20 + n}" for n in range(500)]
    file.write_text("\n".join(["item_id,title,category,price", *rows]) + "\n")
    command = (*RECGRAPH, "ingest", "tables", str(file), "--store", str(store))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit("The load half way failed; its message stands above.")


def kept(store: Path, acknowledged: list[str]) -> dict[str, int]:
    """Events that were acknowledged and are not there, and those that are there more than once."""
    with Store.open(store) as opened:
        ids = {one for (one,) in opened._all("SELECT event_id FROM event_ids") if one.split(":")[1].startswith("door-")}
        ((rows,),) = opened._all("SELECT count(*) FROM events WHERE user_id LIKE 'door-%'")
    return {"lost": len(set(acknowledged) - ids), "twice": rows - len(ids)}


def measure(folder: Path, store: Path, model: Model | None, options: argparse.Namespace) -> dict[str, Any]:
    """Serves the store to all clients, ends the server as an operator does, and counts."""
    counted = Counted()
    llm = ["--llm-url", model.url] if model else ["--llm", "none"]
    command = [*RECGRAPH, "serve", "--store", str(store), *llm, "--port", "0", "--rate", "1000000/second"]
    with Store.open(store) as opened:
        items = [item.item_id for item in opened.find_items(limit=2000)]
        users = [row.user_id for row in opened.users(200)]
    with (
        open(folder / "serve.log", "wb") as log,
        subprocess.Popen(
            [*command, *options.serve], stdout=subprocess.PIPE, stderr=log, text=True, env=unbuffered()
        ) as server,
    ):
        assert server.stdout is not None
        try:
            url = re.findall(r"http://\S+", server.stdout.readline())[0]
            door, begun = Door(url, server.pid, store, items, users), time.monotonic()
            while not door.is_ready(int(re.findall(r"--workers (\d+)|$", " ".join(options.serve))[0] or 1)):
                time.sleep(0.1)
            ready, first = time.monotonic() - begun, memory_of(server.pid)
            memory = asyncio.run(load(door, counted, model, options))
        finally:
            server.send_signal(signal.SIGTERM)
        ended = server.wait(180)
    return {
        "ready_s": round(ready, 1),
        **counted.report(),
        **kept(store, counted.acknowledged),
        **(model.report(counted) if model else {}),
        **door.killed,
        "memory_mib": [first, *memory],
        "exit": ended,
    }


def act(text: str) -> tuple[str, float]:
    """What clients do, and which share of their requests it is."""
    name, _, share = text.partition("=")
    if name not in ACTS:
        raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(ACTS)}")
    return name, float(share or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument(
        "--think", type=float, default=1.0, help="seconds between two requests of a client, at the mean"
    )
    parser.add_argument("--deadline", type=float, default=0.0, help="seconds for a recommendation  [the server's own]")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--kill-worker", action="store_true", help="one of the workers of recgraph serve")
    parser.add_argument(
        "--acts", nargs="+", type=act, metavar="ACT=SHARE", default=list(ACTS.items()), help=f"of {', '.join(ACTS)}"
    )
    parser.add_argument("--llm", action="store_true", help="with a language model behind vLLM, which is killed twice")
    parser.add_argument("--keep", type=Path, help="a folder for what the servers said")
    parser.add_argument("serve", nargs="*", help="more options of recgraph serve, after --")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as servers:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = Path(shutil.copyfile(options.store, Path(temporary) / "shop.duckdb"))
        model = servers.enter_context(model_server(store, folder / "llm.log")) if options.llm else None
        if model and not asyncio.run(model.is_ready()):
            raise SystemExit("\n".join(["recgraph llm serve is not ready:", *model.said[-8:]]))
        measured = measure(folder, store, model, options)
    named = ("clients", "minutes", "think", "deadline", "rebuild", "serve")
    asked = {**{name: getattr(options, name) for name in named}, "acts": dict(options.acts)}
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(json.dumps({**machine(), "commit": commit.stdout.strip(), "load": load, **asked, **measured}))


if __name__ == "__main__":
    main()
