"""Fits systems, asks them all the same (evaluation/ask.py) and compares: figures, intervals, tests, the result. Command: `recgraph evaluate`.

All figures are means over the same cases. With one right answer a case the hit rate is the recall, so it has no column of its own. Which
systems there are is unknown here; so are commands and tables.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, is_dataclass, replace
from datetime import UTC, datetime
from functools import partial
from os import cpu_count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recgraph.errors import SettingsError
from recgraph.evaluation.ask import Asked, Measured, Options, Tell, Values, ask, measure_all, measure_lists
from recgraph.evaluation.rankings import Rankings, case_ids
from recgraph.evaluation.statistics import holm, intervals, sign_flips
from recgraph.settings import load_settings
from recgraph.tools.llm.protocol import Usage
from recgraph.train import leaks
from recgraph.train.metrics import Places, mrr, ndcg, recall
from recgraph.train.task import Cases, Note, Rows, System, Task, drawn

CURVE = (1, 5, 10, 20, 50, 100)
DRAWN_CURVE = (1, 3, 5, 10, 20)
TOKENS = ("prompt", "completion", "cached")  # of a recommendation, where a language model takes part

Make = Callable[[int], System]  # from a seed


@dataclass(frozen=True)
class _Line:
    """A system's answers with each seed (one where none is used) and what is told of it."""

    name: str
    facts: dict[str, Any]
    seeds: list[int]
    measured: list[Measured]
    popular: list[Measured]  # under negatives drawn by popularity; empty in other protocols
    spent: float = 0.0  # seconds of fitting and asking, also where that was in an earlier evaluation


def evaluate(
    task: Task,
    systems: Mapping[str, Make],
    cases: Cases | None = None,
    options: Options | None = None,
    *,
    runs: Sequence[Rankings] = (),
    note: Note = lambda _: None,
    tell: Tell = lambda *_: None,
    command: str = "",
    keep: Path | None = None,
) -> dict[str, Any]:
    """Fits the systems on a task, asks them and the `runs`, and compares; gives the result as it is kept in metrics/leaderboard.

    With a folder `keep` what a system answered is kept there, and a system that was asked the same before (equal data, options, settings and
    code of the models) is not fitted again: a killed evaluation goes on where it was, and a system more costs only its own time. The `seconds` of
    the result count what it cost then.
    A system that has no seed among its settings is fitted once. Values of a case are means over the seeds; intervals and tests draw users.
    SettingsError for a leak (train/leaks.py), a protocol without cases and scores that are none, and what fitting raises.
    """
    options, started = options or Options(), time.perf_counter()
    leaks.check_task(task, systems)
    asked = [ask(task, options, cases=cases)]
    if options.protocol == "sampled" and options.negatives == "both":
        asked.append(replace(asked[0], candidates=drawn(task, asked[0].cases, options.seed, popular=True)))
    kept = _Kept(keep, task.hash(), options) if keep else None
    lines = [_fit_and_ask(name, make, asked, options, kept, note, tell) for name, make in systems.items()]
    lines += [_read(run, asked) for run in runs]
    if not lines:
        raise SettingsError("There is nothing to evaluate; name systems or a run.")
    values = {line.name: _values(line.measured, options.protocol) for line in lines}
    if len(values) < len(lines):
        raise SettingsError(f"Two systems have one name, of: {', '.join(line.name for line in lines)}.")
    against = _against(values, asked[0].cases.user, options)
    return {
        "dataset": task.name,
        "split": task.split,
        "protocol": options.protocol,
        "seen": options.seen,
        "cases": len(asked[0]),
        "dropped": dict(asked[0].dropped),
        "sample": options.sample,
        "items": task.n_items,
        "data_hash": task.hash(),
        "revision": revision(),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": round(max(time.perf_counter() - started, sum(line.spent for line in lines)), 1),
        "seeds": list(options.seeds),
        **({"embedder": load_settings().embedder} if load_settings().embedder else {}),
        "systems": [_told(line, asked[0], values[line.name], against.get(line.name), options) for line in lines],
    }


