"""Baselines that are counted, not trained: popularity, what follows what, nearest neighbours by users, words and text,
and a sum of them.

Most are the sources that serve (tools/sources/registry.py), made of `task.train` alone; a history may name items that
train does not, which then say nothing (`TextKNNSystem` reads them all the same). No random number is used here.

The defaults are the best of small grids by NDCG@10 on 5,000 validation cases of Amazon Beauty (2,500 for the fusion),
leave-one-out, full ranking, seen items excluded; test, 22,363 cases, Recall@10/NDCG@10: popularity .0115/.0054,
transitions .0881/.0553, item-kNN .0717/.0418, text-kNN .0583/.0359, fusion .0981/.0615. Tried and not better: steps
counted backwards too, fewer neighbours, users weighted by their items, popularity as a fourth part of the fusion
(better by less than noise); z-scores cut off at 5, 10 or 20 lose up to .02 Recall@10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.evaluation.workshop import Workshop
from recgraph.store.columns import Sequences
from recgraph.tools.sources import counted, text
from recgraph.tools.sources.base import Past, Request, Source
from recgraph.tools.sources.counted import ItemKNNSettings, SessionKNNSettings, TransitionSettings
from recgraph.tools.sources.said import whole
from recgraph.tools.sources.text import TextKNNSettings, WordsSettings
from recgraph.train.task import Cases, Events, Note, Scores, System, Task

Vectors = NDArray[np.float32]

_DAY = 86_400.0
_DATED = 365 * _DAY  # times before 1971 are the events' numbers, as in read_task


# ── Recent ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RecentSettings:
    """`days` that count before a case."""

    days: float = 7.0

    def __post_init__(self) -> None:
        if self.days <= 0:
            raise SettingsError(f"days is {self.days}; it must be above 0.")


class RecentPopularitySystem(System):
    """The number of an item's train events in the last days before a case, among equals their number until then (which
    adds less than 1).

    No train event lies after the cut of a split in time, so of a case after it the days before the cut count. Where the
    source knows the order of events only, there are no days, and this is the popularity of the whole train part.
    """

    name, settings_class = "recent", RecentSettings
    settings: RecentSettings

    def fit(self, task: Task, note: Note) -> None:
        order = np.argsort(task.train.time, kind="stable")
        self._item, self._time, self._n_items = task.train.item[order], task.train.time[order], task.n_items
        self._dated = len(self._time) > 0 and float(self._time[-1]) >= _DATED
        self._until = np.inf if task.until is None else task.until
        if not self._dated:
            note("recent: the events have no dates, so all of train is recent.")

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]."""
        end = np.minimum(cases.time, self._until) if self._dated else np.full(len(cases), np.inf)
        begin = end - self.settings.days * _DAY if self._dated else -end
        found = np.zeros((len(cases), self._n_items), np.float32)
        before, recent = (
            np.zeros(self._n_items),
            np.zeros(self._n_items),
        )  # both grow from case to case, in the order of time
        low = high = 0
        for case in np.argsort(end, kind="stable"):
            upper, lower = np.searchsorted(self._time, end[case]), np.searchsorted(self._time, begin[case])
            np.add.at(before, self._item[high:upper], 1.0)
            np.add.at(recent, self._item[high:upper], 1.0)
            np.subtract.at(recent, self._item[low:lower], 1.0)
            low, high = int(lower), int(upper)
            found[case] = recent + before / (before.max() + 1.0)
        return found


# ── What follows what ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Counted(System):
    """A source of tools/sources as a system: fitted on train, asked with the histories. A subclass says which; one
    without settings takes none."""

    kind: Callable[..., Source]

    def fit(self, task: Task, note: Note) -> None:
        """Counts what train holds."""
        settings = () if self.settings is None else (self.settings,)
        self._source, self._n_items = type(self).kind(self._past(task), *settings), task.n_items

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; 0 for what the source has nothing to say of."""
        return whole(self._source.ask([Request(one) for one in cases.history]), self._n_items)

    def _past(self, task: Task) -> Past:
        return past_of(task)


def past_of(task: Task, vectors: Vectors | None = None) -> Past:
    """The train part as the sources see it. `vectors` float32[items, d] are the texts'."""
    return Past(sequences_of(task.train), task.texts, vectors)


def sequences_of(events: Events) -> Sequences:
    """Events as a store hands them out."""
    ts = (events.time * 1e6).astype(np.int64).astype("datetime64[us]")
    return Sequences(events.user.astype(np.int32), events.item.astype(np.int32), ts, events.action)


class PopularitySystem(_Counted):
    """The number of an item's train events."""

    name, kind = "popularity", counted.Popularity


class TransitionsSystem(_Counted):
    """What the train users took after an item of the history."""

    name, kind, settings_class = "transitions", counted.Transitions, TransitionSettings


class ItemKNNSystem(_Counted):
    """Items that the same train users had."""

    name, kind, settings_class = "item-knn", counted.ItemKNN, ItemKNNSettings


