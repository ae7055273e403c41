"""What an adapter can do: the held-out cases of its task, sat with the base model and with the adapter, each by the
very code that serves.

Known are the three tasks and their measures (F 5, T 5); how the adapter was trained is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from recgraph.graph.prompts import clean, next_form, parse_next
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.store.parquet import read_table
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import placement, quiet_transformers
from recgraph.tools.llm.protocol import LLM, Prompt
from recgraph.train.examples.negatives import POOLS
from recgraph.train.lora.job import Groups, Job, first
from recgraph.train.lora.model import load_base, perplexities
from recgraph.train.lora.tokens import Lesson, Tokens
from recgraph.train.metrics import auc
from recgraph.train.summary.checks import summary_report, written

SUMMARIES = 24  # held-out summaries written before and after at most: each is a hundred tokens, one by one


class Exam:
    """The held-out cases of a task and how to sit them, with the base model or an adapter."""

    def __init__(self, job: Job, folder: Path) -> None:
        cases = job.settings.eval_cases
        self._job = job
        limit = min(cases, SUMMARIES) if job.task == "summarize" else cases
        groups = first(job.groups("test") or job.groups("valid"), limit)
        self._written = {name: [row for row in rows if not row.judged] for name, rows in groups.items()}
        self._judged = {name: [row for row in rows if row.judged] for name, rows in groups.items()}
        items = read_table(folder / "data" / "prepare" / "all" / "items.parquet")
        self._known = frozenset(items["item_id"])
        self._vocabulary = CatalogueWords({name: set(items[name]) - {""} for name in ("brand", "category", "color")})

    def measure(self, adapter: Path | None) -> dict[str, float]:
        """The task's own measures and the perplexity of the right answers."""
        if self._job.sft.threads:
            torch.set_num_threads(self._job.sft.threads)
        task, name = self._job.task, "exam" if adapter else None
        found: dict[str, float] = {}
        llm = LocalLLM(self._job.base, adapters={"exam": str(adapter)} if adapter else None)
        if task == "summarize":
            found |= measure_summaries(llm, self._written, self._vocabulary, name)
        elif task != "fit":
            found |= measure_next(llm, self._written, self._known, name)
        if task != "fit":
            found["perplexity"] = self._perplexity(adapter)
        if task in ("recommend", "fit"):
            found |= measure_fit(judge(llm, self._judged, name))
        return {key: round(number, 6) for key, number in found.items()}

    def _perplexity(self, adapter: Path | None) -> float:
        """exp of the mean log-perplexity of the right answers, each answer counting the same."""
        tokens, base = Tokens(self._job.base), load_base(self._job.base).to(placement()[0])
        with quiet_transformers():
            model = base if adapter is None else PeftModel.from_pretrained(base, adapter)
        rows = [row for group in self._written.values() for row in group]
        found = perplexities(model, tokens.examples([Lesson(Prompt(row.system, row.user), row.answer) for row in rows]))
        return math.exp(sum(map(math.log, found)) / len(found)) if found else math.nan


def measure_next(llm: LLM, groups: Groups, known: Collection[str], adapter: str | None) -> dict[str, float]:
    """Greedy answers to task NEXT, written freely and held to the catalogue's ids (`constrain`), as shares of all
    answers.

    `invalid` (F: 7 %) is either `invalid_format`, not the two lines asked for, or `unknown_id`, an id the catalogue
    does not have. exact_id and exact_title count an invalid answer as a miss. `constrained_` are those of answers held
    to the form.
    """
    rows = [row for group in groups.values() for row in group]
    asked = [Prompt(row.system, row.user) for row in rows]
    form = next_form(sorted(known), {}, free_title=True)
    found: dict[str, float] = {"answers": float(len(rows))}
    for name, held in (("", None), ("constrained_", form)):
        answers, _ = llm.generate(asked, max_tokens=64, form=held, adapter=adapter)
        formed = [parse_next(answer.text, lambda _: True, {}) for answer in answers]
        right = [(one, row) for one, row in zip(formed, rows, strict=True) if one.valid and one.item_id in known]
        found |= {
            f"{name}invalid": 1 - len(right) / len(rows) if rows else 0.0,
            f"{name}invalid_format": _share_true([not one.valid for one in formed]),
            f"{name}unknown_id": _share_true([one.valid and one.item_id not in known for one in formed]),
            f"{name}exact_id": sum(one.item_id == row.item_id for one, row in right) / max(1, len(rows)),
            f"{name}exact_title": sum(f"Title: {clean(one.title)}" == row.answer.split("\n")[1] for one, row in right)
            / max(1, len(rows)),
        }
    return found


@dataclass(frozen=True)
class Judgement:
    """What the model said of one product: which `case` it is of, its `kind` (positive, or where it was drawn from), the
    logit difference Yes − No, and the natural logarithm of the right answer's probability."""

    case: int
    kind: str
    score: float
    right: float


def judge(llm: LLM, groups: Groups, adapter: str | None) -> list[Judgement]:
    """Asks task FIT of each case's products."""
    found = []
    for case, rows in groups.items():
        pairs, _ = llm.score([Prompt(row.system, row.user) for row in rows], adapter=adapter)
        found += [
            Judgement(case, row.kind, yes - no, yes if row.answer == "Yes" else no)
            for row, (yes, no) in zip(rows, pairs, strict=True)
        ]
    return found


def measure_fit(judged: Sequence[Judgement]) -> dict[str, float]:
    """AUC of the Yes/No logit difference: targets against `random` products (T's protocol), `alike` and `shown` ones,
    and all of these, and apart against `hard` ones; and the perplexity of the right answers, which are one token each
    (`judged_perplexity`)."""
    scored = {kind: [one.score for one in judged if one.kind == kind] for kind in ("positive", *POOLS)}
    against = {kind: auc(scored["positive"], scored[kind]) for kind in POOLS if scored[kind]}
    every = [score for kind in POOLS if kind != "hard" for score in scored[kind]]
    cases = len({one.case for one in judged})
    whole = {"cases": float(cases), "prompts": float(len(judged)), "auc": auc(scored["positive"], every)}
    perplexity = math.exp(-sum(one.right for one in judged) / len(judged)) if judged else math.nan
    return whole | {f"auc_{kind}": found for kind, found in against.items()} | {"judged_perplexity": perplexity}


def measure_summaries(llm: LLM, groups: Groups, vocabulary: CatalogueWords, adapter: str | None) -> dict[str, float]:
    """Grounding, copying and length of greedy summaries (`train/summary/checks.py`)."""
    rows = [row for group in groups.values() for row in group]
    texts = written(llm, [Prompt(row.system, row.user) for row in rows], adapter)
    return dict(summary_report(texts, [row.user for row in rows], vocabulary, llm.count_tokens))


def _share_true(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
