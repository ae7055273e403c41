"""How long one recommendation takes, by stage: without a language model and with one, in a warm process; retrieval
alone; whole processes and `--help`.

    recgraph demo --store recgraph.duckdb
    python benchmarks/latency.py --store recgraph.duckdb [--users 30] [--llm none | --llm-url URL]

Warm: the process is up, the summary is cached, and as many other users were served in between as `--users` says, so
that nothing of the user's own prompt but the instruction is left in the prefix cache. Users are drawn with a seed among
those with at least five events; with a model each searches for what they searched last. Without one, each asks
`--rounds` times without a query, with one that the process has seen, and with one that nobody ever typed; then an event
of theirs is recorded and they ask again. Wall time is what a shopper waits; on a machine that does other work too, CPU
time (of all threads) says more. Works on a copy of the store. Prints machine, load, date, command and quantiles.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.graph.recommendation import NODES, Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.store.records import Event
from recgraph.tools.retrieve import RetrievalQuery

KNOWN = "black boots"
SHARES = (0.5, 0.95, 0.99)


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


def timed(work: Callable[[], Recommendation]) -> tuple[float, float, Recommendation]:
    """Milliseconds of wall and of CPU time, and what was found."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000, found


def line(name: str, times: list[float], cpu: list[float]) -> str:
    """Wall and CPU time at the SHARES."""
    told = ["".join(f"{one:8.1f}" for one in np.quantile(values, SHARES)) for values in (times, cpu)]
    return f"  {name:<24}{told[0]}   {told[1]}"


def without_llm(shop: Recommender, users: list[str], rounds: int, seed: int) -> None:
    """Answers from retrieval alone, with and without a query; and after an event of the shopper's own."""
    draw = random.Random(seed)
    catalogue = shop.store.catalogue()
    words = sorted({word for name in draw.sample(catalogue.names, 200) for word in name.split() if word.isalpha()})
    queries: dict[str, Callable[[], str]] = {
        "no query": lambda: "",
        "known query": lambda: KNOWN,
        "new query": lambda: " ".join(draw.sample(words, 3)) + f" {draw.randrange(10**6)}",
    }
    for user in users:
        shop.recommend(user)
        shop.recommend(user, KNOWN)
    asked = len(users) * rounds
    print(f"\nWithout a language model, warm, {asked} answers each, k=10: ms, wall p50 p95 p99, CPU p50 p95 p99")
    nodes: dict[str, list[Recommendation]] = {}
    for name, query in queries.items():
        results = [timed(partial(shop.recommend, user, query())) for _ in range(rounds) for user in users]
        nodes[name] = [found for _, _, found in results]
        print(line(name, [wall for wall, _, _ in results], [cpu for _, cpu, _ in results]))
    after_events(shop, users, draw.sample(catalogue.item_ids, len(users)))
    print("  by node, wall p50        " + "".join(f"{name:>14}" for name in nodes))
    for node in (*NODES, "total"):
        middles = (np.median([one.timings_ms.get(node, 0.0) for one in found]) for found in nodes.values())
        print(f"    {node:<23}" + "".join(f"{middle:14.1f}" for middle in middles))


def after_events(shop: Recommender, users: list[str], item_ids: list[str]) -> None:
    """How long it takes to record an event, and to answer with it."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    writes, answers = [], []
    for user, item_id in zip(users, item_ids, strict=True):
        begun, cpu = time.perf_counter(), time.process_time()
        shop.record([Event(user, 0, now, "click", item_id)])
        writes.append(((time.perf_counter() - begun) * 1000, (time.process_time() - cpu) * 1000))
        answers.append(timed(partial(shop.recommend, user)))
        newest = shop.store.history(user)[-1]
        assert (newest.item_id, answers[-1][2].cached_blocks) == (item_id, 0), "the answer should know of the event"
    print(line("an event is recorded", [wall for wall, _ in writes], [cpu for _, cpu in writes]))
    print(line("the answer after it", [wall for wall, _, _ in answers], [cpu for _, cpu, _ in answers]))


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
    parser.add_argument("--rounds", type=int, default=5, help="answers to each user without a language model")
    parser.add_argument("--llm", default="", help="as RECGRAPH_LLM; none: no model, no whole processes")
    parser.add_argument("--llm-url", default="")
    asked = parser.parse_args()
    print(f"recgraph {__version__}, {machine()}, load {os.getloadavg()[0]:.1f}, {datetime.date.today()}")
    print(f"command: python benchmarks/latency.py {' '.join(sys.argv[1:])}")
    with tempfile.TemporaryDirectory(prefix="recgraph-latency-") as folder:
        place = Path(folder) / "shop.duckdb"
        shutil.copyfile(asked.store, place)  # events are recorded in it
        with Recommender.open(place, llm="none") as recommender:
            recommender.warm_up()
            users = [user for user, _ in pick_users(recommender, asked.users, asked.seed)]
            without_llm(recommender, users, asked.rounds, asked.seed)
    if asked.llm == "none":
        return
    with Recommender.open(asked.store, llm=asked.llm or None, llm_url=asked.llm_url or None) as recommender:
        print(f"models: {recommender.models}")
        recommender.warm_up()
        searches = pick_users(recommender, asked.users, asked.seed)
        warm(recommender, searches)
        retrieval(recommender, searches)
    processes(asked.store, asked.runs)


if __name__ == "__main__":
    main()
