"""Ablations: the product's own recommender over held-out cases, as of their moment, in several variants. Command:
`recgraph ablate NAME`.

    table3       F table 3: without product attributes, query-product memory, text embedding, ID embedding, and
                 combinations
    mixup        F 4.4: how many items of the ID list come before the title list
    history      T figure 9: how many recent items the prompts show, in both paradigms
    models       T figures 10 and 11: base models, from a list of folders
    perplexity   F 4.3: adapters before and after the hard examples were trained further
    constrained  whether the answer may name the products shown, the whole catalogue's, or anything
    llm          what a language model adds to the product as it is served, and to F's mixup

Every variant is a few settings of recgraph (recgraph/settings.py) over the same cases in the same order; the first is
what the others are compared with, case by case. They are asked case by case too: what is fitted as of the moment of a
case, and what the language model says to a prompt that several of them have, is made once (side_by_side.py). The tokens
and the time of a reused answer count as when it was first asked. What a case was answered is a line in a file named by
all that decides it, so a killed ablation goes on where it was. The lists can be written as rankings, which
`recgraph evaluate --run` measures beside its systems. Nothing is written into the store but vectors of its own texts.
Tables and options are unknown here.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.errors import SettingsError
from recgraph.evaluation.ask import Reporter
from recgraph.evaluation.origin import Origin
from recgraph.evaluation.rankings import case_ids, write_rankings
from recgraph.evaluation.result import MAIN, Ablation, Against, Figure, MeanTokens, Milliseconds, Variation, rounded
from recgraph.evaluation.side_by_side import PATIENCE, SideBySide, chosen_of, model_of
from recgraph.evaluation.statistics import holm, intervals, sign_flips
from recgraph.graph.recommender import Recommender
from recgraph.settings import PARADIGMS, Settings
from recgraph.store.cases import span
from recgraph.store.db import Store
from recgraph.store.records import EPOCH
from recgraph.train.metrics import MISS, Places, mrr, ndcg, recall
from recgraph.train.task import Cases, Task, read_task

NAMES = ("table3", "mixup", "history", "models", "perplexity", "constrained", "llm")
MIXUPS = (1, 0, 2, 5, 10, 20)  # F: 1
HISTORY = range(11)
DEPTH = 20  # products a recommendation is asked for; all of them are the candidates that are reranked
SHOWN = 10  # those of the product as it is served, which reranks the few that can come among them

Opener = Callable[[Path], SideBySide]


@dataclass(frozen=True)
class Variant:
    """A name and the settings that make it; the others are those of all variants."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> str:
        """The name as files have it."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class Answer:
    """What became of a case: the target's rank from 1 (0: not among the candidates), whether the LLM's answer named no
    product, whether something had to be done without, tokens and milliseconds, those of reused answers of the LLM among
    them, and the recommended item ids, best first."""

    case: str
    rank: int
    invalid: bool
    degraded: bool
    prompt: int
    completion: int
    cached: int
    ms: float
    items: Sequence[str] = ()


def variants(
    name: str, *, models: Sequence[str] = (), adapters: Sequence[str] = (), encoder: str = ""
) -> list[Variant]:
    """The variants of an ablation, the one to compare with first. SettingsError for an unknown name, or too few models
    or adapters."""
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
        return (
            [*found, Variant(f"w/ {Path(encoder).name} text embedding", {**ours, "embedder": encoder})]
            if encoder
            else found
        )
    if name == "mixup":
        return [Variant(f"N={n}", {**paper, "mixup": n}) for n in MIXUPS]
    if name == "history":
        sizes = sorted(HISTORY, key=lambda size: (size != Settings.recent, size))
        return [
            Variant(f"{paradigm}, {n} items", {"paradigm": paradigm, "recent": n, "rerank_weight": 1.0})
            for paradigm in PARADIGMS
            for n in sizes
        ]
    if name == "models":
        _several(models, "models", "folders or hub ids")
        return [Variant(Path(model).name, {"llm": model, "adapter": "none", "rerank_weight": 1.0}) for model in models]
    if name == "perplexity":
        _several(adapters, "adapters", "adapter sets: without and with the further training")
        return [Variant(one, {**paper, "adapter": one}) for one in adapters]
    if name == "constrained":
        return [Variant(f"constrain {one}", {**paper, "constrain": one}) for one in ("shown", "catalogue", "off")]
    if name == "llm":
        served, alone, mixup = {"k": SHOWN}, {"llm": "none"}, {"k": SHOWN, **paper, "mixup": 1}
        return [
            Variant("retrieval alone", {**served, **alone}),
            Variant("and the named product", {**served, "rerank_weight": 0.0}),
            Variant("and Yes/No, as it is served", served),
            Variant("mixup (F)", mixup),
            Variant("mixup without a language model", {**mixup, **alone}),
        ]
    raise SettingsError(f"'{name}' is no ablation. Ablations: {', '.join(NAMES)}.")


def _several(given: Sequence[str], option: str, what: str) -> None:
    if len(set(given)) < max(2, len(given)):
        raise SettingsError(
            f"--{option} names {len(set(given))} of {len(given)}; give at least two different {what}, "
            "with commas between."
        )


@dataclass(frozen=True)
class Question:
    """What all variants are asked on the shop at `store`: `count` test cases of the split, drawn with the seed (0:
    all), under the `common` settings unless a variant has its own. What was answered is kept in the folder `keep`, and
    the lists go into the folder `export` where one is named; `command` is told in the result."""

    store: Path
    keep: Path
    split: str = "time"
    count: int = 100
    seed: int = 7
    common: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    export: Path | None = None

    def settings(self, variant: Variant) -> dict[str, Any]:
        """All that differ from the product's. SettingsError for one that there is not."""
        found = {"k": DEPTH, "candidates": DEPTH, "deadline": PATIENCE, **self.common, **variant.settings}
        known = {one.name for one in fields(Settings)}
        for name in found:
            if name not in known:
                raise SettingsError(f"'{name}' is no setting of recgraph. Known: {', '.join(sorted(known))}.")
        return found


