"""What a vLLM server carries: recommendations a second and their p95 at several numbers of clients, Yes/No judgements a
second with and without its prefix cache, and how late calls come back that it cannot answer before their deadline.

    recgraph demo --store recgraph.duckdb
    recgraph llm serve                                       # in another terminal, on a GPU host or on a CPU
    python benchmarks/llm_server.py --store recgraph.duckdb --url http://127.0.0.1:8000/v1 [--clients 1,8,32,128]

Clients are threads of one process over one recommender, each asking again as soon as it is answered; shoppers are drawn
with a seed among those with at least five events, each searches for what they searched last. Yes/No: lists of 20
candidates of the shop for the same shoppers, as the reranker asks, in three ways: a list in one request; a request a
candidate; and a request a candidate under a salt of its own, so that the server finds nothing in its prefix cache.
Late: sixteen long stories with half a second for them, again and again, while the server writes four for another
client. A GPU host without a package index: benchmarks/gpu.sh. Works on a copy of the store. Prints one JSON object a
line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np

from recgraph import __version__
from recgraph.errors import LLMTimeout
from recgraph.evaluation.origin import machine
from recgraph.graph import prompts
from recgraph.graph.recommender import Recommender
from recgraph.store.db import Store
from recgraph.tools.llm.adapter_sets import served_names
from recgraph.tools.llm.protocol import Prompt
from recgraph.tools.llm.server import ServerLLM


def processor() -> str:
    """The card's name where there is one, else the machine's processor."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().replace("\n", ", ")
    except (OSError, subprocess.CalledProcessError):
        return str(machine())


def shoppers(store: Store, seed: int) -> list[tuple[str, str]]:
    """(user, last search) of those with at least five events, in random order."""
    found = []
    for user in (row.user_id for row in store.users(limit=1000)):
        history = store.history(user, limit=200)
        if len(history) >= 5:
            found.append((user, next((event.query for event in reversed(history) if event.query), "")))
    random.Random(seed).shuffle(found)
    return found


def closed_loop(clients: int, seconds: float, ask: Callable[[int], bool]) -> dict[str, Any]:
    """`clients` threads that ask without a pause; `ask` gets a running number and says whether all was well."""
    numbers, times, well, lock = count(), list[float](), list[bool](), threading.Lock()
    ends = time.perf_counter() + seconds

    def client() -> None:
        while (begun := time.perf_counter()) < ends:
            good = ask(next(numbers))
            with lock:
                times.append(time.perf_counter() - begun)
                well.append(good)

    begun = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    p50, p95 = np.quantile(times, (0.5, 0.95))
    return {
        "clients": clients,
        "a_second": round(len(times) / wall, 2),
        "p50_s": round(float(p50), 3),
        "p95_s": round(float(p95), 3),
        "answers": len(times),
        "not_well": well.count(False),
    }


def judged(url: str, key: str, model: str, prompt: Prompt, salt: str) -> None:
    """One Yes/No as a request of its own."""
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
    body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True}
    data = json.dumps(body | ({"cache_salt": salt} if salt else {})).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key or 'EMPTY'}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/chat/completions", data, headers), timeout=600
    ) as answer:
        answer.read()


def lists(store: Store, users: list[tuple[str, str]], seed: int, listed: int) -> Iterator[list[Prompt]]:
    """Lists of so many candidates as the reranker asks about them, each with another history."""
    draw = random.Random(seed)
    items = store.items(store.catalogue().item_ids)
    known = list(items.values())
    for user, _ in cycle(users):
        history = [event for event in store.history(user, limit=60) if event.item_id]
        told = "\n".join(prompts.event_text(event, items) for event in history[-40:])
        yield prompts.fit_prompts(f"[Recent Items]\n{told}", draw.sample(known, listed), wording="fashion")


def rate(ask: Callable[[list[Prompt]], None], asked: Iterator[list[Prompt]], seconds: float) -> dict[str, Any]:
    """Candidates a second."""
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        some = next(asked)
        ask(some)
        done += len(some)
    return {"candidates": done, "a_second": round(done / (time.perf_counter() - begun), 1)}


