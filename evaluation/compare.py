"""Fits systems, asks them all the same (evaluation/ask.py) and compares: figures, intervals, tests, the result.
Command: `recgraph evaluate`.

All figures are means over the same cases. With one right answer a case the hit rate is the recall, so it has no column
of its own. What a result holds is in evaluation/result.py; commands and tables are unknown here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.evaluation.ask import (
    Asked,
    Measured,
    Options,
    Reporter,
    Values,
    ask,
    learn_from,
    measure,
    measure_all,
    measure_lists,
)
from recgraph.evaluation.kept import Kept
from recgraph.evaluation.origin import Origin, machine
from recgraph.evaluation.rankings import Rankings, case_ids, read_rankings, write_rankings
from recgraph.evaluation.result import MAIN, Against, Ceiling, Figure, Group, Line, MeanTokens, Result, Share, rounded
from recgraph.evaluation.statistics import holm, intervals, sign_flips
from recgraph.evaluation.systems import Make, systems
from recgraph.evaluation.workshop import Workshop
from recgraph.store.db import Store
from recgraph.train import leaks
from recgraph.train.metrics import Places, mrr, ndcg, recall
from recgraph.train.task import Reranker, Rows, System, Task, drawn, fewer_users, only_named, read_task

CURVE = (1, 5, 10, 20, 50, 100)
DRAWN_CURVE = (1, 3, 5, 10, 20)
DEPTH = 100  # items of an exported list


@dataclass(frozen=True)
class EvaluationPlan:
    """What is evaluated on a store. `items` are all that it names, or the `named` of which more than an id is known;
    `runs` are files of rankings; `shares` of the users are learnt from too (low resource); with categories in
    `learn_from` only these are learnt from and only the others asked about (zero-shot); answers are kept in the folder
    `keep`; `command` is told in the result."""

    split: str = "time"
    items: str = "all"
    options: Options = field(default_factory=Options)
    runs: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    learn_from: tuple[str, ...] = ()
    keep: Path | None = None
    command: str = ""


def evaluate_store(
    plan: EvaluationPlan, names: Sequence[str], workshop: Workshop, reporter: Reporter | None = None
) -> Result:
    """Evaluates the named systems on the workshop's store.

    With `shares` every system is also fitted on the train events of such a share of the users (drawn with the options'
    seed, a smaller one is part of a larger one) and asked the same. SettingsError for an unknown system, a share that
    is none, and as `evaluate`.
    """
    reporter = reporter or Reporter()
    chosen, task = systems(names, workshop), _task(plan, workshop, reporter)
    fewer = {share: fewer_users(task, share, plan.options.seed) for share in sorted(plan.shares)}
    runs = [read_rankings(path, task) for path in plan.runs]
    kept: dict[str, Any] = {"reporter": reporter, "keep": plan.keep, "embedder": workshop.embedder}
    result = evaluate(task, chosen, plan.options, runs=runs, command=plan.command, **kept)
    if not fewer:
        return result
    by_share = {share: evaluate(some, chosen, plan.options, **kept) for share, some in fewer.items()} | {1.0: result}
    curve = (
        Share(line.name, share, line.figure())
        for share, one in by_share.items()
        for line in one.lines
        if line.name in chosen
    )
    return replace(result, low_resource=tuple(curve))


def export(
    plan: EvaluationPlan, names: Sequence[str], file: Path, workshop: Workshop, reporter: Reporter | None = None
) -> int:
    """Writes the first items of one system for every case; the number of lists. SettingsError without exactly one
    system."""
    reporter, chosen = reporter or Reporter(), systems(names, workshop)
    if len(chosen) != 1:
        raise SettingsError(
            f"--export writes the rankings of one system, but --system names {len(chosen)}; name one of them."
        )
    task = _task(plan, workshop, reporter)
    leaks.check_task(task, chosen)
    asked = ask(task, plan.options)
    ((name, make),) = chosen.items()
    reporter.tell(f"Fitting {name}")
    system = leaks.fit(make(plan.options.seeds[0]), task, reporter.note)
    found = measure(system, asked, first=DEPTH, seed=plan.options.seed, tell=reporter.tell)
    write_rankings(file, task, asked.cases, found.first, name)
    return len(asked)


def _task(plan: EvaluationPlan, workshop: Workshop, reporter: Reporter) -> Task:
    if workshop.store is None:
        raise SettingsError("There is no store to evaluate on; name one with --store.")
    reporter.tell("Reading the store")
    with Store.open(workshop.store) as opened:
        task = read_task(opened, workshop.store.stem, plan.split)
        if plan.learn_from:
            task = learn_from(task, opened.catalogue().categories, plan.learn_from)
    return only_named(task) if plan.items == "named" else task


# ── A task and its systems ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Answers:
    """A system's answers with each seed (one where none is used), a `line` without the figures yet, `popular` under
    negatives drawn by popularity (empty in other protocols), and the seconds of fitting and asking, also where that was
    in an earlier evaluation."""

    line: Line
    measured: list[Measured]
    popular: list[Measured]
    seconds: float = 0.0


def evaluate(
    task: Task,
    systems: Mapping[str, Make],
    options: Options | None = None,
    *,
    runs: Sequence[Rankings] = (),
    reporter: Reporter | None = None,
    command: str = "",
    keep: Path | None = None,
    embedder: str = "",
) -> Result:
    """Fits the systems on a task, asks them and the `runs`, and compares.

    With a folder `keep` what a system answered is kept there, and a system that was asked the same before (equal data,
    options, settings, text encoder and code of the models) is not fitted again. The `seconds` of the result count what
    it cost then. A system that has no seed among its settings is fitted once. Values of a case are means over the
    seeds; intervals and tests draw users. SettingsError for a leak (train/leaks.py), a protocol without cases and
    scores that are none, and what fitting raises.
    """
    options, reporter, started = options or Options(), reporter or Reporter(), time.perf_counter()
    leaks.check_task(task, systems)
    asked = [ask(task, options)]
    if options.protocol == "sampled" and options.negatives == "both":
        asked.append(replace(asked[0], candidates=drawn(task, asked[0].cases, options.seed, popular=True)))
    kept = Kept(keep, task.hash(), options, embedder) if keep else None
    answers = [_fit_and_ask(name, make, asked, options, kept, reporter) for name, make in systems.items()]
    answers += [_read(run, asked) for run in runs]
    names = [one.line.name for one in answers]
    if not names:
        raise SettingsError("There is nothing to evaluate; name systems or a run.")
    if len(set(names)) < len(names):
        raise SettingsError(f"Two systems have one name, of: {', '.join(names)}.")
    values = {one.line.name: _values(one.measured, options.protocol) for one in answers}
    against = _differences(values, asked[0].cases.user, options)
    lines = (_with_figures(one, asked[0], values[one.line.name], options) for one in answers)
    return Result(
        dataset=task.name,
        split=task.split,
        protocol=options.protocol,
        seen=options.seen,
        cases=len(asked[0]),
        lines=tuple(replace(line, against=against.get(line.name)) for line in lines),
        dropped=dict(asked[0].dropped),
        sample=options.sample,
        items=task.n_items,
        origin=Origin.here(
            task.hash(), command, max(time.perf_counter() - started, sum(one.seconds for one in answers))
        ),
        seeds=tuple(options.seeds),
        embedder=embedder or None,
    )


def _fit_and_ask(
    name: str, make: Make, asked: Sequence[Asked], options: Options, kept: Kept | None, reporter: Reporter
) -> _Answers:
    measured, popular, fit_seconds, seconds = list[Measured](), list[Measured](), 0.0, 0.0
    system = make(options.seeds[0])
    seeds = options.seeds if system.seeded else ()
    for seed in seeds or options.seeds[:1]:
        system = make(seed)
        found, took, where = _answered(name, seed, system, asked, options, kept, reporter)
        fit_seconds += took
        seconds += took + found[0].seconds
        measured.append(found[0])
        popular += found[1:]
    each = len(measured) * len(asked[0])
    line = Line(
        name=name,
        uses=tuple(system.uses),
        settings={}
        if system.settings is None
        else json.loads(json.dumps(asdict(system.settings))),  # lists, as JSON has them
        fit_seconds=round(fit_seconds / len(measured), 2),
        score_ms=round(1000 * sum(one.seconds for one in measured) / each, 4),
        tokens=_tokens(measured, each),
        ceiling=_ceiling(system, measured),
        seeds=seeds,
        machine=where if where and where != machine() else None,
    )
    return _Answers(line, measured, popular, seconds)


def _answered(
    name: str,
    seed: int,
    system: System,
    asked: Sequence[Asked],
    options: Options,
    kept: Kept | None,
    reporter: Reporter,
) -> tuple[list[Measured], float, str]:
    """What a system answers to each set of candidates, the seconds of fitting it, and the machine; from earlier where
    they are kept."""
    file = kept.file(name, seed if system.seeded else 0, system) if kept else None
    if kept and file and file.is_file():
        reporter.note(f"{name}: answered before, see {file}")
        return kept.read(file)
    reporter.tell(f"Fitting {name}" + (f", seed {seed}" if len(options.seeds) > 1 and system.seeded else ""))
    began = time.perf_counter()
    fitted = leaks.fit(system, asked[0].task, reporter.note)
    # What was trained before, and is kept, took its time then.
    took = max(time.perf_counter() - began, system.training_cost.get("seconds", 0.0))
    remember = partial(kept.piece, file) if kept and file else None
    found = measure_all(fitted, asked, seed=options.seed, tell=reporter.tell, remember=remember)
    if kept and file:
        kept.write(file, found, took)
    return found, took, machine()


def _tokens(measured: Sequence[Measured], each: int) -> MeanTokens | None:
    used = [one.used for one in measured if one.used is not None]
    if not used:
        return None
    prompt, completion, cached = (
        sum(column) for column in zip(*((one.prompt, one.completion, one.cached) for one in used), strict=True)
    )
    return MeanTokens(round(prompt / each, 1), round(completion / each, 1), round(cached / each, 1))


def _ceiling(system: System, measured: Sequence[Measured]) -> Ceiling | None:
    reached = [one.ceiling for one in measured if one.ceiling is not None]
    return Ceiling(system.depth, rounded(np.mean(reached))) if reached and isinstance(system, Reranker) else None


def _read(run: Rankings, asked: Sequence[Asked]) -> _Answers:
    names = case_ids(asked[0].task, asked[0].cases)
    everybody = set(case_ids(asked[0].task, asked[0].task.test))
    missing, unknown = sum(name not in run.lists for name in names), sum(name not in everybody for name in run.lists)
    if missing == len(names):
        raise SettingsError(
            f"The run {run.name} has a list for none of the {len(names):,} cases; is it of this store and split?"
        )
    measured, *popular = [measure_lists(run, one) for one in asked]
    line = Line(run.name, ("run",), {"lists": len(run.lists)}, missing_cases=missing, unknown_cases=unknown)
    return _Answers(line, [measured], popular)


# ── Figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _metrics(protocol: str) -> dict[str, Callable[[Places], Values]]:
    if protocol == "sampled":  # T 5.1
        found = {
            f"{name}@{k}": _at(metric, k) for k in (3, 5, 10) for name, metric in (("recall", recall), ("mrr", mrr))
        }
        return {**found, MAIN: _at(ndcg, 10)}
    return {
        "recall@10": _at(recall, 10),
        MAIN: _at(ndcg, 10),
        "mrr": mrr,
        **{f"recall@{k}": _at(recall, k) for k in (1, 5, 50)},
    }


def _at(metric: Callable[[Places, int], Values], k: int) -> Callable[[Places], Values]:
    return lambda at: metric(at, k)


def _values(measured: Sequence[Measured], protocol: str) -> dict[str, Values]:
    """float64[n] of each metric: the mean over seeds of each case's value."""
    return {
        name: np.mean([metric(one.places) for one in measured], axis=0) for name, metric in _metrics(protocol).items()
    }


