"""How long one recommendation takes, by stage: warm process, cold process, retrieval alone, `--help`.

    python benchmarks/latency.py --store recgraph.duckdb [--users 30] [--llm-url URL]

Warm: the process is up, the summary is cached, and as many other users were served in between as `--users` says, so
that nothing of the user's own prompt but the instruction is left in the prefix cache. Users are drawn with a seed among
those with at least five events; each searches for what they searched last. Prints machine, date, command and for every
stage the 5 %, 50 % and 95 % quantiles.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from recgraph import __version__
from recgraph.graph.recommendation import NODES, Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.tools.retrieve import RetrievalQuery


def machine() -> str:
    """The processor as the system names it, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
        )
    except OSError:
        name = platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def quantiles(values: list[float]) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:9.0f} ms   ({low:.0f} to {high:.0f})"


def pick_users(recommender: Recommender, count: int, seed: int) -> list[tuple[str, str]]:
    """(user, their last search) of `count` users with at least five events."""
    rows = [row for row in recommender.store.users(limit=5000) if row.events >= 5]
    chosen = random.Random(seed).sample(sorted(row.user_id for row in rows), min(count, len(rows)))
    last = {
        user: [event.query for event in recommender.store.history(user) if event.action == "search"] for user in chosen
    }
    return [(user, last[user][-1] if last[user] else "") for user in chosen]


def warm(recommender: Recommender, users: list[tuple[str, str]]) -> None:
    for user, query in users:
        recommender.recommend(user, query)
    found: list[Recommendation] = [recommender.recommend(user, query) for user, query in users]
    assert all(one.cached_blocks == one.blocks for one in found), "summaries should be cached on the second round"
    print(f"\nWarm process, cached summary, {len(found)} users, k=10, 20 candidates reranked: median (5 % to 95 %)")
    for node in (*NODES, "total"):
        print(f"  {node:<14}{quantiles([one.timings_ms.get(node, 0.0) for one in found])}")
    tokens = [(one.tokens.prompt, one.tokens.cached, one.tokens.completion) for one in found]
    prompt, cached, completion = (int(np.median(column)) for column in zip(*tokens, strict=True))
    print(f"  tokens at the median: {prompt} prompt, of which {cached} cached; {completion} completion")
    print(f"  degraded runs: {sum(bool(one.degraded) for one in found)} of {len(found)}")


def retrieval(recommender: Recommender, users: list[tuple[str, str]]) -> None:
    retriever, memory, times = recommender._retriever(None), recommender._memory(None), []
    titles = recommender.store.catalogue()
    for number, (user, query) in enumerate(users):
        history, hits = recommender.store.history(user), memory.lookup(query)
        row = number * 7919 % len(titles.item_ids)
        started = time.perf_counter()
        retriever.candidates(RetrievalQuery(titles.item_ids[row], titles.names[row], query, history, hits, k=20))
        times.append((time.perf_counter() - started) * 1000)
    print(
        f"\nRetrieval alone (both texts embedded, all sources, 20 candidates):\n  {'candidates':<14}{quantiles(times)}"
    )


def processes(store: str, runs: int) -> None:
    """Whole processes from outside: wall time, and CPU time of `--help`."""
    command = [sys.executable, "-m", "recgraph.cli"]
    print(f"\nWhole processes, {runs} runs each")
    for name, arguments in (
        ("recgraph run (cold)", ["run", "--user", "U123", "--store", store, "--json"]),
        ("recgraph --help", ["--help"]),
    ):
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            subprocess.run([*command, *arguments], check=True, capture_output=True)
            times.append((time.perf_counter() - started) * 1000)
        print(f"  {name:<20}{quantiles(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="recgraph.duckdb")
    parser.add_argument("--users", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="runs of each whole process")
    parser.add_argument("--llm-url", default="")
    asked = parser.parse_args()
    print(f"recgraph {__version__}, {machine()}, {datetime.date.today()}")
    print(f"command: python benchmarks/latency.py {' '.join(sys.argv[1:])}")
    with Recommender.open(asked.store, llm_url=asked.llm_url or None) as recommender:
        print(f"models: {recommender.models}")
        recommender.warm_up()
        users = pick_users(recommender, asked.users, asked.seed)
        warm(recommender, users)
        retrieval(recommender, users)
    processes(asked.store, asked.runs)


if __name__ == "__main__":
    main()
