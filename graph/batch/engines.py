"""Who runs the workers of a batch: processes of this machine, or Ray Data on one or many. Both give back what each
shard counted as it becomes whole, in any order; what a shard is they do not know.

Ray is imported by the function that needs it. Without RAY_ADDRESS it is started here, for this machine alone: it
listens on the loopback address, has no dashboard and reports nothing to its makers.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any

from recgraph.errors import RecgraphError, StoreError
from recgraph.graph.batch.work import ShardJob, Worker

Counts = dict[str, int]
_AHEAD = 2  # shards that wait for each process
_own: list[Worker] = []  # the worker of this process, where it is one of several

# ── Processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def local(job: ShardJob, shards: Sequence[int], workers: int) -> Iterator[Counts]:
    """In this process where one worker is wanted, else in so many of their own."""
    if workers == 1 or len(shards) == 1:
        worker = Worker(job)
        try:
            yield from map(worker, shards)
        finally:
            worker.close()
        return
    # Not forked: torch's threads do not come along.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(shards)), context, _begin, (job,))
    try:
        yield from _as_completed(pool, shards, _AHEAD * workers)
    except BrokenProcessPool:
        raise StoreError(
            "A worker of the batch was killed, by the system where memory ran out. What is whole stays: the same "
            "command goes on, with fewer --workers if need be."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _as_completed(pool: ProcessPoolExecutor, shards: Sequence[int], ahead: int) -> Iterator[Counts]:
    left, running = iter(shards), set[Future[Counts]]()
    while True:
        running |= {pool.submit(_make, shard) for shard in islice(left, ahead - len(running))}
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for one in done:
            yield one.result()


def _begin(job: ShardJob) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process tells it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _own.append(Worker(job))


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _make(shard: int) -> Counts:
    return _own[0](shard)


# ── Ray ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


class RayWorker:
    """A worker as an actor of Ray Data: shards come and counts go as batches of one row."""

    def __init__(self, job: ShardJob) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """An error that has a remedy goes back as its text: Ray would ask again, and wrap it in pages."""
        try:
            counts = self._worker(int(batch["shard"][0]))
        except RecgraphError as error:
            return {"error": [str(error)]}
        return {"error": [""], **{name: [count] for name, count in counts.items()}}


def by_ray(job: ShardJob, shards: Sequence[int], workers: int) -> Iterator[Counts]:
    """On the cluster that RAY_ADDRESS names, where folder and store have the same paths everywhere; else on this
    machine. A worker that is lost is begun again, and its shards are made once more."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    far = bool(os.environ.get("RAY_ADDRESS"))
    if not far:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a Ray that is no cluster: it binds to loopback alone
    import ray
    import ray.data

    for name in ("ray", "ray.data"):  # they say what this command says too
        logging.getLogger(name).setLevel(logging.ERROR)
    here: dict[str, Any] = {} if far else {"num_cpus": workers, "include_dashboard": False}
    ray.init(**here, log_to_driver=False, logging_level=logging.ERROR)
    try:
        told = ray.data.DataContext.get_current()
        told.enable_progress_bars = False
        made = ray.data.from_items([{"shard": shard} for shard in shards]).map_batches(
            RayWorker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
            fn_constructor_args=(job,),
            num_cpus=1,
        )
        for row in made.iter_rows():
            if row["error"]:
                raise StoreError(row["error"])
            yield {name: int(count) for name, count in row.items() if name != "error"}
    finally:
        ray.shutdown()


ENGINES = {"local": local, "ray": by_ray}
