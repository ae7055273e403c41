"""Ranking by many sources, at serving time: what each source says of an item becomes a few numbers, and a small learnt
network ranks by them.

A request's pool are the items that stand high with some source (the sum of reciprocal ranks). Of an item in the pool
the network reads, for each source, how far it lies above the source's other scores and its rank, besides how often it
was taken, how long the history is, and whether there is a query and a fresh one. The network is averaged from a few;
its forward pass is numpy. It is learnt in train/ranking.py, from validation cases, and lies in a folder or, published,
in a store. Whether an item may be shown comes in as a mask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from recgraph.errors import StoreError
from recgraph.store.db import Store
from recgraph.tools.sources.base import Past, Request, Rows, Scores, Source
from recgraph.tools.sources.layers import Numbers, gelu
from recgraph.tools.sources.published import publish, published
from recgraph.tools.sources.registry import SOURCES, make, possible
from recgraph.tools.sources.said import whole

Mask = NDArray[np.bool_]

META = "ranking"  # the store's fact that holds a published one
# where it lay until the stage was called `ranking`: stores that were published then go on serving
_META_BEFORE = "fusion"
_FILES = ("config.json", "ranking.safetensors")
# requests read together: the scores of 12,000 items stay in the processor's cache, 256 take a third longer each
AT_ONCE = 32
_RRF = 20.0  # added to ranks, so that the first of one source does not decide alone
_BELOW = 1e3  # what lies between an item of the pool and one outside


@dataclass(frozen=True)
class Pools:
    """Of n requests the `items` int64[n, pool], their `votes` float32[n, pool] (0 or less: no source has it, or it may
    not be shown), and what is `read` of them, float32[n, pool, 2 × sources + 4]: of each source the height, of each
    source the vote, and the besides."""

    items: Rows
    votes: Numbers
    read: Numbers


class PoolReader:
    """Asks the sources. `counts` float32[items] are the events of each item; `depth` items of each source are ranked,
    `pool` of all of them compared. Unless `again`, the history's items are no candidates: where nobody takes an item
    twice they only take places from others."""

    def __init__(
        self, sources: Mapping[str, Source], counts: NDArray[np.int64], depth: int, pool: int, again: bool
    ) -> None:
        self.sources, self.depth, self.pool, self.again = dict(sources), depth, pool, again
        self._counts = np.log1p(counts).astype(np.float32)

    def read(self, asked: Sequence[Request], allowed: Mask | None = None, pool: int = 0) -> tuple[Pools, Scores]:
        """The pools, of `pool` items if that is more, and the votes float32[requests, items] they were taken by: -1
        where an item may not be shown. `allowed` is bool[requests, items]."""
        n, n_items, depth = len(asked), len(self._counts), self.depth
        size, worth = min(max(self.pool, pool), n_items), (1 / (_RRF + np.arange(depth))).astype(np.float32)
        may = np.ones((n, n_items), np.bool_) if allowed is None else allowed.copy()
        hidden = [] if self.again else [(line, one.history) for line, one in enumerate(asked) if len(one.history)]
        for line, rows in hidden:
            may[line, rows] = False
        said, every, votes = [], [], np.zeros((n, n_items), np.float32)
        for source in self.sources.values():
            scores = whole(source.ask(asked), n_items)
            if np.isneginf(scores).any():
                lowest = np.where(np.isfinite(scores), scores, np.inf).min(1, keepdims=True)
                scores = np.where(np.isfinite(scores), scores, np.where(np.isfinite(lowest), lowest, 0.0)).astype(
                    np.float32
                )
            for line, rows in hidden:
                scores[line, rows] = scores[line].min()
            vote, mean, deviation = (
                np.zeros((n, n_items), np.float32),
                np.zeros((n, 1), np.float32),
                np.ones((n, 1), np.float32),
            )
            if scores.any():  # most requests have no query, and all that reads one says nothing
                mean, deviation = scores.mean(1, keepdims=True), np.maximum(scores.std(1, keepdims=True), 1e-9)
                for line, high in enumerate((scores > mean) & may):
                    first = _first(scores[line], np.flatnonzero(high), depth)
                    vote[line, first] = worth[: len(first)]
                votes += vote
            said.append((scores, mean, deviation))
            every.append(vote)
        votes[~may] = -1.0
        items = np.sort(np.argpartition(-votes, size - 1, axis=1)[:, :size], axis=1)
        heights = [(np.take_along_axis(scores, items, 1) - mean) / deviation for scores, mean, deviation in said]
        read = [np.sign(height) * np.sqrt(np.abs(height)) for height in heights] + [
            np.take_along_axis(vote, items, 1) for vote in every
        ]
        told = np.array(
            [[np.log1p(len(one.history)), bool(one.query.strip()), one.fresh] for one in asked], np.float32
        ).reshape(n, 3)
        read += [self._counts[items], *(np.broadcast_to(told[:, [column]], items.shape) for column in range(3))]
        return Pools(items, np.take_along_axis(votes, items, 1), np.stack(read, -1).astype(np.float32)), votes


def _first(scores: Scores, rows: Rows, count: int) -> Rows:
    """The `count` best of some rows, best first, equal ones in their order."""
    if len(rows) > count:
        rows = np.sort(rows[np.argpartition(-scores[rows], count)[:count]])
    return rows[np.argsort(-scores[rows], kind="stable")]


@dataclass(frozen=True)
class LearntRanking:
    """What was learnt. `sources` are the names of those it reads, in its order; `weights` the networks' by name;
    `config` has `depth`, `pool`, `again`, `networks`, the `encoder` of the texts and `fitted_before`, beside what it
    was learnt with."""

    sources: tuple[str, ...]
    weights: Mapping[str, Numbers]
    config: Mapping[str, Any]

    def says(self, read: Numbers) -> Numbers:
        """float32[...] for what is read of items, float32[..., numbers]: the higher the better, comparable within a
        request; 0 without a network."""
        if not self.config["networks"]:
            return np.zeros(read.shape[:-1], np.float32)
        x = (read - self.weights["mean"]) / self.weights["deviation"]
        total = np.zeros(x.shape[:-1], np.float32)
        for number in range(int(self.config["networks"])):
            w = {
                name: self.weights[f"{number}.{name}"]
                for name in ("straight", "first", "first_bias", "second", "second_bias", "last", "last_bias")
            }
            once = gelu(np.asarray(x @ w["first"].T + w["first_bias"], np.float32))
            bent = gelu(np.asarray(once @ w["second"].T + w["second_bias"], np.float32))
            total += ((bent @ w["last"].T + w["last_bias"]) + x @ w["straight"].T)[..., 0]
        return total

    def save(self, folder: str | Path) -> None:
        """Writes config.json and ranking.safetensors; the folder is made."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / _FILES[0]).write_text(
            json.dumps({"sources": self.sources, **self.config}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        (place / _FILES[1]).write_bytes(save(dict(self.weights)))

    @classmethod
    def load(cls, folder: str | Path) -> LearntRanking:
        """What `save` wrote. Raises StoreError where it is not there."""
        try:
            config, weights = (
                json.loads((Path(folder) / _FILES[0]).read_text(encoding="utf-8")),
                (Path(folder) / _FILES[1]).read_bytes(),
            )
        except OSError as error:
            raise StoreError(
                f"There is no learnt ranking in {folder} ({error}). Make it with: recgraph train ranking"
            ) from None
        return cls(tuple(config.pop("sources")), load(weights), config)

    def publish(self, store: Store) -> None:
        """Puts it into a store, which is open for writing, in place of what was published before."""
        publish(store, META, self.weights, {"sources": self.sources, **self.config})

    @classmethod
    def published(cls, store: Store, before: datetime | None = None) -> LearntRanking | None:
        """The store's; None where it has none, or one that may know what happened from `before` on (as
        `Core.published`)."""
        found = published(store, META if store.meta(META) is not None else _META_BEFORE, before)
        return cls(tuple(found[1].pop("sources")), *found) if found else None


@dataclass(frozen=True)
class Found:
    """An item of an answer: its row, the public name of the source without which it would lose most, and those of all
    that have it."""

    row: int
    source: str
    sources: tuple[str, ...]


class Ranker:
    """A learnt ranking with its sources made: it ranks a catalogue. Thread-safe."""

    def __init__(self, learnt: LearntRanking, reader: PoolReader) -> None:
        self.learnt, self.reader = learnt, reader
        names = tuple(reader.sources)
        shown = [SOURCES[name].shown_as for name in names]
        self._groups = {
            group: [place for place, one in enumerate(shown) if one == group] for group in dict.fromkeys(shown)
        }

    @classmethod
    def of(cls, learnt: LearntRanking, past: Past) -> Ranker | None:
        """Makes the sources from what is known of the past; None where it has not what one of them needs."""
        if not set(learnt.sources) <= set(possible(past)):
            return None
        counts = np.bincount(past.events.item, minlength=past.n_items)
        config = learnt.config
        sources = {name: make(name, past) for name in learnt.sources}
        return cls(
            learnt, PoolReader(sources, counts, int(config["depth"]), int(config["pool"]), bool(config["again"]))
        )

    def knows(self, *sources: str) -> bool:
        """Whether the network reads one of these sources."""
        return not set(sources).isdisjoint(self.reader.sources)

    def _worth(self, pools: Pools) -> Numbers:
        """float32[n, pool]: what the network says; without one, the votes."""
        return self.learnt.says(pools.read) if self.learnt.config["networks"] else pools.votes

    def scores(self, asked: Sequence[Request], allowed: Mask | None = None) -> Scores:
        """float32[requests, items]: the pool by the network, below it all others by the votes of the sources."""
        if len(asked) > AT_ONCE:
            parts = range(0, len(asked), AT_ONCE)
            return np.concatenate(
                [
                    self.scores(asked[i : i + AT_ONCE], None if allowed is None else allowed[i : i + AT_ONCE])
                    for i in parts
                ]
            )
        pools, votes = self.reader.read(asked, allowed)
        said = self._worth(pools)
        in_pool = np.where(pools.votes > 0, said - said.min(1, keepdims=True) + _BELOW, pools.votes)
        np.put_along_axis(votes, pools.items, in_pool.astype(np.float32), 1)
        return votes

    def first(self, asked: Request, allowed: Mask, k: int) -> list[Found]:
        """The first k of what may be shown and some source has, best first; `allowed` is bool[items]."""
        pools, _ = self.reader.read([asked], allowed[None], 2 * k)
        known = np.flatnonzero(pools.votes[0] > 0)
        said = self._worth(pools)[0, known]
        order = known[np.argsort(-said, kind="stable")[:k]]
        items, read = pools.items[0, order], pools.read[0, order]
        count = len(self.reader.sources)
        has = np.stack([(read[:, count : 2 * count][:, places] > 0).any(1) for places in self._groups.values()], 1)
        names = tuple(self._groups)
        told = has.copy()  # that an item is often taken is a reason only where there is no other
        told[:, [name == "popular" for name in names]] &= has.sum(1, keepdims=True) == 1
        losses = np.full(has.shape, -np.inf, np.float32)
        for column, places in enumerate(self._groups.values()):
            without = read.copy()
            without[:, [*places, *(count + place for place in places)]] = 0.0  # as if nothing was said of it
            losses[:, column] = np.where(told[:, column], -self.learnt.says(without), -np.inf)
        return [
            Found(
                int(row),
                names[int(loss.argmax())],
                tuple(name for name, there in zip(names, had, strict=True) if there),
            )
            for row, had, loss in zip(items, has, losses, strict=True)
        ]
