"""Ranking by many sources, at serving time: what each source says of an item becomes a few numbers, and what ranks by
them is learnt, a small network, or weighed by hand where nothing was.

A request's pool are the items that some source proposes, the highest by the sum of reciprocal ranks. Of an item in the
pool are read, for each source, how far it lies above the source's other scores and its rank (its vote), besides how
often it was taken, how long the history is, whether there is a query and a fresh one, what of the wish it fits, and how
much it is like the history (tools/taste.py). The network reads all but the votes: a rank tells the place among what may
be shown, and where a filter leaves little of the catalogue each item has a high one, which it has not learnt. It is
averaged from a few; its forward pass is numpy. It is learnt in train/ranking.py, from validation cases, and lies in a
folder or, published, in a store. A source that it has not learnt counts on top of it by its vote and a weight set by
hand; without a network all do. What a language model predicted puts products into the pool of a learnt ranking and does
not move them: its votes cost .035 NDCG@10 (docs/results.md). Whether an item may be shown comes in as a mask; nothing
else here is as long as the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from scipy.special import softmax

from recgraph.errors import StoreError
from recgraph.store.db import Store
from recgraph.tools.sources.base import Past, Request, Rows, Said, Scores, Source
from recgraph.tools.sources.layers import Numbers, gelu
from recgraph.tools.sources.published import publish, published
from recgraph.tools.sources.registry import SOURCES, make, possible
from recgraph.tools.taste import TASTES, taste
from recgraph.tools.wish.facets import FEATURES, Facets
from recgraph.tools.wish.wish import Wish

Mask = NDArray[np.bool_]

META = "ranking"  # the store's fact that holds a published one
# where it lay until the stage was called `ranking`: stores that were published then go on serving
_META_BEFORE = "fusion"
_FILES = ("config.json", "ranking.safetensors")
AT_ONCE = 32  # requests read together
PREDICTED = ("id", "title")  # sources of a language model's prediction, of which no lesson has one
DEPTH, POOL = 100, 200  # items of each source, and of all together, where nothing was learnt
_RRF = 20.0  # added to ranks, so that the first of one source does not decide alone
_STEP = 4.0  # between two levels of what a wish names, as scores
_BESIDES = 4 + len(FEATURES) + len(TASTES)


class Weight(NamedTuple):
    """What a vote counts where the history leads and where a fresh query does. Only the first `depth` of a source
    count, and what stands at least `near` times as high as its first: in a small shop all is some neighbour."""

    history_led: float
    query_led: float
    depth: int = DEPTH
    near: float = 0.0


_NEAR = 0.5**0.5  # of heights as they are read, roots
# Tuned on the 804 validation cases of the simulated shop, without an LLM; the weights of "id" and "title" wait for a
# trained one. Recall@10/NDCG@10 on its 930 test cases .520/.364, with the wishes of their queries .560/.399.
HAND_SET: Mapping[str, Weight] = {
    "id": Weight(0.3, 0.3),
    "title": Weight(0.3, 0.3, near=_NEAR),
    "transitions": Weight(0.6, 0.5),
    "core": Weight(0.6, 0.5),
    "viewed": Weight(1.0, 0.75, 5),  # all of them would fill the answer with what the user has seen already
    "word-knn": Weight(0.2, 0.1, near=_NEAR),
    "text-knn": Weight(0.75, 0.2, near=_NEAR),
    "memory": Weight(0.3, 1.0),
    "query-text": Weight(0.3, 1.5, near=_NEAR),
    "query-words": Weight(0.1, 0.5, near=_NEAR),
}
_UNKNOWN = Weight(0.3, 0.3)
# The network's order is one vote among those of sources that it has not learnt.
LEARNT = 1.0
# As _RRF, of votes weighed by hand. Cormack 2009 fuses dozens of rankings with 60; few lists that each know something
# else want their top counted more: 10 was best of 10, 20, 30, 60.
_BY_HAND = 10.0
# Where so few of a pool hold all the free words of a query in their texts, they are what is meant and come first: a
# product just added, which nobody took yet, came 29th for its own title. On the validation cases of the simulated shop
# this is worth −.0008 NDCG@10, which is noise; 40 in place of 3 would cost −.0024.
_WORD_FOR_WORD = 3


@dataclass(frozen=True)
class Pools:
    """Of n requests the `items` int64[n, pool], their `votes` float32[n, pool] (0: the place is empty), and what is
    `read` of them, float32[n, pool, 2 × sources + 14]: of each source the height, of each source the vote, and the
    besides; 0 in empty places. `fresh` bool[n]: whose query is."""

    items: Rows
    votes: Numbers
    read: Numbers
    fresh: Mask


class PoolReader:
    """Asks the sources. `counts` float32[items] are the events of each item; `depth` items of each source are ranked,
    `pool` of all of them compared. Unless `again`, the history's items are no candidates: where nobody takes an item
    twice they only take places from others. Without `facets` nothing is read of a wish and of what products are like.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        counts: NDArray[np.int64],
        depth: int,
        pool: int,
        again: bool,
        facets: Facets | None = None,
    ) -> None:
        self.sources, self.depth, self.pool, self.again, self.facets = dict(sources), depth, pool, again, facets
        self._counts = np.log1p(counts).astype(np.float32)
        self.taken = _between(self._counts) * np.float32(0.9)  # float32[items]: how often, from 0 to below 1
        self._worth = (1 / (_RRF + np.arange(depth))).astype(np.float32)

    @property
    def n_items(self) -> int:
        return len(self._counts)

    @property
    def width(self) -> int:
        """How many numbers are read of an item."""
        return 2 * len(self.sources) + _BESIDES

    def levels(self, wish: Wish | None, may: Mask) -> Iterator[tuple[int, Mask]]:
        """What may be shown and fits the hard parts of a wish, by how much of the named it fits, the most first: (the
        number, bool[items]), none empty. All at once where nothing is named."""
        if self.facets and wish and wish.hard:
            may = may & self.facets.may(wish)
        if self.facets and wish and wish.named:
            yield from _levels(may, self.facets.fits(wish))
        elif may.any():
            yield 0, may

    def leading(self, wish: Wish | None, may: Mask, enough: int) -> Mask:
        """bool[items]: the first of these levels that hold `enough` items together."""
        held = np.zeros(len(may), np.bool_)
        for _, level in self.levels(wish, may):
            held |= level
            if held.sum() >= enough:
                break
        return held

    def ask(self, asked: Sequence[Request]) -> list[Said]:
        """What each source says."""
        return [source.ask(asked) for source in self.sources.values()]

    def read(
        self,
        asked: Sequence[Request],
        allowed: Mask | None = None,
        pool: int = 0,
        said: Sequence[Said] | None = None,
    ) -> Pools:
        """The pools, of `pool` items if that is more. `allowed` is bool[requests, items]; `said` is what `ask` gave for
        these requests, where it was asked already."""
        said, size = said or self.ask(asked), max(self.pool, pool)
        found = [
            self._proposed(said, line, one, None if allowed is None else allowed[line], size)
            for line, one in enumerate(asked)
        ]
        width, count = max([1, *(len(rows) for rows, _ in found)]), len(self.sources)
        items = np.zeros((len(asked), width), np.int64)
        read = np.zeros((len(asked), width, self.width), np.float32)
        votes = np.zeros((len(asked), width), np.float32)
        for line, (rows, given) in enumerate(found):
            items[line, : len(rows)], read[line, : len(rows), count : 2 * count] = rows, given
            votes[line, : len(rows)] = given.sum(1)
        for number, answer in enumerate(said):
            height = (answer.at(items) - answer.mean[:, None]) / answer.deviation[:, None]
            read[:, :, number] = np.sign(height) * np.sqrt(np.abs(height))
        told = [[np.log1p(len(one.history)), bool(one.query.strip()), one.fresh] for one in asked]
        read[:, :, 2 * count] = self._counts[items]
        read[:, :, 2 * count + 1 : 2 * count + 4] = np.array(told, np.float32).reshape(-1, 1, 3)
        if self.facets:
            for line, one in enumerate(asked):
                if one.wish:
                    read[line, :, 2 * count + 4 : -len(TASTES)] = self.facets.features(one.wish, items[line])
                read[line, :, -len(TASTES) :] = taste(self.facets, one.history, items[line])
        read[votes == 0] = 0.0
        return Pools(items, votes, read, np.array([one.fresh for one in asked], np.bool_))

    def _proposed(
        self, said: Sequence[Said], line: int, one: Request, allowed: Mask | None, size: int
    ) -> tuple[Rows, Numbers]:
        """The rows of a request's pool, ascending, and their votes float32[rows, sources]."""
        may = allowed
        if not self.again and len(one.history):
            may = np.ones(self.n_items, np.bool_) if allowed is None else allowed.copy()
            may[one.history] = False
        firsts = [answer.first(line, self.depth, may) for answer in said]
        rows, place = np.unique(np.concatenate([*firsts, np.zeros(0, np.int64)]), return_inverse=True)
        votes = np.zeros((len(rows), len(firsts)), np.float32)
        lengths = [len(first) for first in firsts]
        votes[place.ravel(), np.repeat(np.arange(len(firsts)), lengths)] = np.concatenate(
            [self._worth[:length] for length in lengths]
        )
        if len(rows) > size:
            kept = np.sort(np.argsort(-votes.sum(1), kind="stable")[:size])
            rows, votes = rows[kept], votes[kept]
        return rows.astype(np.int64), votes


