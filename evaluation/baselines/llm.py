"""Language models as systems of the evaluation: T's own (a summary, the most recent items, Yes or No of each
candidate), and TALLRec and LlamaRec beside it, all with one base model, one training loop, one sample of cases and one
budget.

    recgraph-hierarchical, recgraph-recurrent   T 4.3: the summary of the whole history, the 3 most recent items, the
                                                candidate → Yes or No
    tallrec                                     Bao et al. 2023: Yes or No after the raw history, no summary
    llamarec                                    Yue et al. 2023: the candidates listed with letters, the letters' logits
                                                are the scores
    fused-llm                                   what the product does: retrieval's order and Yes/No, weighed as
                                                graph/blend.py does

Prompts are the product's (graph/prompts.py); what is trained, LoRA, is train/lora/training.py's over token trees: a
case with its candidates is one trunk with branches. They learn from train events alone
(evaluation/baselines/train_cases.py); an adapter from elsewhere is zero-shot here. Which cases are asked, and the first
stage's part in that, is evaluation/ask.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.llm_base import LORA, LLMSettings, LLMSystem
from recgraph.graph import prompts
from recgraph.graph.blend import SMALL_WEIGHT, blend
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.task import NEGATIVES, Cases, Note, Rows, Scores, Task, drawn

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SMALL = 1_000_000_000  # parameters below which the product lets retrieval lead


@dataclass(frozen=True)
class RawSettings(LLMSettings):
    """Of systems that read the history itself, as much as fits."""

    recent: int = 20


@dataclass(frozen=True)
class SummarySettings(LLMSettings):
    """Of systems that read a summary."""

    paradigm: str = "hierarchical"


@dataclass(frozen=True)
class ProductSettings(LLMSettings):
    """Of the product's own order."""

    paradigm: str = "recurrent"
    weight: float | None = None


class YesNoSystem(LLMSystem):
    """Yes or No of each candidate (T 4.3): the score is the difference of the two logits, or, with a `weight` below 1,
    that and the order of the first stage, blended as in the product."""

    def fit(self, task: Task, note: Note) -> None:
        """As all do, and the first stage, where its order counts."""
        super().fit(task, note)
        if self._weight() < 1:
            self._first()

    def scores_among(self, cases: Cases, candidates: Rows) -> Scores:
        """float32[cases, c]; -inf where a candidate is -1. LLMError where a prompt is longer than the model reads."""
        found = np.full(candidates.shape, -np.inf, np.float32)
        weight = self._weight()
        order = self.scores(cases) if weight < 1 else None
        for row in range(len(cases)):
            there = np.flatnonzero(candidates[row] >= 0)
            # best first; those given alike in the order of the catalogue, for the place in the list says nothing
            if order is not None:
                there = there[np.lexsort((candidates[row, there], -order[row, candidates[row, there]]))]
            items = [self._items[item] for item in candidates[row, there]]
            asked = prompts.fit_prompts(self.shared(cases, row), items, wording=self.settings.wording)
            pairs, used = self.llm.score(asked, adapter=self._own)
            self.used += used
            if order is None:
                found[row, there] = [yes - no for yes, no in pairs]
            else:
                blended = blend([Candidate(str(place), 0.0, "", ()) for place in there], pairs, weight)
                for line in blended:
                    found[row, int(line.candidate.item_id)] = line.score
        return found

    def _weight(self) -> float:
        if self.settings.weight is not None:
            return self.settings.weight
        return SMALL_WEIGHT if (self.llm.parameters or _SMALL) < _SMALL else 1.0

    def _epochs(self, cases: Cases, settings: Any, tokens: Any) -> list[Any]:
        """The target, answered Yes, among items drawn evenly, answered No."""
        from recgraph.train.examples.rows import Row
        from recgraph.train.lora.job import draw

        among = drawn(
            self._task, cases, self.settings.seed, count=self._room(cases, settings.negatives * settings.epochs)
        )
        groups: dict[int, list[Any]] = {}
        for row in range(len(cases)):
            items = [self._items[item] for item in among[row]]
            asked = prompts.fit_prompts(self.shared(cases, row), items, wording=self.settings.wording)
            user = self._user(cases, row)
            groups[row] = [
                Row(
                    "train",
                    user,
                    row,
                    row,
                    item.item_id,
                    prompt.system,
                    prompt.user,
                    "No" if place else "Yes",
                    "random" if place else "positive",
                )
                for place, (item, prompt) in enumerate(zip(items, asked, strict=True))
            ]
        return [draw(groups, settings, epoch, tokens) for epoch in range(settings.epochs)]