class SessionKNNSystem(_Counted):
    """What train users with a like history had."""

    name, kind, settings_class = "session-knn", counted.SessionKNN, SessionKNNSettings


class WordKNNSystem(_Counted):
    """Items whose names share words with the history's."""

    name, kind, settings_class, uses = "word-knn", text.WordKNN, WordsSettings, ("text",)


class TextKNNSystem(_Counted):
    """Items whose text is near to the history's by the workshop's encoder, cold items like all others. ModelMissing
    where that is not there."""

    name, kind, settings_class, uses = "text-knn", text.TextKNN, TextKNNSettings, ("text",)

    def __init__(self, settings: TextKNNSettings | None, workshop: Workshop) -> None:
        super().__init__(settings)
        self._workshop = workshop

    def _past(self, task: Task) -> Past:
        return past_of(task, self._workshop.vectors(task.texts))


# ── All together ──────────────────────────────────────────────────────────────────────────────────────────────────────


def z_scores(scores: Scores, floor: float | NDArray[np.float32] = 0.0) -> Scores:
    """float32[cases, items]: each case's scores less their mean, over their deviation or `floor`, whichever is larger;
    0 where all are alike. An item without a rank (-inf) gets the lowest of its case."""
    known = np.isfinite(scores)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    held = np.where(known, scores, 0.0)
    mean = held.sum(axis=1, keepdims=True, dtype=np.float64) / count
    off = np.where(known, held - mean, 0.0)
    deviation = np.maximum(np.sqrt((off**2).sum(axis=1, keepdims=True) / count), floor)
    off = np.where(known, off, off.min(axis=1, keepdims=True, initial=0.0))
    return np.asarray(np.divide(off, deviation, out=np.zeros_like(off), where=deviation > 1e-12), np.float32)


@dataclass(frozen=True)
class FusionSettings:
    """`weights` of the systems, in their order. Scores below 0 count as 0 and are raised to `power` first: of lists
    that are 0 nearly everywhere the few largest scores would otherwise decide alone. `sample` cases tell how far a
    system's scores usually lie apart."""

    weights: tuple[float, ...] = (1.0, 0.5, 2.5)
    power: float = 0.5
    sample: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1 or self.sample < 0:
            raise SettingsError(
                f"power is {self.power} and sample {self.sample}; "
                "power must be above 0 and at most 1, sample at least 0."
            )


class StatisticsSystem(System):
    """The weighted sum of the z-scores that other systems' scores have within a case; by default of transitions,
    item-kNN and text-kNN.

    A list that is 0 but for a handful of items has so small a deviation that these would lie tens of deviations above
    all else, however little was said for them. So no deviation counts less than what is usual for the system: its
    median over validation cases.
    """

    name, settings_class, uses = "statistics", FusionSettings, ("ids", "text")
    settings: FusionSettings

    def __init__(
        self, settings: FusionSettings | None, workshop: Workshop, systems: Sequence[System] | None = None
    ) -> None:
        super().__init__(settings)
        own = [TransitionsSystem(), ItemKNNSystem(), TextKNNSystem(None, workshop)]
        self.systems: Sequence[System] = own if systems is None else systems
        if len(self.settings.weights) != len(self.systems):
            raise SettingsError(
                f"weights has {len(self.settings.weights)} numbers for {len(self.systems)} systems; give one for each."
            )

    def fit(self, task: Task, note: Note) -> None:
        for system in self.systems:
            system.fit(task, note)
        sample = (
            task.valid.some(self.settings.sample, 0) if self.settings.sample else task.valid.of(np.zeros(0, np.int64))
        )
        self._floors = [0.0] * len(self.systems)
        parts = [sample.of(np.arange(start, min(start + 128, len(sample)))) for start in range(0, len(sample), 128)]
        for place, system in enumerate(self.systems) if parts else ():
            deviations = np.concatenate([_deviation(self._rooted(system.scores(part))) for part in parts])
            self._floors[place] = float(np.median(deviations[deviations > 0])) if (deviations > 0).any() else 0.0

    def _rooted(self, scores: Scores) -> Scores:
        return np.where(np.isfinite(scores), np.maximum(scores, 0.0) ** self.settings.power, -np.inf).astype(np.float32)

    def scores(self, cases: Cases) -> Scores:
        """float32[cases, items]; -inf where every system says so."""
        total = np.zeros((len(cases), 0), np.float32)
        ranked = np.zeros((len(cases), 0), np.bool_)
        for system, weight, floor in zip(self.systems, self.settings.weights, self._floors, strict=True):
            found = system.scores(cases)
            part, known = np.float32(weight) * z_scores(self._rooted(found), floor), np.isfinite(found)
            total, ranked = (total + part, ranked | known) if total.shape[1] else (part, known)
        return np.where(ranked, total, -np.inf).astype(np.float32)


def _deviation(scores: Scores) -> NDArray[np.float32]:
    return np.asarray(np.where(np.isfinite(scores), scores, 0.0).std(axis=1), np.float32)
