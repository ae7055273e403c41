"""A batch: recommendations for all users of a store, or of a list, in a folder of Parquet files (`recgraph batch`).

    manifest.json   what it is of (graph/batch/manifest.py)
    users.parquet   user_id, shard, events; unknown.csv: those whom the store does not know (store/batch/wanted.py)
    part-*.parquet  a shard each: a row a product (COLUMNS in store/batch/shards.py)

A shard is made whole or not at all, and what is whole is not made again. Users are read shard by shard, so that a batch
needs the memory of one shard and of what any answer needs, however many users there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from recgraph.errors import SettingsError, StoreError
from recgraph.graph.batch.engines import ENGINES
from recgraph.graph.batch.manifest import ALL, FILE, Manifest
from recgraph.graph.batch.work import ShardJob
from recgraph.settings import Settings
from recgraph.store.batch import shards, wanted
from recgraph.store.batch.wanted import Wanted
from recgraph.store.db import Store

COUNTS = ("users", "answered", "kept", "empty", "degraded", "rows")
_SHARD, _SHARD_WITH_MODEL = 1000, 100  # users: some seconds, and some minutes, that a kill may cost


@dataclass(frozen=True)
class BatchRequest:
    """What a batch is asked for: where to, for whom (a file of ids; None is all of the store), by whom, and what to do
    with a batch of something else that is there. `shard_size` 0 is as many as suit the model; `threads` ask a
    server."""

    folder: Path
    users: Path | None = None
    engine: str = "local"
    workers: int = 1
    shard_size: int = 0
    threads: int = 1
    since_last: bool = False
    again: bool = False


@dataclass(frozen=True)
class Pace:
    """How far it is: users in whole shards, of how many; and users made in so many seconds, since the first shard of
    this command became whole: before that models were opened."""

    done: int
    of: int
    made: int
    seconds: float

    @property
    def a_second(self) -> float:
        return self.made / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at this pace; None before there is one."""
        return (self.of - self.done) / self.a_second if self.made else None


def run(
    asked: BatchRequest, settings: Settings, tell: Callable[[Pace], object] = lambda pace: None
) -> tuple[Manifest, Wanted]:
    """Makes what is missing of a batch; its manifest, and whom it is for. `tell` is told after each shard. StoreError
    where the folder holds a batch of something else, or is worked in."""
    _check(asked)
    folder = asked.folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        with lock:
            return _run(asked, folder, settings, tell)
    except Timeout:
        raise StoreError(f"Another batch works in {folder}.") from None
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be used: {error}.") from error


def _check(asked: BatchRequest) -> None:
    if asked.engine not in ENGINES:
        raise SettingsError(f"engine is '{asked.engine}'; it must be one of {', '.join(ENGINES)}.")
    for name, least in (("workers", 1), ("threads", 1), ("shard_size", 0)):
        if getattr(asked, name) < least:
            raise SettingsError(f"{name} is {getattr(asked, name)}; it must be at least {least}.")


def _run(
    asked: BatchRequest, folder: Path, settings: Settings, tell: Callable[[Pace], object]
) -> tuple[Manifest, Wanted]:
    manifest, whom = _begun(asked, folder, settings)
    sizes = wanted.sizes(folder)
    shards.sweep(folder, but=sizes)
    left = [shard for shard in sizes if shards.facts(folder, shard).get("batch") != manifest.label]
    job = ShardJob(
        str(folder),
        {**asdict(settings), "store": str(Path(settings.store).expanduser().absolute())},
        manifest.revision,
        manifest.label,
        manifest.common,
        manifest.keeps,
        asked.threads if settings.llm_url else 1,  # a model in this process answers one after the other
    )
    done, began, at_first = sum(sizes.values()) - sum(sizes[shard] for shard in left), 0.0, 0
    for counts in ENGINES[asked.engine](job, left, asked.workers) if left else ():
        done += sizes[counts["shard"]]
        if not began:
            began, at_first = time.monotonic(), done
        tell(Pace(done, whom.users, done - at_first, time.monotonic() - began))
    return _ended(folder, manifest, whom), whom


def _begun(asked: BatchRequest, folder: Path, settings: Settings) -> tuple[Manifest, Wanted]:
    """The manifest and the shards, as they are there or as they are made now."""
    with Store.open(settings.store) as store:
        store.require_file()
        users = ALL if asked.users is None else wanted.digest_of(asked.users)
        now = Manifest.of(store, settings, users)
        if asked.again:
            for name in (FILE, wanted.USERS, wanted.UNKNOWN):
                (folder / name).unlink(missing_ok=True)
        before, manifest = Manifest.read(folder), now
        if before is not None:
            if before.label == now.label:
                return before, wanted.wanted_in(folder)
            manifest = now.in_place_of(before, folder, asked.since_last)
        size = asked.shard_size or (_SHARD_WITH_MODEL if settings.asks_llm else _SHARD)
        whom = wanted.plan(store, folder, asked.users, size)
        manifest.write(folder)
        return manifest, whom


def _ended(folder: Path, manifest: Manifest, whom: Wanted) -> Manifest:
    totals = dict.fromkeys(COUNTS, 0)
    for shard in wanted.sizes(folder):
        told = shards.facts(folder, shard)
        if told.get("batch") != manifest.label:
            raise StoreError(f"{shards.file_of(folder, shard)} is not whole. The same command makes it.")
        for name in COUNTS:
            totals[name] += int(told[name])
    ended = manifest.ended_with({**totals, "unknown": whom.unknown})
    ended.write(folder)
    return ended
