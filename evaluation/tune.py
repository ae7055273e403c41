"""Settings of the baselines chosen on validation cases, the same number of trials and minutes for each. Command:
`recgraph tune`.

A system's first trial are the settings it has now; the others are drawn, with a seed, from its space below, over those.
A trial is fitted on train, of a share of the users if wanted, and judged by NDCG@10 on all validation cases, without
the history's items. Test cases are taken out of the task before, so nothing here can see them. (The neural ones also
stop by validation cases: a trial's figure is a little too good, and equally so for all settings.)

Each trial is a line of a file as soon as it is done; the same call reads it and goes on. How a system works is unknown
here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.errors import SettingsError
from recgraph.evaluation.ask import Options, ask, measure
from recgraph.evaluation.systems import Entry, entries
from recgraph.evaluation.workshop import Settings, Workshop
from recgraph.store.db import Store
from recgraph.train.metrics import ndcg
from recgraph.train.task import Note, Task, fewer_users, read_task

Space = Mapping[str, tuple[Any, ...]]

_SEQUENCE: Space = {
    "dim": (64, 128),
    "dropout": (0.2, 0.3, 0.4, 0.5),
    "learning_rate": (1e-3, 2e-3, 3e-3, 5e-3),
    "negatives": (512, 1024, 2048),
    "batch": (256, 512),
    "temperature": (0.05, 0.07, 0.1),
}
_ATTENTION: Space = {**_SEQUENCE, "attention_dropout": (0.0, 0.2), "layers": (1, 2)}
_PAIRS: Space = {
    "dropout": (0.1, 0.3, 0.5),
    "learning_rate": (1e-3, 2e-3, 4e-3),
    "temperature": (0.05, 0.07, 0.1),
    "loss": ("softmax", "bce"),
}
SPACES: Mapping[str, Space] = {
    "popular-7d": {"days": (1.0, 3.0, 7.0, 14.0, 30.0, 90.0)},
    "text-knn": {"recency": (0.1, 0.2, 0.4, 0.6, 0.8)},
    "word-knn": {"recency": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)},
    "statistics": {
        "weights": ((1.0, 0.5, 1.0), (1.0, 0.5, 2.5), (1.0, 1.0, 1.0), (1.0, 0.25, 2.5), (1.0, 0.5, 4.0)),
        "power": (0.25, 0.5, 1.0),
    },
    "transitions": {"recency": (0.4, 0.6, 0.8), "window": (3, 10, 50), "out": (0.0, 0.3, 0.5), "into": (0.0, 0.1, 0.3)},
    "item-knn": {"recency": (0.5, 0.7, 0.9), "shrink": (5.0, 20.0, 40.0, 80.0), "user_power": (0.0, 0.5)},
    "session-knn": {
        "neighbours": (50, 100, 500),
        "recency": (0.4, 0.6, 0.8),
        "rarity": (0.0, 0.5, 1.0),
        "long": (0.0, 0.3, 0.5),
    },
    "gru4rec": {**_SEQUENCE, "hidden": (64, 128, 256)},
    "narm": {**_SEQUENCE, "hidden": (64, 128, 256)},
    "nextitnet": {**_SEQUENCE, "dilations": ((1,), (1, 4), (1, 4, 1, 4))},
    "sasrec-bce": {name: values for name, values in _ATTENTION.items() if name not in ("negatives", "temperature")},
    "sasrec": _ATTENTION,
    "sasrec-text": _ATTENTION,
    "textformer": {**_ATTENTION, "dim": (64, 128, 256)},
    "bert4rec": {**_ATTENTION, "masked": (0.2, 0.4, 0.6), "last_share": (0.0, 0.3, 0.6)},
    "core": {
        "hidden_dropout": (0.2, 0.4),
        "session_dropout": (0.2, 0.4, 0.6),
        "item_dropout": (0.0, 0.2, 0.4),
        "learning_rate": (1e-3, 3e-3, 5e-3),
        "temperature": (0.05, 0.07, 0.1),
    },
    "ncf": {**_PAIRS, "recency": (0.6, 0.8, 1.0), "negatives": (256, 1024)},
    "din": {**_PAIRS, "hidden": (8, 16, 32), "negatives": (32, 64)},
    "dien": {**_PAIRS, "hidden": (8, 16, 32), "negatives": (32, 64)},
}


@dataclass(frozen=True)
class Budget:
    """What each system gets: `trials`, none of them begun after `minutes` of trials, each fitted on a `share` of the
    users with the `seed`."""

    trials: int = 6
    minutes: float = 10.0
    share: float = 1.0
    seed: int = 7

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SettingsError(f"trials is {self.trials}; it must be at least 1.")
        if self.minutes <= 0 or not 0 < self.share <= 1:
            raise SettingsError(
                f"minutes is {self.minutes} and share {self.share}; "
                "minutes must be above 0, a share above 0 and at most 1."
            )


@dataclass(frozen=True)
class Trial:
    """One fit: `settings` are those that differ from the system's own defaults, `ndcg` is NDCG@10 on validation,
    `seconds` those of fit and answers, `asked` the hash of the data with share and seed, so that a trial of another
    question is not taken for an answer to this one."""

    system: str
    settings: Settings
    ndcg: float
    seconds: float
    asked: str


def spaces(names: Sequence[str]) -> dict[str, Space]:
    """The space of each; SettingsError for a system without one."""
    for name in names:
        if name not in SPACES:
            raise SettingsError(f"'{name}' has no settings to be tuned. Systems that have: {', '.join(SPACES)}.")
    return {name: SPACES[name] for name in names}


def tune(
    task: Task, names: Sequence[str], workshop: Workshop, budget: Budget, file: Path, note: Note = lambda _: None
) -> dict[str, list[Trial]]:
    """The trials of each system, the first with the workshop's settings; those that are in the JSON lines of `file` are
    not run again.

    SettingsError for a system without a space and for a task without validation cases, and what fitting raises.
    """
    found = {name: settings_to_try(name, workshop.tuned.get(name) or {}, budget) for name in spaces(names)}
    blind = replace(task, test=task.test.of(np.zeros(0, np.int64)))
    asked = f"{blind.hash()} share {budget.share} seed {budget.seed}"
    done = [trial for trial in read_trials(file) if trial.asked == asked]
    judge = _judge(blind, workshop, budget)
    trials: dict[str, list[Trial]] = {}
    for name, wanted in found.items():
        trials[name] = []
        for number, settings in enumerate(wanted):
            if sum(trial.seconds for trial in trials[name]) >= budget.minutes * 60:
                break
            trial = next((one for one in done if (one.system, one.settings) == (name, settings)), None)
            if trial is None:
                note(f"{name}: trial {number + 1} of {len(wanted)}, {settings or 'as it is'}")
                value, seconds = judge(entries([name])[name], settings, note)
                trial = Trial(name, settings, round(value, 5), round(seconds, 1), asked)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(trial)) + "\n")
            trials[name].append(trial)
    return trials


def tune_store(
    split: str, names: Sequence[str], workshop: Workshop, budget: Budget, out: Path, note: Note = lambda _: None
) -> dict[str, list[Trial]]:
    """Tunes on the workshop's store and writes the block of the best to `out`, its trials beside it. SettingsError, and
    as `tune`."""
    if workshop.store is None:
        raise SettingsError("There is no store to tune on; name one with --store.")
    with Store.open(workshop.store) as opened:
        task = read_task(opened, workshop.store.stem, split)
    trials = tune(task, names, workshop, budget, out.with_suffix(".jsonl"), note)
    out.write_text(as_block(trials, budget), encoding="utf-8")
    return trials


def settings_to_try(name: str, current: Settings, budget: Budget) -> list[dict[str, Any]]:
    """The current settings, then drawn ones, all different; fewer where the space is small. As JSON has them: lists for
    tuples."""
    space, rng = SPACES[name], np.random.default_rng([budget.seed, *name.encode()])
    found = [_plain(current)]
    for _ in range(20 * budget.trials):
        if len(found) == budget.trials:
            break
        drawn = {setting: values[rng.integers(len(values))] for setting, values in space.items()}
        tried = _plain({**current, **drawn})
        if tried not in found:
            found.append(tried)
    return found


def best(trials: Sequence[Trial]) -> Trial:
    """The one with the highest figure, of equals the first."""
    return max(trials, key=lambda trial: trial.ndcg)


def read_trials(file: Path) -> list[Trial]:
    """The trials of a file, none where there is no file. A last line that a kill cut off is left out, and taken out of
    the file."""
    if not file.is_file():
        return []
    whole = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    file.write_text("".join(whole), encoding="utf-8")
    try:
        return [Trial(**json.loads(line)) for line in whole]
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{file} has a line that is no trial ({error}); mend it, or give another --out.") from None


def as_block(found: Mapping[str, Sequence[Trial]], budget: Budget) -> str:
    """The block `baselines` of params.yaml with each system's best settings, and the budget as a comment."""
    share = "" if budget.share == 1 else f", on {budget.share:g} of the users"
    each = f"{budget.trials} trials and {budget.minutes:g} minutes a system"
    head = f"# recgraph tune: {each}, seed {budget.seed}{share}; NDCG@10 on validation\n"
    lines = []
    for name, trials in found.items():
        one = best(trials)
        settings = ", ".join(f"{setting}: {json.dumps(value)}" for setting, value in one.settings.items())
        lines.append(
            f"  {name}: {{{settings}}}  # {one.ndcg:.4f}, trial {list(trials).index(one) + 1} of {len(trials)}\n"
        )
    return head + "baselines:\n" + "".join(lines)


def _judge(task: Task, workshop: Workshop, budget: Budget) -> Callable[[Entry, Settings, Note], tuple[float, float]]:
    """What fits a system with settings and gives its NDCG@10 on validation and the seconds."""
    asked = ask(task, Options(), cases=task.valid)
    learn = task if budget.share == 1 else fewer_users(task, budget.share, budget.seed)

    def judge(entry: Entry, settings: Settings, note: Note) -> tuple[float, float]:
        began = time.perf_counter()
        system = entry.make(replace(workshop, tuned={entry.name: settings}), budget.seed)
        system.fit(learn, note)
        value = float(ndcg(measure(system, asked).places, 10).mean())
        return value, time.perf_counter() - began

    return judge


def _plain(settings: Settings) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return plain
