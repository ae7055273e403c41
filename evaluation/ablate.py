"""Ablations: the product's own recommender over held-out cases, as of their moment, in several variants. Command: `recgraph ablate NAME`.

    table3       F table 3: without product attributes, query-product memory, text embedding, ID embedding, and combinations
    mixup        F 4.4: how many items of the ID list come before the title list
    history      T figure 9: how many recent items the prompts show, in both paradigms
    models       T figures 10 and 11: base models, from a list of folders
    perplexity   F 4.3: adapters before and after the hard examples were trained further
    constrained  whether the answer may name the products shown, the whole catalogue's, or anything

Every variant is a few settings of recgraph (recgraph/settings.py) over the same cases in the same order; the first is what the others are compared
with, case by case. What a case was answered is a line in a file named by all that decides it, so a killed ablation goes on where it was.
Nothing is written into the store but vectors of its own texts. Tables and options are unknown here.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.errors import SettingsError
from recgraph.evaluation.compare import TOKENS, machine, revision
from recgraph.evaluation.rankings import case_ids
from recgraph.evaluation.statistics import holm, intervals, sign_flips
from recgraph.graph.recommendation import Recommendation
from recgraph.graph.recommender import Recommender
from recgraph.graph.state import State
from recgraph.settings import PARADIGMS, Settings
from recgraph.store.db import Store
from recgraph.store.records import EPOCH
from recgraph.train.metrics import MISS, Places, mrr, ndcg, recall
from recgraph.train.task import Cases, Note, Task, read_task

NAMES = ("table3", "mixup", "history", "models", "perplexity", "constrained")
MIXUPS = (1, 0, 2, 5, 10, 20)  # F: 1
HISTORY = range(11)
DEPTH = 20  # products a recommendation is asked for; all of them are the candidates that are reranked
PATIENCE = 600.0  # seconds for a recommendation: here none may fall back because the machine is slow

Tell = Callable[..., None]


@dataclass(frozen=True)
class Variant:
    """A name and the settings that make it; the others are those of all variants."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What became of a case: the target's rank from 1 (0: not among the candidates), whether the LLM's answer named no product, whether
    something had to be done without, tokens and milliseconds."""

    case: str
    rank: int
    invalid: bool
    degraded: bool
    prompt: int
    completion: int
    cached: int
    ms: float


def variants(name: str, *, models: Sequence[str] = (), adapters: Sequence[str] = (), encoder: str = "") -> list[Variant]:
    """The variants of an ablation, the one to compare with first. SettingsError for an unknown name, or too few models or adapters."""
    paper = {"mode": "paper", "rerank_weight": 0.0}  # F 4.4 has no Yes/No after retrieval
    if name == "table3":
        ours, plain, forgetful = {**paper, "mixup": 1}, {"attributes": "hidden"}, {"memory_queries": 0}
        text, ids = {"mixup": 0}, {"mixup": DEPTH}
        found = [
            Variant("ours", ours),
            Variant("w/o product attributes", {**ours, **plain}),
            Variant("w/o query-product memory", {**ours, **forgetful}),
            Variant("w/o text embedding", {**ours, **ids}),
            Variant("w/o id embedding", {**ours, **text}),
            Variant("w/o q.p.m. & id emb.", {**ours, **forgetful, **text}),
            Variant("w/o q.p.m. & id. & pro. a.", {**ours, **forgetful, **text, **plain}),
        ]
        return [*found, Variant(f"w/ {Path(encoder).name} text embedding", {**ours, "embedder": encoder})] if encoder else found
    if name == "mixup":
        return [Variant(f"N={n}", {**paper, "mixup": n}) for n in MIXUPS]
    if name == "history":
        sizes = sorted(HISTORY, key=lambda size: (size != Settings.recent, size))
        return [Variant(f"{paradigm}, {n} items", {"paradigm": paradigm, "recent": n, "rerank_weight": 1.0}) for paradigm in PARADIGMS for n in sizes]
    if name == "models":
        _several(models, "models", "folders or hub ids")
        return [Variant(Path(model).name, {"llm": model, "adapter": "none", "rerank_weight": 1.0}) for model in models]
    if name == "perplexity":
        _several(adapters, "adapters", "adapter sets: without and with the further training")
        return [Variant(one, {**paper, "adapter": one}) for one in adapters]
    if name == "constrained":
        return [Variant(f"constrain {one}", {**paper, "constrain": one}) for one in ("shown", "catalogue", "off")]
    raise SettingsError(f"'{name}' is no ablation. Ablations: {', '.join(NAMES)}.")


def _several(given: Sequence[str], option: str, what: str) -> None:
    if len(set(given)) < max(2, len(given)):
        raise SettingsError(f"--{option} names {len(set(given))} of {len(given)}; give at least two different {what}, with commas between.")


class _Quiet(Recommender):
    """The product's recommender, leaving nothing behind: the summaries of one variant must not make the next one cheaper."""

    def _save(self, state: State) -> list[str]:
        return []

    def _log(self, found: Recommendation) -> str | None:
        return None