@dataclass(frozen=True)
class _Kept:
    """Answers of earlier evaluations, a file a system and seed, named by all that decides them."""

    folder: Path
    data_hash: str
    options: Options

    def file(self, name: str, seed: int, system: System) -> Path:
        """Where these answers are or would be."""
        o, settings = self.options, getattr(system, "settings", None)
        code = _code(getattr(system, "made_by", type(system)).__module__)
        told = [code, self.data_hash, o.protocol, o.seen, o.sample, o.seed, name, seed, repr(settings)]
        told += [o.negatives] if o.negatives != "both" else []
        told += [load_settings().embedder] if load_settings().embedder else []
        return self.folder / f"{name}-{seed}-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}.npz"

    def read(self, file: Path) -> tuple[list[Measured], float]:
        """The answers to each set of candidates, and the seconds of fitting."""
        with np.load(file, allow_pickle=False) as found:
            parts = zip(found["better"], found["equal"], found["first"], found["invalid"], strict=True)
            used = [Usage(*map(int, one)) for one in found["used"]] if "used" in found else [None] * len(found["better"])
            ceiling = [*found["ceiling"]] if "ceiling" in found else [None] * len(found["better"])
            seconds = found["seconds"] if found["seconds"].ndim else [found["seconds"]] * len(used)
            measured = [
                Measured(Places(better, equal), first, invalid, float(took), tokens, reached)
                for (better, equal, first, invalid), took, tokens, reached in zip(parts, seconds, used, ceiling, strict=True)
            ]
            return measured, float(found["fit_seconds"])

    def piece(self, file: Path, name: str, make: Callable[[], Measured]) -> Measured:
        """A part of answers that are still being made."""
        part = file.with_suffix("") / f"{name}.npz"
        if not part.is_file():
            self.write(part, [make()], 0.0)
        return self.read(part)[0][0]

    def write(self, file: Path, measured: Sequence[Measured], fit_seconds: float) -> None:
        columns: dict[str, Any] = {"better": [one.places.better for one in measured], "equal": [one.places.equal for one in measured]}
        columns |= {"first": [one.first for one in measured], "invalid": [one.invalid for one in measured]}
        columns |= {"seconds": [one.seconds for one in measured], "fit_seconds": fit_seconds}
        if measured[0].used is not None:
            columns["used"] = [astuple(one.used) for one in measured if one.used is not None]
        if measured[0].ceiling is not None:
            columns["ceiling"] = [one.ceiling for one in measured]
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, **columns)
        part.replace(file)  # a kill while writing leaves no half file under the name


def _code(module: str) -> str:
    """Of a module and what it imports at its top from tools and train: a change there makes another system, a change elsewhere does not. What
    makes a task is left out, as the hash of its data says it, and the pipeline, from which models have their progress bars."""
    others = ("recgraph.train.task", "recgraph.train.pipeline")
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in others or not name.startswith(("recgraph.evaluation.", "recgraph.train.", "recgraph.tools.")):
            continue
        loaded = sys.modules[name]
        found[name] = Path(str(loaded.__file__)).read_bytes()
        waiting += [thing.__name__ if isinstance(thing, ModuleType) else str(getattr(thing, "__module__", "")) for thing in vars(loaded).values()]
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()