class RawSystem(YesNoSystem):
    """After the raw history."""

    settings_class = RawSettings


class SummarySystem(YesNoSystem):
    """After a summary."""

    settings_class = SummarySettings


class ProductSystem(YesNoSystem):
    """The product's own order: retrieval's and Yes/No, weighed as it weighs them."""

    uses, settings_class = ("ids", "text", "query", "llm"), ProductSettings


class LettersSystem(LLMSystem):
    """One prompt a case: the candidates with letters, the score of each the logit of its letter. They are listed in an
    order drawn with the seed and the user, so that the place in the list says nothing."""

    settings_class = RawSettings
    # an example is a whole case: as many cases a step as Yes and No have
    lora: Mapping[str, Any] = {**LORA, "batch": 4}

    def fit(self, task: Task, note: Note) -> None:
        """As all do; SettingsError for more candidates than there are letters."""
        if self.depth > len(LETTERS):
            raise SettingsError(
                f"baselines.{self.name}.depth is {self.depth}; there are letters for {len(LETTERS)} candidates."
            )
        super().fit(task, note)

    def scores_among(self, cases: Cases, candidates: Rows) -> Scores:
        """float32[cases, c]; -inf where a candidate is -1."""
        found = np.full(candidates.shape, -np.inf, np.float32)
        for row in range(len(cases)):
            there = self._shuffled(cases, row, candidates[row])
            prompt = self._prompt(cases, row, candidates[row, there])
            [logits], used = self.llm.score_answers([prompt], LETTERS[: len(there)], adapter=self._own)
            self.used += used
            found[row, there] = logits
        return found

    def _shuffled(self, cases: Cases, row: int, candidates: Rows) -> Rows:
        """The columns of the candidates in the order they are listed."""
        there = np.flatnonzero(candidates >= 0)
        if len(there) > len(LETTERS):
            raise SettingsError(
                f"{self.name} is asked to choose among {len(there)} items; there are letters for {len(LETTERS)}."
            )
        there = there[np.argsort(candidates[there], kind="stable")]
        rng = np.random.default_rng([self.settings.seed, int(cases.user[row]), len(cases.history[row])])
        return np.asarray(rng.permutation(there), np.int64)

    def _prompt(self, cases: Cases, row: int, items: Rows) -> Prompt:
        listed = {letter: self._items[item] for letter, item in zip(LETTERS, items, strict=False)}
        return prompts.choice_prompt(self.shared(cases, row), listed, wording=self.settings.wording)

    def _epochs(self, cases: Cases, settings: Any, tokens: Any) -> list[Any]:
        from recgraph.train.lora.tokens import Lesson

        found = []
        for epoch in range(settings.epochs):
            count = self._room(cases, max(self.depth - 1, NEGATIVES))  # no letter may be asked that was never learnt
            among = drawn(self._task, cases, self.settings.seed + epoch, count=count)
            order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(cases))
            lessons = []
            for row in order:
                there = self._shuffled(cases, row, among[row])
                answer = LETTERS[int(np.flatnonzero(there == 0)[0])]
                prompt = self._prompt(cases, row, among[row, there])
                lessons.append(Lesson(prompt, answer, group=int(row), stop=False))
            found.append(tokens.examples(lessons, settings.max_tokens))
        return found
