"""One worker of a batch: answers the users of a shard and puts the shard's file in place. Each engine runs this, in as
many processes as it is told to; nothing is shared but the store, which is read, and the folder.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from recgraph.errors import StoreError
from recgraph.graph.batch.answers import answers, rows_of
from recgraph.graph.batch.outage import PATIENCE, Outage
from recgraph.graph.recommender import Recommender
from recgraph.graph.traces.collector import traced
from recgraph.store.batch import shards, wanted
from recgraph.store.batch.shards import COLUMNS
from recgraph.store.batch.tables import Row

_USER, _EVENTS, _DEGRADED = (list(COLUMNS).index(name) for name in ("user_id", "events", "degraded"))

SPAN = "answer a shard"


@dataclass(frozen=True)
class ShardJob:
    """What a worker is told: the folder, the settings by name, the store among them; the store's `revision`, the
    `label` that each file gets and what its rows have in `common` (graph/batch/manifest.py); whether rows of users
    without a new event stay; and how many threads ask a server."""

    folder: str
    settings: Mapping[str, Any]
    revision: str
    label: str
    common: str
    keeps: bool
    threads: int = 1


class Worker:
    """Opens the recommender once, for many shards. Close it, or let the process end."""

    def __init__(self, job: ShardJob) -> None:
        self.job, self.folder, self._exit = job, Path(job.folder), ExitStack()
        settings = dict(job.settings)
        # One after the other: titles that are not embedded yet are embedded by the first and read by the others.
        with FileLock(self.folder / ".open.lock"):
            self.recommender = self._exit.enter_context(Recommender.open(settings.pop("store"), **settings))
            self.recommender.warm_up(memory=False)
        self._tracer = self._exit.enter_context(traced(self.recommender))
        gc.freeze()  # the catalogue stays, and is not to be looked through for garbage again and again
        llm = self.recommender.llm
        patience = PATIENCE
        if llm and self.recommender.adapters.later:  # outside of the lock: all wait for the server at the same time
            patience = PATIENCE if Outage(llm).is_over() else 0.0  # it was waited for already
            self.recommender.take_adapters()
        self._outage = Outage(llm, self.recommender.adapters.names.values(), patience) if llm else None

    def close(self) -> None:
        """Sends the spans that wait, and gives the store back."""
        self._exit.close()

    def __call__(self, shard: int) -> dict[str, int]:
        """Makes a shard; its number and what is in it: users, answered, kept, empty, degraded, rows. StoreError where
        the store is not of the batch's revision any more."""
        if self._tracer is None:
            return self._make(shard)
        from recgraph.graph.traces.spans import spanning

        with spanning(self._tracer, SPAN) as tell:
            tell({"shard.number": shard})
            counts = self._make(shard)
            tell({f"shard.{name}": count for name, count in counts.items() if name != "shard"})
            return counts

    def _make(self, shard: int) -> dict[str, int]:
        users = wanted.users_of(self.folder, shard)
        kept = self._kept(shard, users) if self.job.keeps else []
        there = {row[_USER] for row in kept}
        asked = [user_id for user_id in users if user_id not in there]
        self._check_revision()
        made: list[Row] = []
        empty = 0
        for found in answers(self.recommender, asked, self.job.threads, self._outage):
            made += rows_of(found, users[found.user_id])
            empty += not found.items
        self._check_revision()
        place = {user_id: number for number, user_id in enumerate(users)}
        rows = sorted([*kept, *made], key=lambda row: place[row[_USER]])  # stable: the ranks stay in their order
        counts = {
            "shard": shard,
            "users": len(users),
            "answered": len(asked),
            "kept": len(there),
            "empty": empty,
            "degraded": len({row[_USER] for row in rows if row[_DEGRADED]}),
            "rows": len(rows),
        }
        facts = {"batch": self.job.label, "common": self.job.common, "revision": self.job.revision}
        shards.write(self.folder, shard, rows, {**facts, **{name: str(n) for name, n in counts.items()}})
        return counts

    def _kept(self, shard: int, users: Mapping[str, int]) -> list[Row]:
        """The rows that are there of users who did nothing since."""
        if shards.facts(self.folder, shard).get("common") != self.job.common:
            return []
        return [row for row in shards.rows_of(self.folder, shard) if users.get(row[_USER]) == row[_EVENTS]]

    def _check_revision(self) -> None:
        now = self.recommender.store.revision()
        if now != self.job.revision:
            raise StoreError(
                f"The store {self.recommender.store.path} was written while the batch ran (revision {now}; the batch "
                f"is of {self.job.revision}). What is whole stays. Go on with --since-last, or take a copy of the file."
            )
