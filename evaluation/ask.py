"""What every system is asked, and where its answers put the targets: cases, candidates, scores in pieces, masks, ties.

What is asked (`ask`) is fixed before any system is: which cases count, which items may answer each. A fitted system's
scores are read in pieces, masked, and turned into where the target stands (train/metrics.py: the expected rank where
scores are equal) and the first items. Rankings from elsewhere (evaluation/rankings.py) are masked and measured by the
same rules (DESIGN 7):

    seen: excluded   items of the history are no candidates; a case whose target is one of them is asked of nobody, and
                     counted
    seen: ranked     every item is a candidate, the history's too
    an item that is not listed before the moment of a case is no candidate; a target that a system cannot rank (-inf) is
    a miss

A system that is too slow for a whole catalogue, an LLM, may be asked for given items only (`Reranker`): for the
candidates where a protocol draws them, and else for the first `depth` of its own quick first stage, all others staying
below in that stage's order.

Metrics and comparisons are in evaluation/compare.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.evaluation.rankings import Rankings, case_ids
from recgraph.tools.llm.protocol import Usage
from recgraph.train.metrics import MISS, Places, places
from recgraph.train.task import Cases, Note, Reranker, Rows, Scores, System, Task, Within, cold, drawn, few_records

PROTOCOLS = ("full", "category", "sampled", "cold")
SEEN = ("excluded", "ranked")
DRAWN = ("both", "even")
FIRST = 10  # items of a list that coverage, novelty and invalid are counted over

Values = NDArray[np.float64]
Tell = Callable[..., None]  # (what, done, of)
Remember = Callable[
    [str, Callable[[], "Measured"]], "Measured"
]  # a piece of the answers by its name, made where it is not kept

_CASES, _SCORES = 256, 2**22  # at once: at most so many cases and so many scores
_RERANKED = 16  # cases of a reranker at once: it takes long, and what is done is told


@dataclass(frozen=True)
class Reporter:
    """How a long work is told: `note` takes a line of what happened, `tell` what is done now, and of how much how much
    is."""

    note: Note = lambda _: None
    tell: Tell = lambda *_: None


@dataclass(frozen=True)
class Options:
    """How it is asked. `sample` cases at most (0: all); `seed` draws them, negatives, ties in lists and resamples;
    `seeds` fit the systems. `negatives` of the protocol sampled are drawn evenly, or both evenly and, asked anew, by
    popularity."""

    protocol: str = "full"
    seen: str = "excluded"
    seeds: tuple[int, ...] = (7,)
    sample: int = 0
    seed: int = 7
    resamples: int = 2000
    flips: int = 10_000
    negatives: str = "both"

    def __post_init__(self) -> None:
        for name, allowed in (("protocol", PROTOCOLS), ("seen", SEEN), ("negatives", DRAWN)):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(allowed)}.")
        if not self.seeds or min(*self.seeds, self.seed, 0) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"seeds are {self.seeds}; give different whole numbers from 0 on, e.g. 7,8,9.")
        if self.sample < 0:
            raise SettingsError(f"sample is {self.sample}; it must be a number of cases, or 0 for all.")


@dataclass(frozen=True)
class Asked:
    """What is asked: the cases, and of case i the items that may answer it, `candidates[i]` (the target first), else
    all that `protocol` and `seen` leave. `dropped` says why how many cases are not asked."""

    task: Task
    cases: Cases
    protocol: str
    seen: str
    candidates: Rows | None
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.cases)

    def mask(self, scores: NDArray[np.floating], begin: int) -> None:
        """Puts -inf in scores[b, items] of the cases from `begin` on, wherever an item is no candidate."""
        task, cases, rows = self.task, self.cases, np.arange(begin, begin + len(scores))
        if self.seen == "excluded":
            lengths = [len(cases.history[row]) for row in rows]
            scores[np.repeat(rows - begin, lengths), np.concatenate([cases.history[row] for row in rows])] = -np.inf
        if np.isfinite(task.listed).any():
            scores[task.listed >= cases.time[rows, None]] = -np.inf
        if self.protocol == "category":
            scores[task.group != task.group[cases.target[rows], None]] = -np.inf

    def allowed(self, begin: int, end: int) -> NDArray[np.bool_]:
        """bool[cases, items]: the candidates of the cases from `begin` to before `end`."""
        if self.candidates is not None:
            drawn = np.zeros((end - begin, self.task.n_items), np.bool_)
            np.put_along_axis(drawn, self.candidates[begin:end], True, 1)
            return drawn
        nothing = np.zeros((end - begin, self.task.n_items), np.float32)
        self.mask(nothing, begin)
        return np.asarray(nothing == 0)


@dataclass(frozen=True)
class Measured:
    """What a system answered: where the targets stand, its first items int64[n, k] best first (-1: no more), the share
    of its first ten that name no product float64[n], which targets it could not rank, and the seconds its answers took.
    Of a reranker also the tokens of all answers and, where it had a first stage, float64[n] whether the target was
    among what that gave it to rerank, its ceiling."""

    places: Places
    first: Rows
    invalid: Values
    seconds: float
    used: Usage | None = None
    ceiling: Values | None = None

    @property
    def unranked(self) -> NDArray[np.bool_]:
        return self.places.better >= MISS


def ask(task: Task, options: Options, *, cases: Cases | None = None, popular: bool = False) -> Asked:
    """The cases of a task (`cases` for others than its test cases) under a protocol. `popular` draws negatives by
    popularity (sampled).

    SettingsError where no case is left.
    """
    task = task if cases is None else replace(task, test=cases)
    left, dropped = (cold(task) if options.protocol == "cold" else task).test, {}
    if options.protocol == "cold":
        dropped["warm target"] = len(task.test) - len(left)
    if options.protocol == "sampled":
        before, left = len(left), few_records(left)
        dropped["records"] = before - len(left)
    if options.seen == "excluded":
        new = np.array([target not in rows for target, rows in zip(left.target, left.history, strict=True)], np.bool_)
        dropped["target seen"] = int((~new).sum())
        left = left.of(new)
    if not len(left):
        why = (
            ", ".join(f"{count:,} for {reason}" for reason, count in dropped.items() if count)
            or "the split has no test case"
        )
        raise SettingsError(
            f"No case of {task.name} (split {task.split}) is left under protocol {options.protocol}: {why}."
        )
    left = left.some(options.sample, options.seed)
    candidates = drawn(task, left, options.seed, popular=popular) if options.protocol == "sampled" else None
    return Asked(task, left, options.protocol, options.seen, candidates, dropped)


def learn_from(task: Task, categories: Sequence[str], learnt: Sequence[str]) -> Task:
    """Zero-shot (F 5.4): train and validation events of products in the categories `learnt` alone, test cases whose
    target is in another one. `categories` names each item's. Histories and searches stay whole.

    SettingsError for a category the shop does not have, or where none is left to learn from or to ask about.
    """
    there = sorted(set(categories) - {""})
    for one in learnt:
        if one not in there:
            names = ", ".join(there) or "none"
            raise SettingsError(f"'{one}' is no category of {task.name}. Categories (--learn-from): {names}.")
    within = np.isin(np.array(categories), np.array(learnt))
    found = replace(
        task,
        name=f"{task.name}, learnt from {', '.join(learnt)}",
        train=task.train.of(within[task.train.item]),
        valid=task.valid.of(within[task.valid.target]),
        test=task.test.of(~within[task.test.target]),
    )
    if not len(found.train):
        raise SettingsError(f"Nothing happened with products of {', '.join(learnt)} before the cut of {task.name}.")
    return found


# ── Measuring one system ──────────────────────────────────────────────────────────────────────────────────────────────


def measure(
    system: System, asked: Asked, *, first: int = FIRST, seed: int = 7, tell: Tell = lambda *_: None
) -> Measured:
    """Asks a fitted system. `first` is how long the lists are that come back. SettingsError for scores that are no such
    thing."""
    return measure_all(system, [asked], first=first, seed=seed, tell=tell)[0]


def measure_all(
    system: System,
    asked: Sequence[Asked],
    *,
    first: int = FIRST,
    seed: int = 7,
    tell: Tell = lambda *_: None,
    remember: Remember | None = None,
) -> list[Measured]:
    """Measures the same cases under several sets of candidates, with one pass over the scores where the system gives
    them all; what a reranker answers, which takes long, goes through `remember` in pieces."""
    if isinstance(system, Reranker):
        return [
            _measure_reranker(system, one, first, seed, tell, remember or _make, str(place))
            for place, one in enumerate(asked)
        ]
    cases, n_items = asked[0].cases, asked[0].task.n_items
    better, equal = np.zeros((len(asked), len(cases)), np.int64), np.zeros((len(asked), len(cases)), np.int64)
    width = min(first, n_items if asked[0].candidates is None else asked[0].candidates.shape[1])
    lists, seconds = np.full((len(asked), len(cases), width), -1, np.int64), np.zeros(len(asked))
    within = system if asked[0].protocol in ("category", "sampled") and isinstance(system, Within) else None
    at_once = max(1, min(_CASES, _SCORES // max(n_items, 1)))
    for begin in range(0, len(cases), at_once):
        rows = np.arange(begin, min(begin + at_once, len(cases)))
        part = cases.of(rows)
        for place, one in enumerate(asked):
            if within or not place:  # else one pass serves all
                started = time.perf_counter()
                given = (
                    within.scores_within(part, one.allowed(int(rows[0]), int(rows[-1]) + 1))
                    if within
                    else system.scores(part)
                )
                took = time.perf_counter() - started
                _check(system, given, (len(rows), n_items), begin)
            seconds[place] += took
            here, lists[place, rows] = _piece(given, one, rows, width, np.random.default_rng([seed, begin]))
            better[place, rows], equal[place, rows] = here.better, here.equal
        tell(f"Asking {system.name}", int(rows[-1]) + 1, len(cases))
    return [
        Measured(Places(b, e), lists[place], np.zeros(len(cases)), float(seconds[place]))
        for place, (b, e) in enumerate(zip(better, equal, strict=True))
    ]


def _make(name: str, make: Callable[[], Measured]) -> Measured:
    return make()


def _measure_reranker(
    system: Reranker, asked: Asked, first: int, seed: int, tell: Tell, remember: Remember, label: str
) -> Measured:
    n, width = len(asked), min(first, asked.task.n_items if asked.candidates is None else asked.candidates.shape[1])
    if asked.candidates is None:
        system.scores(asked.cases.of(np.arange(1)))  # what is fitted at the first question is not the time of an answer
    pieces = []
    for begin in range(0, n, _RERANKED):
        rows = np.arange(begin, min(begin + _RERANKED, n))
        pieces.append(
            remember(
                f"{label}-{begin}", partial(_rerank, system, asked, rows, width, np.random.default_rng([seed, begin]))
            )
        )
        tell(f"Asking {system.name}", int(rows[-1]) + 1, n)
    at = Places(
        np.concatenate([one.places.better for one in pieces]), np.concatenate([one.places.equal for one in pieces])
    )
    used = sum((one.used for one in pieces if one.used), Usage())
    reached = [one.ceiling for one in pieces if one.ceiling is not None]
    ceiling, seconds = np.concatenate(reached) if reached else None, sum(one.seconds for one in pieces)
    return Measured(at, np.concatenate([one.first for one in pieces]), np.zeros(n), seconds, used, ceiling)


def _rerank(system: Reranker, asked: Asked, rows: Rows, width: int, rng: np.random.Generator) -> Measured:
    """Of the cases `rows`."""
    part, before, started, begin = asked.cases.of(rows), system.used, time.perf_counter(), int(rows[0])
    scores, ceiling = np.zeros((0, 0)), None
    if asked.candidates is not None:
        items = np.sort(asked.candidates[rows], axis=1)  # drawn with the target first; that must not be seen
    else:
        scores = system.scores(part).astype(np.float64)
        asked.mask(scores, begin)
        items = _first(scores, min(system.depth, asked.task.n_items), rng)
        ceiling = (items == part.target[:, None]).any(axis=1).astype(np.float64)
    given = system.scores_among(part, items)
    seconds, after = time.perf_counter() - started, system.used
    _check(system, given, items.shape, begin)
    if asked.candidates is not None:
        at, best = _among(given, (items == part.target[:, None]).argmax(axis=1), items, width, rng)
    else:
        _lift(scores, items, given)
        at, best = _piece(scores, asked, rows, width, rng)
    used = Usage(after.prompt - before.prompt, after.completion - before.completion, after.cached - before.cached)
    return Measured(at, best, np.zeros(len(rows)), seconds, used, ceiling)


def _lift(scores: NDArray[np.float64], items: Rows, given: Scores) -> None:
    """Puts the items a case each above all others of scores[b, items], in the order of `given`, equal ones equal."""
    for row, (chosen, order) in enumerate(zip(items, given, strict=True)):
        there = chosen >= 0
        if there.any():
            rank = np.unique(order[there], return_inverse=True)[1]
            scores[row, chosen[there]] = scores[row].max() + 1.0 + rank


def _check(system: System, scores: Scores, shape: tuple[int, int], begin: int) -> None:
    if scores.shape != shape or scores.dtype.kind != "f":
        raise SettingsError(
            f"{system.name} gave {scores.dtype} scores of shape {scores.shape}; it must be float32 {shape}."
        )
    bad = np.isnan(scores.max(axis=1))  # the largest of numbers and NaN is NaN
    if bad.any():
        case = begin + int(np.flatnonzero(bad)[0])
        raise SettingsError(
            f"{system.name} gave case {case} a score that is not a number; "
            "a smaller learning rate may mend its training."
        )


def _piece(
    given: NDArray[np.floating], asked: Asked, rows: Rows, width: int, rng: np.random.Generator
) -> tuple[Places, Rows]:
    """Of the cases `rows`: where the targets stand, and the first items."""
    if asked.candidates is None:
        scores, target = given.copy(), asked.cases.target[rows]
        asked.mask(scores, int(rows[0]))
        return _among(scores, target, None, width, rng)
    items = asked.candidates[rows]
    return _among(np.take_along_axis(given, items, axis=1), np.zeros(len(rows), np.int64), items, width, rng)


def _among(
    scores: NDArray[np.floating], target: Rows, items: Rows | None, width: int, rng: np.random.Generator
) -> tuple[Places, Rows]:
    """Where the columns `target` of scores[b, c] stand, and the first items; the columns are the rows `items`, else the
    catalogue's."""
    at = places(scores, target)
    missed = np.isneginf(scores[np.arange(len(scores)), target])  # many may share -inf, but that is no rank
    at.better[missed], at.equal[missed] = MISS, 0
    best = _first(scores, width, rng)
    if items is not None:
        best = np.where(best < 0, -1, np.take_along_axis(items, np.maximum(best, 0), axis=1))
    return at, best


