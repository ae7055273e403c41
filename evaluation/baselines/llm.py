"""Language models as systems of the evaluation: T's own (a summary, the most recent items, Yes or No of each
candidate), and TALLRec and LlamaRec beside it, all with one base model, one training loop, one sample of cases and one
budget.

    recgraph-hierarchical, recgraph-recurrent   T 4.3: the summary of the whole history, the 3 most recent items, the
                                                candidate → Yes or No
    tallrec                                     Bao et al. 2023: Yes or No after the raw history, no summary
    llamarec                                    Yue et al. 2023: the candidates listed with letters, the letters' logits
                                                are the scores
    fused-llm                                   what the product does: retrieval's order and Yes/No, weighed as
                                                graph/nodes.py does

Prompts are the product's (graph/prompts.py); what is trained, LoRA, is train/lora/training.py's over token trees: a
case with its candidates is one trunk with branches. They learn from train events alone
(evaluation/baselines/train_cases.py); an adapter from elsewhere is zero-shot here. Which cases are asked, and the first
stage's part in that, is evaluation/ask.py's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock
from transformers import AutoTokenizer

from recgraph.errors import SettingsError
from recgraph.evaluation.baselines.train_cases import train_cases
from recgraph.evaluation.systems import entries, systems
from recgraph.evaluation.workshop import Workshop
from recgraph.graph import prompts
from recgraph.graph.grounding import Vocabulary
from recgraph.graph.nodes import SMALL_WEIGHT, blend
from recgraph.graph.state import RunContext
from recgraph.graph.summarize import LLMSummarizer, ProfileSummarizer, Summarizer, build_summarize
from recgraph.store.db import Store
from recgraph.store.records import EPOCH, Action, Event, Item, Summary
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.adapter_sets import find_set
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import find_llm, fingerprint
from recgraph.tools.llm.protocol import Prompt, Usage
from recgraph.train.params import settings_of
from recgraph.train.task import NEGATIVES, Cases, Note, Reranker, Rows, Scores, System, Task, drawn

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ACTIONS: tuple[Action, ...] = ("click", "cart", "purchase")
_SMALL = 1_000_000_000  # parameters below which the product lets retrieval lead


@dataclass(frozen=True)
class LLMSettings:
    """How a language model is asked and trained. `paradigm` "" is without a summary; `recent` items are shown. `cases`
    of train events are learnt from, each with `lora.negatives` drawn anew each epoch; `lora` has fields of
    LoraSettings. In a full ranking the first `depth` of the system `first` are reranked; `weight` is the share of the
    LLM in the order (None: the product's)."""

    llm: str = ""  # folder or hub id; "" is SmolLM2-135M
    adapter: str = "trained"  # trained | none | the name or folder of one from elsewhere
    start: str = ""  # the name or folder of an adapter set from elsewhere, whose task fit the training goes on from
    paradigm: str = ""
    recent: int = 3
    prompt_tokens: int = 960  # without the candidate; the oldest of the recent items are left out first
    summarizer: str = "profile"  # profile | llm
    query: bool = True  # whether the search that led to the case is shown
    wording: str = "general"
    cases: int = 800
    lora: Mapping[str, Any] = field(default_factory=dict)
    first: str = "fused"
    depth: int = 20
    weight: float | None = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("paradigm", ("", "recurrent", "hierarchical")), ("summarizer", ("profile", "llm"))):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(allowed)}.")
        for name, least in (("recent", 0), ("cases", 1), ("depth", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise SettingsError(f"weight is {self.weight}; it must lie between 0 and 1.")


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


# What a small model on a CPU is trained with (params.yaml, presets.default.fit); any of it can be set under `lora`.
LORA: Mapping[str, Any] = {
    "rank": 8, "alpha": 16, "dropout": 0.0, "layers": 15, "learning_rate": 5e-4, "negatives": 9, "batch": 40, "tree_tokens": 1536, "max_tokens": 2048,
}  # fmt: skip


class LLMSystem(Reranker):
    """A language model over the items of a task: what all systems of this file share. `training_cost` tells of the
    training after `fit` (seconds, examples, tokens), empty where nothing was trained.

    Items have what the workshop's store knows of them, else their names alone; trained adapters are kept in its folder
    of caches.
    """

    uses: tuple[str, ...] = ("text", "query", "llm")
    settings: LLMSettings
    lora: Mapping[str, Any] = LORA

    def __init__(self, settings: LLMSettings, workshop: Workshop) -> None:
        super().__init__(settings)
        self.depth, self._workshop = settings.depth, workshop
        self.code = (entries([settings.first])[settings.first].module,)

    def fit(self, task: Task, note: Note) -> None:
        """Trains the adapter, or finds the one that is there. ModelMissing, SettingsError."""
        self._task, self._note, self.used = task, note, Usage()
        self._read_catalogue(task)
        self._base = find_llm(self.settings.llm)
        self._chat = ChatText(AutoTokenizer.from_pretrained(self._base))
        self._made: dict[str, Summary] = {}
        self._summarize = self._summarizer() if self.settings.paradigm else None
        folder = self._adapter(task, note)
        self.llm = LocalLLM(self._base, {"own": str(folder)} if folder else None)
        self._own = "own" if folder else None

    def scores(self, cases: Cases) -> Scores:
        """The first stage's, float32[cases, items]; it is fitted when it is first asked."""
        return self._first().scores(cases)

    def _first(self) -> System:
        """The first stage, fitted; systems that rerank the same one need it once."""
        s = self.settings
        return self._workshop.once("first stage", (s.first, self._task.hash(), s.seed), self._fit_first)

    def _fit_first(self) -> System:
        stage = systems([self.settings.first], self._workshop)[self.settings.first](self.settings.seed)
        stage.fit(self._task, self._note)
        return stage

    def _read_catalogue(self, task: Task) -> None:
        """The items, what their attributes can be, and the currency."""
        self._vocabulary, self._currency = Vocabulary({}), ""
        if self._workshop.store is None:
            self._items = [Item(item_id, text) for item_id, text in zip(task.item_ids, task.texts, strict=True)]
            return
        with Store.open(self._workshop.store) as opened:
            known = opened.items(task.item_ids)
            self._vocabulary, self._currency = Vocabulary(opened.attribute_values()), opened.meta("currency") or ""
        self._items = [known[item_id] for item_id in task.item_ids]

    def events(self, cases: Cases, row: int) -> tuple[list[Event], dict[str, Item]]:
        """The history of a case as the product reads it, and the items in it."""
        user = self._user(cases, row)
        steps = zip(cases.history[row], cases.actions[row], cases.times[row], strict=True)
        events = [
            Event(user, place, EPOCH + timedelta(seconds=float(time)), _ACTIONS[action], self._items[item].item_id)
            for place, (item, action, time) in enumerate(steps, 1)
        ]
        return events, {self._items[item].item_id: self._items[item] for item in cases.history[row]}

    def shared(self, cases: Cases, row: int) -> str:
        """What a case's prompts begin with: the summary, where it has one, the query and the most recent items, oldest
        first."""
        s = self.settings
        events, items = self.events(cases, row)
        summary = self._summary(self._user(cases, row), events, items)
        shown = events[-s.recent :] if s.recent else []
        system = prompts.system_text(s.wording)
        while True:
            text = self._text(summary, cases.query[row] if s.query else "", shown, items)
            if not shown or len(self._chat.encode(system + text)) <= s.prompt_tokens:
                return text
            shown = shown[1:]

    def _text(self, summary: str, query: str, shown: Sequence[Event], items: Mapping[str, Item]) -> str:
        if self.settings.paradigm:
            return prompts.shared_text(summary, query, shown, items)
        return prompts.raw_history_text(query, shown, items)

    def _user(self, cases: Cases, row: int) -> str:
        user = int(cases.user[row])
        return self._task.user_ids[user] if self._task.user_ids else str(user)

    def _summarizer(self) -> Any:
        writer: Summarizer = ProfileSummarizer(self._currency)
        if self.settings.summarizer == "llm":
            writer = LLMSummarizer(LocalLLM(self._base), self._vocabulary, wording=self.settings.wording, currency=self._currency)
        return build_summarize(writer, self._made.get)

    def _summary(self, user: str, events: Sequence[Event], items: Mapping[str, Item]) -> str:
        if self._summarize is None:
            return ""
        asked = {"user_id": user, "paradigm": self.settings.paradigm, "history": events, "items": items}
        state = self._summarize.invoke(asked, context=cast(Any, RunContext()))
        self._made.update((summary.input_hash, summary) for summary in state.get("made", ()))
        self.used += state.get("tokens") or Usage()
        found: Summary | None = state.get("summary")
        return found.text if found else ""

    # ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _adapter(self, task: Task, note: Note) -> Path | None:
        wanted = self.settings.adapter
        if wanted == "none":
            return None
        if wanted != "trained":
            note(f"{self.name}: zero-shot, with the adapter {wanted} from elsewhere")
            return self._fit_adapter(wanted)
        return self._train(task, note)

    def _fit_adapter(self, wanted: str) -> Path:
        found = find_set(wanted, self._workshop.store)
        if "fit" not in found.tasks:
            raise SettingsError(f"The adapter set '{wanted}' has no adapter of task fit; it has {', '.join(found.tasks)}.")
        return Path(found.tasks["fit"])

    def learnt_from(self, task: Task) -> Cases:
        """The cases to learn from: `cases` users drawn with the seed, the last case of each."""
        return train_cases(task, self._workshop.store).some(self.settings.cases, self.settings.seed)

    def _train(self, task: Task, note: Note) -> Path:
        # trl takes seconds to be imported, and is needed for training only.
        from recgraph.train.lora.tokens import Tokens
        from recgraph.train.lora.training import LoraSettings, train

        where = f"baselines.{self.name}.lora"
        settings = settings_of(LoraSettings, {**self.lora, **self.settings.lora, "seed": self.settings.seed}, where)
        cases = self.learnt_from(task)
        if not len(cases):
            raise SettingsError(f"{task.name} has no train case for {self.name} to learn from; set baselines.{self.name}.adapter to none.")
        epochs = self._epochs(cases, settings, Tokens(self._base))
        start = self._fit_adapter(self.settings.start) if self.settings.start else None
        from_what = [fingerprint(self._base), asdict(settings), *([fingerprint(start)] if start else [])]
        digest = hashlib.sha256(json.dumps(from_what, sort_keys=True).encode())
        for example in (one for epoch in epochs for one in epoch):
            digest.update(np.array([*example.prompt, -1, *example.answer], np.int32).tobytes())
        work = (
            (self._workshop.cache or Path("data")) / "llm-systems" / digest.hexdigest()[:16]
        )  # what learns from the same prompts shares the adapter
        work.mkdir(parents=True, exist_ok=True)
        done = work / "trained.json"
        with FileLock(work / "lock"):  # another evaluation may want the same adapter at the same time: it waits, and takes it
            if not done.is_file():
                note(f"{self.name}: learning from {len(cases):,} cases of {task.name}, kept in {work}")
                trained = train(self._base, epochs, settings, work, note, start=start)
                shutil.rmtree(work / "adapter", ignore_errors=True)
                shutil.copytree(trained.adapter, work / "adapter")
                done.write_text(json.dumps({"cases": len(cases), **trained.cost}) + "\n", encoding="utf-8")
        self.training_cost = json.loads(done.read_text(encoding="utf-8"))
        return work / "adapter"

    def _epochs(self, cases: Cases, settings: Any, tokens: Any) -> list[Any]:
        raise NotImplementedError

    def _room(self, cases: Cases, wanted: int) -> int:
        """So many negatives, or as many as every case leaves."""
        return max(1, min(wanted, self._task.n_items - 1 - max(map(len, cases.history))))


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
            if order is not None:  # best first; those given alike in the order of the catalogue, for the place in the list says nothing
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
        from recgraph.train.examples import Row
        from recgraph.train.lora.job import draw

        among = drawn(self._task, cases, self.settings.seed, count=self._room(cases, settings.negatives * settings.epochs))
        groups: dict[int, list[Any]] = {}
        for row in range(len(cases)):
            items = [self._items[item] for item in among[row]]
            asked = prompts.fit_prompts(self.shared(cases, row), items, wording=self.settings.wording)
            user = self._user(cases, row)
            groups[row] = [
                Row("train", user, row, row, item.item_id, prompt.system, prompt.user, "No" if place else "Yes", "random" if place else "positive")
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
    lora: Mapping[str, Any] = {**LORA, "batch": 4}  # an example is a whole case: as many cases a step as Yes and No have

    def fit(self, task: Task, note: Note) -> None:
        """As all do; SettingsError for more candidates than there are letters."""
        if self.depth > len(LETTERS):
            raise SettingsError(f"baselines.{self.name}.depth is {self.depth}; there are letters for {len(LETTERS)} candidates.")
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
            raise SettingsError(f"{self.name} is asked to choose among {len(there)} items; there are letters for {len(LETTERS)}.")
        there = there[np.argsort(candidates[there], kind="stable")]
        rng = np.random.default_rng([self.settings.seed, int(cases.user[row]), len(cases.history[row])])
        return np.asarray(rng.permutation(there), np.int64)

    def _prompt(self, cases: Cases, row: int, items: Rows) -> Prompt:
        listed = {letter: self._items[item] for letter, item in zip(LETTERS, items, strict=False)}
        return prompts.choice_prompt(self.shared(cases, row), listed, wording=self.settings.wording)

    def _epochs(self, cases: Cases, settings: Any, tokens: Any) -> list[Any]:
        found = []
        for epoch in range(settings.epochs):
            count = self._room(cases, max(self.depth - 1, NEGATIVES))  # no letter may be asked that was never learnt
            among = drawn(self._task, cases, self.settings.seed + epoch, count=count)
            order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(cases))
            examples = []
            for row in order:
                there = self._shuffled(cases, row, among[row])
                answer = LETTERS[int(np.flatnonzero(there == 0)[0])]
                examples.append(
                    tokens.example(self._prompt(cases, row, among[row, there]), answer, group=int(row), stop=False, limit=settings.max_tokens)
                )
            found.append(examples)
        return found