@dataclass(frozen=True)
class _Exam:
    """The cases of a task that are asked, in the order of time: what is fitted as of a moment is kept for the cases of
    the same moment. `revision` is the store's."""

    task: Task
    cases: Cases
    revision: str

    @property
    def names(self) -> list[str]:
        return case_ids(self.task, self.cases)


@dataclass
class _Sheet:
    """The answers of one variant by case, those in its `file` and new ones, which are added to it."""

    name: str
    chosen: Settings
    file: Path
    found: dict[str, Answer]

    @classmethod
    def of(cls, variant: Variant, settings: Mapping[str, Any], exam: _Exam, question: Question) -> _Sheet:
        parts = [sorted(settings.items()), exam.task.hash(), exam.revision, *(one.name for one in fields(Answer))]
        identity = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]
        file = question.keep / f"{variant.plain}-{identity}.jsonl"
        return cls(variant.name, chosen_of(question.store, settings), file, _kept(file))

    def missing(self, names: Sequence[str]) -> int:
        """How many of these cases have no answer yet."""
        return sum(name not in self.found for name in names)

    def add(self, answer: Answer) -> None:
        with self.file.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps(asdict(answer)) + "\n")
        self.found[answer.case] = answer


def ablate(
    name: str,
    chosen: Sequence[Variant],
    question: Question,
    *,
    opener: Opener = SideBySide,
    reporter: Reporter | None = None,
) -> Ablation:
    """Asks every variant the same and compares with the first. SettingsError for an unknown setting, or a store without
    test cases."""
    started, reporter = time.perf_counter(), reporter or Reporter()
    settings = [question.settings(one) for one in chosen]
    exam = _exam(question, reporter)
    sheets = [_Sheet.of(variant, own, exam, question) for variant, own in zip(chosen, settings, strict=True)]
    for sheet in sheets:
        if sheet.found and (known := len(exam.cases) - sheet.missing(exam.names)):
            reporter.note(f"{sheet.name}: {known} cases answered before, see {sheet.file}")
    for together in _by_model(sheets):
        _fill(together, exam, question, opener, reporter)
    answers = [[sheet.found[case] for case in exam.names] for sheet in sheets]
    if question.export:
        for variant, own in zip(chosen, answers, strict=True):
            _export(question.export / f"{variant.plain}.parquet", exam, own)
    return Ablation(
        ablation=name,
        dataset=exam.task.name,
        split=question.split,
        cases=len(exam.cases),
        users=len(np.unique(exam.cases.user)),
        sample=question.count,
        seed=question.seed,
        origin=Origin.here(exam.task.hash(), question.command, time.perf_counter() - started),
        variants=tuple(variations(chosen, answers, exam.cases, question.seed)),
    )


def _export(file: Path, exam: _Exam, answers: Sequence[Answer]) -> None:
    """The lists of a variant as rankings."""
    row_of = {item_id: row for row, item_id in enumerate(exam.task.item_ids)}
    first = np.full((len(answers), max(len(one.items) for one in answers)), -1, np.int64)
    for row, one in enumerate(answers):
        first[row, : len(one.items)] = [row_of[item_id] for item_id in one.items]
    write_rankings(file, exam.task, exam.cases, first)


def _exam(question: Question, reporter: Reporter) -> _Exam:
    """The cases whose target the product could show at their moment: as of it, a product that has no date of its own is
    there from its first event on."""
    with Store.open(question.store) as opened:
        task, revision = read_task(opened, question.store.stem, question.split), opened.revision()
        since = (opened.catalogue().first_seen - np.datetime64(0, "us")) / np.timedelta64(1, "s")
        between = span(opened)
    if between is None or between[0].year < 1971:
        reporter.note(f"{task.name} has no dates: others' events are known by their place in their own history.")
    there = since[task.test.target] < task.test.time
    if missing := int((~there).sum()):
        reporter.note(
            f"{task.name}: {missing:,} of {len(there):,} cases are not asked. Nobody had looked at their product yet, "
            "and the shop does not say since when it is listed, so no recommendation of that moment can name it."
        )
    cases = task.test.of(there).some(question.count, question.seed)
    if not len(cases):
        why = " whose product was known at its moment" if missing else ""
        raise SettingsError(f"{task.name} has no test case (split {question.split}){why}.")
    return _Exam(task, cases.of(np.argsort(cases.time, kind="stable")), revision)