def yes_no(llm: ServerLLM, adapter_set: str, url: str, key: str, plan: Iterator[list[Prompt]], seconds: float) -> None:
    """Prints the rates of the three ways for the base model and for the adapter of the set that judges."""
    judge = served_names(adapter_set, llm.adapters).get("fit")
    names = [(None, llm.name), *([(judge, judge)] if judge else [])]
    with ThreadPoolExecutor(20) as pool:
        for adapter, model in names:
            llm.score(next(plan), adapter=adapter)  # compiles

            def each(some: list[Prompt], salted: bool, model: str = model) -> None:
                salts = [os.urandom(16).hex() if salted else "" for _ in some]
                list(pool.map(lambda one: judged(url, key, model, *one), zip(some, salts, strict=True)))

            ways: dict[str, Callable[[list[Prompt]], Any]] = {
                "a list": lambda some, adapter=adapter: llm.score(some, adapter=adapter),  # type: ignore[misc]
                "one by one": lambda some: each(some, False),
                "one by one, no prefix cache": lambda some: each(some, True),
            }
            for way, ask in ways.items():
                print(
                    json.dumps({"what": "yes/no", "model": model, "way": way, **rate(ask, plan, seconds)}), flush=True
                )


def stories(number: int) -> list[Prompt]:
    """So many, which no server writes to their ends in half a second."""
    told = (f"Tell all that happened to captain {random.getrandbits(32)} on a voyage of a year." for _ in range(number))
    return [Prompt("You write very long stories.", one) for one in told]


def lateness(url: str, key: str, seconds: float, allowed: float = 0.5) -> dict[str, Any]:
    """Seconds that calls come back later than they were to."""
    late, ended = list[float](), threading.Event()

    def write_on() -> None:
        other = ServerLLM(url, api_key=key)
        while not ended.is_set():
            other.generate(stories(4), max_tokens=256, deadline=time.monotonic() + 300)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        ends = time.perf_counter() + seconds
        try:
            while time.perf_counter() < ends:
                llm = ServerLLM(url, api_key=key)  # anew: one that saw failures before would not ask
                llm.connect()
                begun = time.perf_counter()
                with suppress(LLMTimeout):
                    llm.generate(stories(16), max_tokens=2000, deadline=time.monotonic() + allowed)
                late.append(time.perf_counter() - begun - allowed)
                time.sleep(0.2)
        finally:
            ended.set()
        writing.result()
    return {"calls": len(late), "p50_s": round(float(np.median(late)), 3), "most_s": round(max(late), 3)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--store", default="recgraph.duckdb")
    options.add_argument("--url", default="http://127.0.0.1:8000/v1")
    options.add_argument("--adapter", default="")
    options.add_argument("--clients", default="1,8,32,128", help='"" for Yes/No alone')
    options.add_argument("--listed", type=int, default=20, help="candidates a list of Yes/No")
    options.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    given = options.parse_args()
    key = os.environ.get("RECGRAPH_LLM_API_KEY", "")
    origin = {"what": "origin", "processor": processor(), "recgraph": __version__, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        for file in Path(given.store).parent.glob(f"{Path(given.store).name}*"):
            (shutil.copytree if file.is_dir() else shutil.copy)(file, Path(folder) / file.name)
        with Recommender.open(Path(folder) / Path(given.store).name, llm_url=given.url, adapter=given.adapter) as shop:
            print(json.dumps({**origin, **shop.models, "summarizer": shop.summarizer.name}), flush=True)
            users = shoppers(shop.store, seed=7)
            loads = [int(clients) for clients in given.clients.split(",") if clients]
            if loads:
                shop.warm_up()
                shop.recommend(*users[-1])

            def ask(number: int) -> bool:
                return not shop.recommend(*users[number % len(users)], deadline=120.0).degraded

            for clients in loads:
                told = closed_loop(clients, given.seconds, ask)
                print(json.dumps({"what": "recommendations", **told}), flush=True)
            if isinstance(shop.llm, ServerLLM):
                wanted = given.adapter or shop.store.meta("adapter") or "default"
                plan = lists(shop.store, users, 7, given.listed)
                yes_no(shop.llm, wanted, given.url, key, plan, given.seconds)
                print(json.dumps({"what": "late", **lateness(given.url, key, given.seconds)}), flush=True)


if __name__ == "__main__":
    main()