def _differences(values: Mapping[str, Mapping[str, Values]], users: Rows, options: Options) -> dict[str, Against]:
    """NDCG@10 of every system less the best's, and of the best less the second's: interval, p, and p among that many
    comparisons."""
    if len(values) < 2:
        return {}
    means = {name: float(found[MAIN].mean()) for name, found in values.items()}
    best, second, *_ = sorted(means, key=lambda name: (-means[name], name))
    others = [name for name in values if name != best]
    table = np.stack([values[name][MAIN] - values[best][MAIN] for name in others], axis=1)
    found = intervals(table, users, resamples=options.resamples, seed=options.seed)
    p_values = sign_flips(table, users, resamples=options.flips, seed=options.seed)
    against = {}
    for name, one, p, adjusted in zip(others, found, p_values, holm(p_values), strict=True):
        against[name] = Against(best, Figure.of(one), rounded(p), rounded(adjusted))
        if name == second:  # the same comparison, seen from the best
            turned = Figure(rounded(-one.mean), rounded(-one.high), rounded(-one.low))
            against[best] = Against(second, turned, rounded(p), rounded(adjusted))
    return against


def _with_figures(answers: _Answers, asked: Asked, values: Mapping[str, Values], options: Options) -> Line:
    task, measured, whole = asked.task, answers.measured, asked.candidates is None
    found = intervals(
        np.stack(list(values.values()), axis=1), asked.cases.user, resamples=options.resamples, seed=options.seed
    )
    metrics = {name: Figure.of(one) for name, one in zip(values, found, strict=True)}
    if whole:  # what stands first among 21 says nothing of a whole catalogue
        metrics["coverage@10"] = Figure(rounded(np.mean([coverage(one.first, task.n_items) for one in measured])))
        metrics["novelty@10"] = Figure(rounded(np.mean([novelty(one.first, task) for one in measured])))
    metrics["invalid"] = Figure(rounded(np.mean([one.invalid.mean() for one in measured])))
    metrics["unranked"] = Figure(rounded(np.mean([one.unranked.mean() for one in measured])))
    is_cold = ~np.isin(asked.cases.target, task.train.item)
    curve = {
        k: rounded(np.mean([recall(one.places, k).mean() for one in measured]))
        for k in (CURVE if whole else DRAWN_CURVE)
    }
    groups = {name: _group(values, rows) for name, rows in (("cold", is_cold), ("warm", ~is_cold))}
    popular = (
        {name: rounded(column.mean()) for name, column in _values(answers.popular, options.protocol).items()}
        if answers.popular
        else None
    )
    return replace(answers.line, metrics=metrics, groups=groups, curve=curve, popular=popular)


def _group(values: Mapping[str, Values], rows: NDArray[np.bool_]) -> Group:
    return Group(
        int(rows.sum()),
        {name: rounded(values[name][rows].mean()) for name in ("recall@10", MAIN)} if rows.any() else {},
    )


def coverage(first: Rows, n_items: int) -> float:
    """The share of all items that stand among the first of somebody's list; it grows with the number of cases."""
    return len(np.unique(first[first >= 0])) / n_items


def novelty(first: Rows, task: Task) -> float:
    """Bits of surprise of a recommended item, the mean of -log2 of its share of the train events; every item counts one
    event more than it has, so that one without any is as surprising as it can be without being infinitely so. 0 where
    nothing is recommended."""
    count = np.bincount(task.train.item, minlength=task.n_items) + 1.0
    bits = -np.log2(count / count.sum())
    shown = first[first >= 0]
    return float(bits[shown].mean()) if len(shown) else 0.0
