"""How long one recommendation takes, by stage: without a language model and with one, in a warm process; retrieval
alone; whole processes and `--help`.

    recgraph demo --store recgraph.duckdb
    python benchmarks/latency.py --store recgraph.duckdb [--users 30] [--llm none | --llm-url URL]
    python benchmarks/latency.py --store recgraph.duckdb --dtype bfloat16 --dtype float32 --runs 0

Warm: the process is up, the summary is cached, and as many other users were served in between as `--users` says, so
that nothing of the user's own prompt but the instruction is left in the prefix cache. Users are drawn with a seed among
those with at least five events; with a model each searches for what they searched last. Without one, each asks
`--rounds` times without a query, with one that the process has seen, and with one that nobody ever typed; then an event
of theirs is recorded and they ask again. Wall time is what a shopper waits; on a machine that does other work too, CPU
time (of all threads) says more. Works on a copy of the store. Prints machine, load, date, command and quantiles.

With a model in process it also says how many passes and tokens an answer takes, what they come to at the rates that
this machine reaches in a product of large matrices and in reading memory, and how much memory is the process's own;
--dtype names number formats, to be shown one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from timeit import repeat

import numpy as np
import torch

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.graph.recommendation import NODES, Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.store.records import Event
from recgraph.tools.llm.places import DTYPE_VARIABLE, DTYPES
from recgraph.tools.llm.protocol import LLM
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


def rates(dtype: torch.dtype) -> tuple[float, float]:
    """Multiplications and additions a second in a large product, bytes a second in reading memory: the best of some."""
    with torch.inference_mode():
        square, large = torch.ones((2048, 2048), dtype=dtype), torch.ones(64 << 20)
        product, read = (min(repeat(work, number=1, repeat=5)) for work in (lambda: square @ square, large.sum))
    return 2 * 2048**3 / product, large.nbytes / read


def own_memory() -> int:
    """MiB that belong to this process alone and are not a file's."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(rollup.split("Private_Dirty:")[1].split()[0]) >> 10


@contextlib.contextmanager
def counted(llm: LLM | None) -> Iterator[list[int]]:
    """The tokens of every forward pass of a model in process."""
    passes: list[int] = []
    model = getattr(llm, "_model", None)
    if model is None:
        yield passes
        return

    def count(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        passes.append(given["input_ids"].numel())

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


def told_work(llm: LLM, passes: list[int], answers: int) -> None:
    """What the model computed for an answer on the mean, and how long that takes at this machine's rates."""
    model = getattr(llm, "_model")  # noqa: B009
    layers = (llm.parameters or 0) - model.get_input_embeddings().weight.numel()
    tokens, dtype = sum(passes) / answers, model.get_input_embeddings().weight.dtype
    flops, size = 2 * layers * tokens, layers * dtype.itemsize * len(passes) / answers
    product, read = rates(dtype)
    print(
        f"  {len(passes) / answers:.1f} passes over {tokens:.0f} tokens an answer: {flops / 1e9:.0f} GFLOP in the"
        f" layers, {flops / product * 1000:.0f} ms at the {product / 1e9:.0f} GFLOP/s measured; {size / 1e9:.2f} GB of"
        f" weights, {size / read * 1000:.0f} ms at {read / 1e9:.0f} GB/s"
    )
    print(f"  {dtype}, {torch.get_num_threads()} threads; memory of the process's own: {own_memory()} MiB")


def warm(recommender: Recommender, users: list[tuple[str, str]]) -> None:
    for user, query in users:
        recommender.recommend(user, query)
    with counted(recommender.llm) as passes:
        answer_warm(recommender, users)
    if recommender.llm is not None and passes:
        told_work(recommender.llm, passes, len(users))


def answer_warm(recommender: Recommender, users: list[tuple[str, str]]) -> None:
    found: list[Recommendation] = [recommender.recommend(user, query) for user, query in users]
    assert all(one.cached_blocks == one.blocks for one in found), "summaries should be cached on the second round"
    judged = sum(not any(part.sure for part in one.left_out) for one in found)
    print(f"\nWarm process, cached summary, {len(found)} users, Yes/No asked in {judged}, k=10: median (5 % to 95 %)")
    for node in (*NODES, "total"):
        print(f"  {node:<14}{quantiles([one.timings_ms.get(node, 0.0) for one in found])}")
    tokens = [(one.tokens.prompt, one.tokens.cached, one.tokens.completion) for one in found]
    prompt, cached, completion = (int(np.median(column)) for column in zip(*tokens, strict=True))
    print(
        f"  tokens at the median: {prompt} prompt, of which {cached} cached and {prompt - cached} computed; "
        f"{completion} completion"
    )
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
    parser.add_argument("--dtype", action="append", choices=DTYPES, help=f"as {DTYPE_VARIABLE}; may be given twice")
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
    for dtype in asked.dtype or [os.environ.get(DTYPE_VARIABLE, "")]:
        os.environ[DTYPE_VARIABLE] = dtype
        llm = asked.llm or "default"
        with Recommender.open(asked.store, llm=llm, llm_url=asked.llm_url or None) as recommender:
            print(f"\nmodels: {recommender.models}, load {os.getloadavg()[0]:.1f}")
            recommender.warm_up()
            searches = pick_users(recommender, asked.users, asked.seed)
            warm(recommender, searches)
            retrieval(recommender, searches)
    if asked.runs:
        processes(asked.store, asked.runs)


if __name__ == "__main__":
    main()