def open_recommender(store: Path, settings: Mapping[str, Any]) -> Recommender:
    """The product over a store. Raises what `Recommender.open` raises."""
    return _Quiet.open(store, **settings)


def ablate(
    store: Path,
    name: str,
    chosen: Sequence[Variant],
    *,
    split: str = "time",
    count: int = 100,
    seed: int = 7,
    common: Mapping[str, Any] | None = None,
    keep: Path,
    opener: Callable[[Path, Mapping[str, Any]], Recommender] = open_recommender,
    note: Note = lambda _: None,
    tell: Tell = lambda *_: None,
    command: str = "",
) -> dict[str, Any]:
    """Asks every variant the same `count` seeded test cases (0: all) and compares; gives what is kept in metrics/ablations/NAME.json.

    `common` are settings of all variants, unless they have their own. SettingsError for an unknown setting, or a store without test cases.
    """
    started = time.perf_counter()
    whole = {"k": DEPTH, "candidates": DEPTH, "deadline": PATIENCE, **(common or {})}
    known = {one.name for one in fields(Settings)}
    for setting in (setting for one in chosen for setting in (*whole, *one.settings)):
        if setting not in known:
            raise SettingsError(f"'{setting}' is no setting of recgraph. Known: {', '.join(sorted(known))}.")
    with Store.open(store) as opened:
        task, told_of = read_task(opened, store.stem, split), opened.revision()
    cases = task.test.some(count, seed)
    if not len(cases):
        raise SettingsError(f"{task.name} has no test case (split {split}).")
    # In order of time: what is fitted as of a moment is kept for the cases of the same moment.
    cases = cases.of(np.argsort(cases.time, kind="stable"))
    answers = [_answers(store, one, {**whole, **one.settings}, task, cases, told_of, keep, opener, note, tell) for one in chosen]
    return {
        "ablation": name,
        "dataset": task.name,
        "split": split,
        "cases": len(cases),
        "users": len(np.unique(cases.user)),
        "sample": count,
        "seed": seed,
        "data_hash": task.hash(),
        "revision": revision(),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seconds": round(time.perf_counter() - started, 1),
        "variants": _compared(chosen, answers, cases, seed),
    }


def _answers(
    store: Path,
    variant: Variant,
    settings: Mapping[str, Any],
    task: Task,
    cases: Cases,
    told_of: str,
    keep: Path,
    opener: Callable[[Path, Mapping[str, Any]], Recommender],
    note: Note,
    tell: Tell,
) -> list[Answer]:
    """One variant's answers, those that are kept and those that are missing."""
    identity = hashlib.sha256(json.dumps([sorted(settings.items()), task.hash(), told_of], default=str).encode()).hexdigest()[:12]
    file = keep / f"{re.sub(r'[^a-z0-9]+', '-', variant.name.lower()).strip('-')}-{identity}.jsonl"
    names = case_ids(task, cases)
    found = _kept(file)
    missing = [row for row, name in enumerate(names) if name not in found]
    if len(missing) < len(names):
        note(f"{variant.name}: {len(names) - len(missing)} cases answered before, see {file}")
    if missing:
        keep.mkdir(parents=True, exist_ok=True)
        tell(f"Opening {variant.name}")
        with opener(store, settings) as recommender, file.open("a", encoding="utf-8") as kept:
            for done, row in enumerate(missing, 1):
                found[names[row]] = _answer(recommender, task, cases, row, names[row])
                kept.write(json.dumps(asdict(found[names[row]])) + "\n")
                kept.flush()
                tell(variant.name, done, len(missing))
    return [found[name] for name in names]