def _levels(may: Mask, fits: NDArray[np.int8]) -> Iterator[tuple[int, Mask]]:
    for fit in range(int(fits.max(initial=0)), -1, -1):
        level = may & (fits == fit)
        if level.any():
            yield fit, level


@dataclass(frozen=True)
class LearntRanking:
    """What was learnt. `sources` are the names of those it reads, in its order; `weights` the networks' by name;
    `config` has `depth`, `pool`, `again`, `networks`, the `encoder` of the texts and `fitted_before`, beside what it
    was learnt with."""

    sources: tuple[str, ...]
    weights: Mapping[str, Numbers]
    config: Mapping[str, Any]

    @property
    def reads_votes(self) -> bool:
        """Whether the votes are among what it reads, as they were when older stores were published."""
        return bool(self.config.get("votes", True))

    def says(self, read: Numbers) -> Numbers:
        """float32[...] for what is read of items, float32[..., numbers]: the higher the better, comparable within a
        request; 0 without a network. What older stores were learnt without at the end, wish and taste, is not read."""
        if not self.config["networks"]:
            return np.zeros(read.shape[:-1], np.float32)
        x = (read[..., : len(self.weights["mean"])] - self.weights["mean"]) / self.weights["deviation"]
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
class Ranked:
    """What some source has of what may be shown: `rows` int64[m], best first, what was `read` of each, and its chance
    as the networks see it, on the mean, which learn by a softmax among what is compared; None where nothing was learnt.
    They are surer than they are right (benchmarks/worth.py)."""

    rows: Rows
    read: Numbers
    fresh: bool
    chances: Numbers | None