def _first(scores: NDArray[np.floating], count: int, rng: np.random.Generator) -> Rows:
    """int64[b, count]: the columns of the largest scores, best first, equal ones in random order; -1 where all that is
    left is -inf."""
    n = scores.shape[1]
    chosen = np.argpartition(scores, n - count, axis=1)[:, n - count :]
    values = np.take_along_axis(scores, chosen, axis=1)
    least = values.min(axis=1)
    # Where more items have the last score than fit, argpartition has taken them by their place in the catalogue.
    crowded = (scores == least[:, None]).sum(axis=1) > (values == least[:, None]).sum(axis=1)
    for row in np.flatnonzero(crowded & ~np.isneginf(least)):
        last = values[row] == least[row]
        chosen[row, last] = rng.choice(np.flatnonzero(scores[row] == least[row]), last.sum(), replace=False)
    order = np.lexsort((rng.random(values.shape), -values), axis=1)
    chosen, values = np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)
    return np.where(np.isneginf(values), -1, chosen)


def measure_lists(lists: Rankings, asked: Asked, *, first: int = FIRST) -> Measured:
    """Measures rankings that somebody else made. A case without a list is a miss; an entry that is no candidate is left
    out, as it is of a system's scores; an unknown product keeps its place, since whoever gets the list would see it
    there."""
    n = len(asked)
    better, equal, invalid = np.full(n, MISS, np.int64), np.zeros(n, np.int64), np.zeros(n)
    best = np.full((n, first), -1, np.int64)
    for row, name in enumerate(case_ids(asked.task, asked.cases)):
        if name not in lists.lists:
            continue
        items, level = lists.lists[name]
        kept = (items < 0) | asked.allowed(row, row + 1)[0, items]
        items, level = items[kept], level[kept]
        here = np.flatnonzero(items == asked.cases.target[row])
        if len(here):
            better[row], equal[row] = (level < level[here[0]]).sum(), (level == level[here[0]]).sum() - 1
        best[row, : len(items[:first])] = items[:first]
        invalid[row] = (items[:FIRST] < 0).sum() / FIRST
    return Measured(Places(better, equal), best, invalid, 0.0)