def _by_model(sheets: Sequence[_Sheet]) -> list[list[_Sheet]]:
    """Those that ask the same language model go together, so that one at a time is in memory."""
    found: dict[tuple[str, ...], list[_Sheet]] = {}
    for sheet in sheets:
        found.setdefault(model_of(sheet.chosen), []).append(sheet)
    return list(found.values())


def _fill(sheets: Sequence[_Sheet], exam: _Exam, question: Question, opener: Opener, reporter: Reporter) -> None:
    """Asks case by case, all of these variants in turn, what has no answer yet."""
    names = exam.names
    waiting = [sheet for sheet in sheets if sheet.missing(names)]
    if not waiting:
        return
    question.keep.mkdir(parents=True, exist_ok=True)
    done, of = 0, sum(sheet.missing(names) for sheet in waiting)
    what = waiting[0].name if len(waiting) == 1 else f"{len(waiting)} variants, {waiting[0].name} first"
    reporter.tell(f"Opening {what}")
    with opener(question.store) as side_by_side:
        asked = [(sheet, side_by_side.open(sheet.chosen)) for sheet in waiting]
        for row, name in enumerate(names):
            for sheet, recommender in asked:
                if name not in sheet.found:
                    sheet.add(_answer(side_by_side, recommender, exam, row, name))
                    done += 1
                    reporter.tell(what, done, of)


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


def _answer(side_by_side: SideBySide, recommender: Recommender, exam: _Exam, row: int, name: str) -> Answer:
    task, cases = exam.task, exam.cases
    as_of, query = EPOCH + timedelta(seconds=float(cases.time[row])), cases.query[row]
    # Fitting as of the moment of a case is the evaluation's business: in service it is done once, before anybody asks.
    recommender.warm_up(as_of, memory=bool(query) and recommender.settings.memory_queries > 0)
    side_by_side.begin()
    began = time.perf_counter()
    found = recommender.recommend(task.user_ids[cases.user[row]], query, as_of=as_of, new_user=True)
    ms = (time.perf_counter() - began + side_by_side.waited()) * 1000
    target = task.item_ids[cases.target[row]]
    items = [line.item.item_id for line in found.items]
    rank = items.index(target) + 1 if target in items else 0
    invalid = found.prediction is not None and not found.prediction.valid
    missed = any(not one.startswith("load_history") for one in found.degraded)
    used = found.tokens
    return Answer(name, rank, invalid, missed, used.prompt, used.completion, used.cached, round(ms, 1), items)


def variations(
    chosen: Sequence[Variant], answers: Sequence[Sequence[Answer]], cases: Cases, seed: int
) -> list[Variation]:
    """The figures of each variant, all but the first compared with that case by case."""
    measures = [_measures(one) for one in answers]
    first, *others = [
        _variation(variant, one, values, cases, seed)
        for variant, one, values in zip(chosen, answers, measures, strict=True)
    ]
    if not others:
        return [first]
    table = np.stack([values[MAIN] - measures[0][MAIN] for values in measures[1:]], axis=1)
    found, p_values = intervals(table, cases.user, seed=seed), sign_flips(table, cases.user, seed=seed)
    compared = zip(others, found, p_values, holm(p_values), strict=True)
    return [
        first,
        *(
            replace(one, against=Against(first.name, Figure.of(by), rounded(p), rounded(adjusted)))
            for one, by, p, adjusted in compared
        ),
    ]


def _measures(answers: Sequence[Answer]) -> dict[str, Any]:
    """float64[n] of each measure."""
    rank = np.array([one.rank for one in answers], np.int64)
    at = Places(np.where(rank > 0, rank - 1, MISS).astype(np.int64), np.zeros(len(rank), np.int64))
    return {"recall@10": recall(at, 10), MAIN: ndcg(at, 10), "mrr": mrr(at), "ceiling": (rank > 0).astype(np.float64)}


def _variation(
    variant: Variant, answers: Sequence[Answer], values: Mapping[str, Any], cases: Cases, seed: int
) -> Variation:
    found = intervals(np.stack(list(values.values()), axis=1), cases.user, seed=seed)
    ms = np.array([one.ms for one in answers])
    prompt, completion, cached = (
        round(float(np.mean(one)), 1)
        for one in zip(*((a.prompt, a.completion, a.cached) for a in answers), strict=True)
    )
    return Variation(
        name=variant.name,
        settings={name: str(value) if isinstance(value, Path) else value for name, value in variant.settings.items()},
        metrics={name: Figure.of(one) for name, one in zip(values, found, strict=True)},
        invalid=rounded(np.mean([one.invalid for one in answers])),
        degraded=rounded(np.mean([one.degraded for one in answers])),
        tokens=MeanTokens(prompt, completion, cached),
        ms=Milliseconds(round(float(np.median(ms)), 1), round(float(np.quantile(ms, 0.95)), 1)),
    )