class Ranker:
    """Ranks a catalogue by sources: by what was learnt of them and, of those that were not, by hand. Thread-safe."""

    def __init__(self, reader: PoolReader, learnt: LearntRanking | None = None) -> None:
        """The `reader` has at least what was `learnt`."""
        self.reader, self.learnt = reader, learnt if learnt and learnt.config["networks"] else None
        names, read_by = tuple(reader.sources), self.learnt.sources if self.learnt else ()
        count, places = len(names), [list(reader.sources).index(name) for name in read_by]
        self._read_by = np.isin(names, read_by)
        votes = [count + place for place in places] if self.learnt and self.learnt.reads_votes else []
        self._columns = [*places, *votes, *range(2 * count, 2 * count + _BESIDES)]
        unweighed = (*read_by, *PREDICTED) if self.learnt else ()
        weights = [_UNKNOWN._replace(depth=0) if name in unweighed else HAND_SET.get(name, _UNKNOWN) for name in names]
        self._weights = np.array([[one.history_led, one.query_led] for one in weights], np.float32).reshape(-1, 2).T
        self._depths = np.array([one.depth for one in weights], np.float32)
        self._near = np.array([one.near for one in weights], np.float32)
        shown = [SOURCES[name].shown_as for name in names]
        self._groups = {
            group: [place for place, one in enumerate(shown) if one == group] for group in dict.fromkeys(shown)
        }

    @classmethod
    def of(cls, learnt: LearntRanking | None, past: Past, facets: Facets | None = None) -> Ranker:
        """Makes the sources from what is known of the past. What was learnt is not used where the past has not what one
        of its sources needs."""
        there = possible(past)
        if learnt and not set(learnt.sources) <= set(there):
            learnt = None
        names = (*learnt.sources, *_beside(learnt.sources, there)) if learnt else [n for n in there if n in HAND_SET]
        told: Mapping[str, Any] = learnt.config if learnt else {"depth": DEPTH, "pool": POOL, "again": True}
        counts = np.bincount(past.events.item, minlength=past.n_items)
        sources = {name: make(name, past) for name in names}
        reader = PoolReader(sources, counts, int(told["depth"]), int(told["pool"]), bool(told["again"]), facets)
        return cls(reader, learnt)

    def scores(self, asked: Sequence[Request], allowed: Mask | None = None) -> Scores:
        """float32[requests, items], for an evaluator that asks for all: the items of the pool above the others, which
        stand by how often they were taken; what fits more of the named attributes above what fits fewer; what hard
        parts of a wish leave out below them; and -1 where an item may not be shown. `allowed` is bool[requests, items].
        """
        n_items = self.reader.n_items
        found = np.full((len(asked), n_items), -1.0, np.float32)
        for start in range(0, len(asked), AT_ONCE):
            part, lines = asked[start : start + AT_ONCE], found[start : start + AT_ONCE]
            may = np.ones((len(part), n_items), np.bool_) if allowed is None else allowed[start : start + AT_ONCE]
            lines[may] = -0.5
            ladders = [list(self.reader.levels(one.wish, mask)) for one, mask in zip(part, may, strict=True)]
            for line, ladder in zip(lines, ladders, strict=True):
                for fit, level in ladder:
                    line[level] = _STEP * fit + self.reader.taken[level]
            said = self.reader.ask(part)
            for step in range(max(map(len, ladders), default=0)):
                masks = np.zeros_like(may)
                for line, ladder in enumerate(ladders):
                    above = sum(int(level.sum()) for _, level in ladder[:step])
                    if step < len(ladder) and above < self.reader.pool:
                        masks[line] = ladder[step][1]
                pools = self.reader.read(part, masks, 0, said)
                for line, worth in enumerate(self._worth(pools)[0]):
                    there = pools.votes[line] > 0
                    rows = pools.items[line, there]
                    lines[line, rows] += 1 + _between(worth[there]) - self.reader.taken[rows]
        return found

    def first(self, asked: Request, may: Mask, k: int) -> Iterator[tuple[int, Mask, Ranked]]:
        """`first_of` one request, with bool[items]."""
        return self.first_of([asked], may[None], k)[0]

    def first_of(self, asked: Sequence[Request], may: Mask, k: int) -> list[Iterator[tuple[int, Mask, Ranked]]]:
        """Of each request what may be shown, bool[requests, items], and some source has: by each level of what its wish
        names anew, as it is asked for; (how much of it fits, its mask, its order). At least 2 `k` items are compared.
        The first levels of all requests are read together."""
        ladders = [self.reader.levels(one.wish, mask) for one, mask in zip(asked, may, strict=True)]
        tops = [next(ladder, None) for ladder in ladders]
        if not any(tops):
            return [iter(()) for _ in asked]
        said = self.reader.ask(asked)
        masks = np.stack([top[1] if top else np.zeros_like(mask) for top, mask in zip(tops, may, strict=True)])
        pools = self.reader.read(asked, masks, 2 * k, said)
        judged = self._worth(pools)

        def levels(line: int) -> Iterator[tuple[int, Mask, Ranked]]:
            if (top := tops[line]) is not None:
                yield *top, self._in_order(pools, *judged, line)
            for fit, level in ladders[line]:
                only = np.zeros_like(masks)
                only[line] = level
                found = self.reader.read(asked, only, 2 * k, said)
                yield fit, level, self._in_order(found, *self._worth(found), line)

        return [levels(line) for line in range(len(asked))]

    def _in_order(self, pools: Pools, worth: Numbers, says: Numbers | None, line: int) -> Ranked:
        """What is in a request's pool, best first."""
        known = np.flatnonzero(pools.votes[line] > 0)
        known = known[np.argsort(-worth[line, known], kind="stable")]
        chances = None
        if self.learnt and says is not None and len(known):
            chances = softmax(says[line, known].astype(np.float64) / self.learnt.config["networks"])
        return Ranked(pools.items[line, known], pools.read[line, known], bool(pools.fresh[line]), chances)

    def why(self, ranked: Ranked, at: Sequence[int]) -> list[tuple[str, tuple[str, ...]]]:
        """Of the items at some places of an order: the public name of the source without which it would lose most, and
        those of all that have it."""
        places = np.array(at, np.int64)
        read, count = ranked.read[places], len(self._read_by)
        votes = read[:, count : 2 * count]
        by_hand = self._by_hand(ranked.read[None], np.array([ranked.fresh]))[0, places]
        names = tuple(self._groups)
        has = np.stack([(votes[:, group] > 0).any(1) for group in self._groups.values()], 1)
        told = has.copy()  # that an item is often taken is a reason only where there is no other
        told[:, [name == "popular" for name in names]] &= has.sum(1, keepdims=True) == 1
        gives = np.stack([by_hand[:, group].sum(1) for group in self._groups.values()], 1)
        if self.learnt:
            known = votes[:, self._read_by].any(1)
            least = self._least_without(read, told)
            # What the network's order gives, to the group without which the item would lose most.
            gives[np.arange(len(places)), least] += np.where(known, LEARNT / (_BY_HAND + 1 + places), 0.0)
        gives = np.where(told, gives, -np.inf)
        return [
            (names[int(given.argmax())], tuple(name for name, had in zip(names, line, strict=True) if had))
            for given, line in zip(gives, has, strict=True)
        ]

    def _least_without(self, read: Numbers, told: Mask) -> Rows:
        """int64[m]: the group of sources without which the network would say least of an item, among those that are
        `told` bool[m, groups] and that it reads."""
        assert self.learnt is not None
        count = len(self._read_by)
        read_of = [[place for place in group if self._read_by[place]] for group in self._groups.values()]
        without = np.repeat(read[:, None], len(read_of), axis=1)
        for column, places in enumerate(read_of):
            without[:, column, [*places, *(count + place for place in places)]] = 0.0  # as if nothing was said of it
        says = self.learnt.says(without[:, :, self._columns])
        may = told & np.array([bool(places) for places in read_of])
        return np.asarray(np.where(may, says, np.inf).argmin(1), np.int64)

    def _worth(self, pools: Pools) -> tuple[Numbers, Numbers | None]:
        """float32[n, pool], comparable within a request: what the networks say, or their order as one vote among those
        weighed by hand, and above it what holds the query's free words as hardly anything else does; -inf in empty
        places. And what the networks say alone, where something was learnt."""
        found, says = self._by_sources(pools)
        text = pools.read[:, :, 2 * len(self._read_by) + 4 + FEATURES.index("text")]
        there = pools.votes > 0
        whole = (text > 0.999) & there
        whole &= whole.sum(1, keepdims=True) <= _WORD_FOR_WORD
        spread = np.where(there, found, -np.inf).max(1) - np.where(there, found, np.inf).min(1)
        return np.asarray(np.where(whole, found + 1 + spread[:, None], found), np.float32), says

    def _by_sources(self, pools: Pools) -> tuple[Numbers, Numbers | None]:
        count, says = len(self._read_by), None
        worth = self._by_hand(pools.read, pools.fresh).sum(-1)
        if self.learnt:
            # Pool by pool: what the networks make of many at once does not stay in a processor's cache.
            said = [self.learnt.says(one) for one in pools.read[:, :, self._columns]]
            says = np.where(pools.votes > 0, np.stack(said), -np.inf)
            by_hand = worth.any(1, keepdims=True)  # of each request alone, whoever is asked for beside it
            place = np.argsort(np.argsort(-says, axis=1, kind="stable"), axis=1)
            known = pools.read[:, :, count : 2 * count][:, :, self._read_by].any(-1)
            worth += np.where(known, LEARNT / (_BY_HAND + 1 + place), 0.0)
            worth = np.where(by_hand, worth, says)
        return np.asarray(np.where(pools.votes > 0, worth, -np.inf), np.float32), says

    def _by_hand(self, read: Numbers, fresh: Mask) -> Numbers:
        """float32[n, pool, sources]: the votes for what was read of pools, weighed; `fresh` bool[n]."""
        count = len(self._read_by)
        height, votes = read[:, :, :count], read[:, :, count : 2 * count]
        place = np.where(votes > 0, np.round(1 / np.maximum(votes, 1e-9) - _RRF), np.inf)
        enough = self._near * np.where(votes > 0, height, 0.0).max(1, keepdims=True, initial=0.0)
        counts = (place < self._depths) & (height >= enough)
        weights = np.where(fresh[:, None], self._weights[1], self._weights[0])
        return np.asarray(np.where(counts, 1 / (_BY_HAND + 1 + place), 0.0) * weights[:, None], np.float32)


def _beside(learnt: Sequence[str], there: Sequence[str]) -> list[str]:
    """What counts on top of a learnt ranking: a language model's prediction, and what reads the query where no case to
    learn from had one."""
    wanted = [*PREDICTED, "memory", *([] if {"query-text", "query-words"} & set(learnt) else ["query-text"])]
    return [name for name in wanted if name in there and name not in learnt]


def _between(worth: Numbers) -> Numbers:
    """The same order between 0 and 1."""
    if not len(worth):
        return worth
    low, high = worth.min(), worth.max()
    return np.asarray((worth - low) / max(high - low, 1e-9), np.float32)