def _fit_and_ask(name: str, make: Make, asked: Sequence[Asked], options: Options, kept: _Kept | None, note: Note, tell: Tell) -> _Line:
    measured, popular, fit_seconds, spent, seeds = [], [], 0.0, 0.0, []
    system = make(options.seeds[0])
    seeded = hasattr(getattr(system, "settings", None), "seed")
    for seed in options.seeds if seeded else options.seeds[:1]:
        system = make(seed)
        file = kept.file(name, seed if seeded else 0, system) if kept else None
        if kept and file and file.is_file():
            note(f"{name}: answered before, see {file}")
            found, took = kept.read(file)
        else:
            tell(f"Fitting {name}" + (f", seed {seed}" if len(options.seeds) > 1 and seeded else ""))
            began = time.perf_counter()
            untold = leaks.fit(system, asked[0].task, note)
            # What was trained before, and is kept, took its time then.
            took = max(time.perf_counter() - began, getattr(system, "training_cost", {}).get("seconds", 0.0))
            found = measure_all(untold, asked, seed=options.seed, tell=tell, remember=partial(kept.piece, file) if kept and file else None)
            if kept and file:
                kept.write(file, found, took)
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        fit_seconds += took
        spent += took + found[0].seconds
        measured.append(found[0])
        popular += found[1:]
        seeds += [seed] if seeded else []
    settings = getattr(system, "settings", None)
    facts = {
        "uses": list(getattr(make, "uses", getattr(system, "uses", ("ids",)))),
        "settings": asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {},
        "fit_seconds": round(fit_seconds / len(measured), 2),
        "score_ms": round(1000 * sum(one.seconds for one in measured) / len(measured) / len(asked[0]), 4),
    }
    if measured[0].used is not None:
        facts["tokens"] = {part: round(sum(getattr(one.used, part) for one in measured) / len(measured) / len(asked[0]), 1) for part in TOKENS}
    if measured[0].ceiling is not None:
        facts["ceiling"] = {"depth": getattr(system, "depth", 0), "recall": _short(np.mean([one.ceiling for one in measured]))}
    return _Line(name, facts, seeds, measured, popular, spent)


def _read(run: Rankings, asked: Sequence[Asked]) -> _Line:
    names = case_ids(asked[0].task, asked[0].cases)
    everybody = set(case_ids(asked[0].task, asked[0].task.test))
    facts: dict[str, Any] = {"uses": ["run"], "settings": {"lists": len(run.lists)}, "fit_seconds": None, "score_ms": None}
    facts["missing_cases"] = sum(name not in run.lists for name in names)
    facts["unknown_cases"] = sum(name not in everybody for name in run.lists)
    if facts["missing_cases"] == len(names):
        raise SettingsError(f"The run {run.name} has a list for none of the {len(names):,} cases; is it of this store and split?")
    measured, *popular = [measure_lists(run, one) for one in asked]
    return _Line(run.name, facts, [], [measured], popular)


def _metrics(protocol: str) -> dict[str, Callable[[Places], Values]]:
    if protocol == "sampled":  # T 5.1
        found = {f"{name}@{k}": _at(metric, k) for k in (3, 5, 10) for name, metric in (("recall", recall), ("mrr", mrr))}
        return {**found, "ndcg@10": _at(ndcg, 10)}
    return {"recall@10": _at(recall, 10), "ndcg@10": _at(ndcg, 10), "mrr": mrr, **{f"recall@{k}": _at(recall, k) for k in (1, 5, 50)}}


def _at(metric: Callable[[Places, int], Values], k: int) -> Callable[[Places], Values]:
    return lambda at: metric(at, k)


def _values(measured: Sequence[Measured], protocol: str) -> dict[str, Values]:
    """float64[n] of each metric: the mean over seeds of each case's value."""
    return {name: np.mean([metric(one.places) for one in measured], axis=0) for name, metric in _metrics(protocol).items()}