def _kept(file: Path) -> dict[str, Answer]:
    """The answers in a file; a last line that a kill cut off is not one."""
    found: dict[str, Answer] = {}
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            one = Answer(**json.loads(line))
            found[one.case] = one
    return found


def _answer(recommender: Recommender, task: Task, cases: Cases, row: int, name: str) -> Answer:
    as_of, query = EPOCH + timedelta(seconds=float(cases.time[row])), cases.query[row]
    # Fitting as of the moment of a case is the evaluation's business: in service it is done once, before anybody asks.
    recommender.warm_up(as_of, memory=bool(query))
    began = time.perf_counter()
    found = recommender.recommend(task.user_ids[cases.user[row]], query, as_of=as_of, new_user=True)
    ms = (time.perf_counter() - began) * 1000
    target = task.item_ids[cases.target[row]]
    rank = next((line.rank for line in found.items if line.item.item_id == target), 0)
    invalid = found.prediction is not None and not found.prediction.valid
    missed = any(not one.startswith("load_history") for one in found.degraded)
    used = found.tokens
    return Answer(name, rank, invalid, missed, used.prompt, used.completion, used.cached, round(ms, 1))


def _compared(chosen: Sequence[Variant], answers: Sequence[Sequence[Answer]], cases: Cases, seed: int) -> list[dict[str, Any]]:
    measures = [_measures(one) for one in answers]
    first = measures[0]
    told = [_told(variant, one, values, cases, seed) for variant, one, values in zip(chosen, answers, measures, strict=True)]
    if len(told) > 1:
        table = np.stack([values["ndcg@10"] - first["ndcg@10"] for values in measures[1:]], axis=1)
        found = intervals(table, cases.user, seed=seed)
        chances = sign_flips(table, cases.user, seed=seed)
        for line, one, p, adjusted in zip(told[1:], found, chances, holm(chances), strict=True):
            line["against"] = {"best": chosen[0].name, "difference": _short(one.mean), "low": _short(one.low), "high": _short(one.high)}
            line["against"] |= {"p": _short(p), "p_holm": _short(adjusted)}
    return told


def _measures(answers: Sequence[Answer]) -> dict[str, Any]:
    """float64[n] of each measure."""
    rank = np.array([one.rank for one in answers], np.int64)
    at = Places(np.where(rank > 0, rank - 1, MISS).astype(np.int64), np.zeros(len(rank), np.int64))
    return {"recall@10": recall(at, 10), "ndcg@10": ndcg(at, 10), "mrr": mrr(at), "ceiling": (rank > 0).astype(np.float64)}


def _told(variant: Variant, answers: Sequence[Answer], values: Mapping[str, Any], cases: Cases, seed: int) -> dict[str, Any]:
    found = intervals(np.stack(list(values.values()), axis=1), cases.user, seed=seed)
    ms = np.array([one.ms for one in answers])
    within = {name: {"mean": _short(one.mean), "low": _short(one.low), "high": _short(one.high)} for name, one in zip(values, found, strict=True)}
    return {
        "name": variant.name,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in variant.settings.items()},
        "metrics": within,
        "invalid": _short(np.mean([one.invalid for one in answers])),
        "degraded": _short(np.mean([one.degraded for one in answers])),
        "tokens": {part: round(float(np.mean([getattr(one, part) for one in answers])), 1) for part in TOKENS},
        "ms": {"median": round(float(np.median(ms)), 1), "p95": round(float(np.quantile(ms, 0.95)), 1)},
    }


def _short(number: Any) -> float:
    return round(float(number), 6)
