"""Users a second of `recgraph batch`: processes of this machine and Ray Data, one worker and two, taken in turns; and
how much memory one worker takes at the beginning and at the end.

    recgraph demo --store recgraph.duckdb
    python benchmarks/batch.py --store recgraph.duckdb [--users 2000] [--rounds 2] [--shard-size 50]
    python benchmarks/batch.py --store recgraph.duckdb --users 64 --shard-size 4 --llm-url URL [--workers 1 4]
    python benchmarks/batch.py --store recgraph.duckdb --users 2000 --compare
    python benchmarks/batch.py --store STORES/2400000/scale.duckdb --shards 6      # after benchmarks/scale.py --stores

A rate is that of the shards after each worker's first, so that opening models is not in it. The ratio of Ray to this
machine's own processes, one worker each, is that of neighbours in time: on a machine that does other work too, only it
says something. CPU is the time of all threads of one worker in this process. The users are neighbours in the order of
their ids, from a place drawn with a seed on: of a store with more, the time for all is computed from them. With a
model, so many threads of one process ask its server. `--compare` asks for each of the users alone as well and counts
those whose products, order and reasons are the batch's. `--shards` makes some shards of all users of a store that
benchmarks/scale.py has drawn, and tells the memory of the one process after each; all else works on a copy of the
store. Prints machine, load, date and command.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import resource
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does, before numpy is imported
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would have its workers wait for whatever else runs

from scale import DrawnEncoder
from scale import memory as resident

from recgraph import __version__
from recgraph.graph import recommender
from recgraph.graph.batch.batch import BatchRequest, Pace, run
from recgraph.graph.batch.manifest import ALL, Manifest
from recgraph.graph.batch.work import ShardJob, Worker
from recgraph.settings import Settings, load_settings
from recgraph.store.batch import shards, wanted
from recgraph.store.db import Store


@dataclass(frozen=True)
class Rate:
    """Of one batch: users a second after each worker's first shard, CPU milliseconds a user of this process, and its
    largest memory then and at the end, in MiB."""

    a_second: float
    cpu_ms: float
    memory_then: float
    memory: float


def neighbours(store: Path, folder: Path, count: int) -> tuple[Path, int]:
    """A file with so many ids, and how many users there are."""
    with Store.open(store) as opened:
        everybody = wanted.plan(opened, folder, None, 1000)
        begin = random.Random(0).randrange(max(1, everybody.users - count + 1))
        ids = [user_id for shard in wanted.sizes(folder) for user_id in wanted.users_of(folder, shard)]
    file = folder / "users.txt"
    file.write_text("\n".join(ids[begin : begin + count]) + "\n", encoding="utf-8")
    return file, everybody.users


def measured(request: BatchRequest, settings: Settings) -> Rate:
    """One batch into a folder of its own."""
    moments: list[tuple[float, float, float, int]] = []

    def tell(pace: Pace) -> None:
        moments.append((time.monotonic(), time.process_time(), memory(), pace.made))

    run(request, settings, tell)
    shutil.rmtree(request.folder)
    # So many shards are each worker's first: all but one of them are nearly whole when the first of them is.
    (first, cpu, then, made), (last, all_cpu, now, total) = moments[min(request.workers, len(moments)) - 1], moments[-1]
    users = max(total - made, 1)
    return Rate(users / max(last - first, 1e-9), (all_cpu - cpu) * 1000 / users, then, now)


def compared(asked: Sequence[BatchRequest], settings: Settings) -> list[str]:
    """Of each batch, whether it says what each of its users is told alone."""
    told = {request.engine: _told(request, settings) for request in asked}
    equal = dict.fromkeys(told, 0)
    with recommender.Recommender.open(settings.store, llm="none") as shop:
        for user_id in next(iter(told.values())):
            items = shop.recommend(user_id).to_dict()["items"]
            alone = [(one["item_id"], one["score"], one["source"], one["reason"]) for one in items]
            for engine, rows in told.items():
                equal[engine] += rows.get(user_id) == alone
    of = "users have the products, order, scores and reasons that each gets alone"
    return [f"{engine}: {equal[engine]:,} of {len(rows):,} {of}" for engine, rows in told.items()]


def _told(request: BatchRequest, settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """The rows of a batch by user."""
    run(request, settings)
    found: dict[str, list[tuple[object, ...]]] = {}
    for shard in wanted.sizes(request.folder):
        for values in shards.rows_of(request.folder, shard):
            row = dict(zip(shards.COLUMNS, values, strict=True))
            found.setdefault(str(row["user_id"]), []).append(
                (row["item_id"], row["score"], row["source"], row["reason"])
            )
    shutil.rmtree(request.folder)
    return found


def sampled(store: Path, folder: Path, count: int) -> None:
    """Prints what planning for all users takes and, after each of some shards, memory and pace."""
    recommender.encoder_of = lambda *_: DrawnEncoder()  # whose vectors that store holds
    settings = load_settings({}, folder, store=str(store), llm="none")
    begun = time.monotonic()
    with Store.open(store) as opened:
        whom, manifest = wanted.plan(opened, folder, None, 1000), Manifest.of(opened, settings, ALL)
    print(f"{whom.users:,} users in {whom.shards} shards: planned in {time.monotonic() - begun:.1f} s", end="; ")
    begun = time.monotonic()
    worker = Worker(
        ShardJob(str(folder), asdict(settings), manifest.revision, manifest.label, manifest.common, manifest.keeps)
    )
    print(f"opened in {time.monotonic() - begun:.1f} s; resident, of it not mapped from files, in GB:")
    for shard in sorted(random.Random(0).sample(sorted(wanted.sizes(folder)), count)):
        begun, cpu = time.monotonic(), time.process_time()
        users = worker(shard)["users"]
        seconds, cpu_ms, held = time.monotonic() - begun, (time.process_time() - cpu) * 1000, resident()
        print(
            f"  shard {shard}: {users} users, {users / seconds:.1f} a second, {cpu_ms / users:.1f} ms of CPU each; ",
            end="",
        )
        print(f"{held['Rss']:.2f}, {held['Anonymous']:.2f}", flush=True)
    worker.close()


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ways(given: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    """Name, engine, workers, threads of each thing to measure, neighbours in time."""
    if given.llm_url:
        for workers in given.workers:
            for threads in given.threads:
                yield f"workers {workers}, threads {threads}", "local", workers, threads
        return
    for workers in given.workers:
        yield from (
            (f"{engine}, {workers} worker{'s' * (workers > 1)}", engine, workers, 1) for engine in given.engines
        )


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--compare", action="store_true", help="ask for each user alone as well")
    parser.add_argument("--shards", type=int, default=0, help="of a store that benchmarks/scale.py has drawn")
    parser.add_argument("--llm-url", default="")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 4])
    given = parser.parse_args(words)
    command = shlex.join(["python", "benchmarks/batch.py", *words])
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    print(f"{command}\n{day}, recgraph {__version__}, {os.cpu_count()} CPUs")
    print(f"{platform.platform()}, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.shards:
            sampled(given.store, folder, given.shards)
            return
        store = folder / "shop.duckdb"
        shutil.copyfile(given.store, store)
        file, everybody = neighbours(store, folder, given.users)
        settings = load_settings({}, folder, store=str(store), llm_url=given.llm_url)
        if given.compare:
            batches = [BatchRequest(folder / engine, file, engine, 2, 250) for engine in given.engines]
            print(*compared(batches, settings), sep="\n")
            return
        rates: dict[str, list[Rate]] = {}
        for number in range(given.rounds):
            for name, engine, workers, threads in ways(given):
                out = folder / f"out-{number}-{engine}-{workers}-{threads}"
                request = BatchRequest(out, file, engine, workers, given.shard_size, threads)
                rates.setdefault(name, []).append(measured(request, settings))
                print(f"  round {number + 1}, {name}: {rates[name][-1].a_second:.1f} users a second", flush=True)
    shown(rates, everybody)
    print(f"load at the end {' '.join(f'{load:.1f}' for load in os.getloadavg())}")


def shown(rates: dict[str, list[Rate]], everybody: int) -> None:
    """Prints the medians, and the ratio round by round."""
    for name, of in rates.items():
        rate = statistics.median(one.a_second for one in of)
        hours = everybody / rate / 3600
        print(f"{name}: {rate:.1f} users a second at the median of {len(of)}; all {everybody:,} users {hours:.2f} h")
    alone = rates.get("local, 1 worker")
    if alone:
        cpu = statistics.median(one.cpu_ms for one in alone)
        print(
            f"local, 1 worker: {cpu:.1f} ms of CPU a user; {alone[0].memory_then:.0f} MiB after the first shard, ",
            end="",
        )
        print(f"{alone[0].memory:.0f} at the end")
    if alone and "ray, 1 worker" in rates:
        ratios = [ray.a_second / own.a_second for ray, own in zip(rates["ray, 1 worker"], alone, strict=True)]
        print(f"Ray to local at one worker: {', '.join(f'{one:.2f}' for one in ratios)}")


if __name__ == "__main__":
    main(sys.argv[1:])