def _against(values: Mapping[str, Mapping[str, Values]], users: Rows, options: Options) -> dict[str, dict[str, Any]]:
    """NDCG@10 of every system less the best's, and of the best less the second's: interval, p, and p among that many comparisons."""
    if len(values) < 2:
        return {}
    means = {name: float(found["ndcg@10"].mean()) for name, found in values.items()}
    best, second, *_ = sorted(means, key=lambda name: (-means[name], name))
    others = [name for name in values if name != best]
    table = np.stack([values[name]["ndcg@10"] - values[best]["ndcg@10"] for name in others], axis=1)
    found = intervals(table, users, resamples=options.resamples, seed=options.seed)
    p_values = sign_flips(table, users, resamples=options.flips, seed=options.seed)
    told = {}
    for name, one, p, adjusted in zip(others, found, p_values, holm(p_values), strict=True):
        chances = {"p": _short(p), "p_holm": _short(adjusted)}
        told[name] = {"best": best, "difference": _short(one.mean), "low": _short(one.low), "high": _short(one.high), **chances}
        if name == second:  # the same comparison, seen from the best
            turned = {"difference": _short(-one.mean), "low": _short(-one.high), "high": _short(-one.low)}
            told[best] = {"best": second, **turned, **chances}
    return told


def _told(line: _Line, asked: Asked, values: Mapping[str, Values], against: dict[str, Any] | None, options: Options) -> dict[str, Any]:
    """A system's part of the result."""
    users, task = asked.cases.user, asked.task
    found = intervals(np.stack(list(values.values()), axis=1), users, resamples=options.resamples, seed=options.seed)
    metrics = {name: {"mean": _short(one.mean), "low": _short(one.low), "high": _short(one.high)} for name, one in zip(values, found, strict=True)}
    measured = line.measured
    if asked.candidates is None:  # what stands first among 21 says nothing of a whole catalogue
        metrics["coverage@10"] = {"mean": _short(np.mean([coverage(one.first, task.n_items) for one in measured]))}
        metrics["novelty@10"] = {"mean": _short(np.mean([novelty(one.first, task) for one in measured]))}
    metrics["invalid"] = {"mean": _short(np.mean([one.invalid.mean() for one in measured]))}
    metrics["unranked"] = {"mean": _short(np.mean([one.unranked.mean() for one in measured]))}
    is_cold = ~np.isin(asked.cases.target, task.train.item)
    shown = ("recall@10", "ndcg@10")
    told = {
        "name": line.name,
        **line.facts,
        "seeds": line.seeds,
        "metrics": metrics,
        "groups": {name: _group(values, rows, shown) for name, rows in (("cold", is_cold), ("warm", ~is_cold))},
        "curve": {
            str(k): _short(np.mean([recall(one.places, k).mean() for one in measured])) for k in (CURVE if asked.candidates is None else DRAWN_CURVE)
        },
    }
    if against:
        told["against"] = against
    if line.popular:
        told["popular_negatives"] = {name: _short(column.mean()) for name, column in _values(line.popular, options.protocol).items()}
    return told


def _group(values: Mapping[str, Values], rows: NDArray[np.bool_], shown: Sequence[str]) -> dict[str, Any]:
    return {"cases": int(rows.sum()), **({name: _short(values[name][rows].mean()) for name in shown} if rows.any() else {})}


def coverage(first: Rows, n_items: int) -> float:
    """The share of all items that stand among the first of somebody's list; it grows with the number of cases."""
    return len(np.unique(first[first >= 0])) / n_items


def novelty(first: Rows, task: Task) -> float:
    """Bits of surprise of a recommended item, the mean of -log2 of its share of the train events; every item counts one event more than it
    has, so that one without any is as surprising as it can be without being infinitely so. 0 where nothing is recommended."""
    count = np.bincount(task.train.item, minlength=task.n_items) + 1.0
    bits = -np.log2(count / count.sum())
    shown = first[first >= 0]
    return float(bits[shown].mean()) if len(shown) else 0.0


def _short(number: Any) -> float:
    return round(float(number), 6)


# ── What a result says of where it was made ──────────────────────────────────────────────────────────────────────────────────────────


def revision() -> str:
    """The commit of this code, with "+" where files differ from it; "" where it is no checkout."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        told = [
            subprocess.run(["git", "-C", str(folder), *what], capture_output=True, text=True, check=True).stdout.strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told[0] + ("+" if told[1] else "")


def machine() -> str:
    """The processor's name and how many processors there are."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {cpu_count()} CPUs"
