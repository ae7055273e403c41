"""What all systems of `llm.py` share: how one language model is shown the cases of a task, and how an adapter for it is
trained, or found.

It knows prompts' parts, summaries, adapters and the first stage; what is asked of a candidate, and how the answer
scores it, is the systems' own.
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
from recgraph.graph.state import RunContext
from recgraph.graph.summary.grounding import CatalogueWords
from recgraph.graph.summary.summarize import build_summarize
from recgraph.graph.summary.summarizers import LLMSummarizer, ProfileSummarizer, Summarizer
from recgraph.store.db import Store
from recgraph.store.records import EPOCH, Action, Event, Item, Summary
from recgraph.tools.llm.adapter_sets import find_set
from recgraph.tools.llm.chat import ChatText
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import find_llm, fingerprint
from recgraph.tools.llm.protocol import Usage
from recgraph.train.params import settings_of
from recgraph.train.task import Cases, Note, Reranker, Scores, System, Task

_ACTIONS: tuple[Action, ...] = ("click", "cart", "purchase")


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


# What a small model on a CPU is trained with (params.yaml, presets.default.fit); any of it can be set under `lora`.
LORA: Mapping[str, Any] = {
    "rank": 8, "alpha": 16, "dropout": 0.0, "layers": 15, "learning_rate": 5e-4, "negatives": 9, "batch": 40,
    "tree_tokens": 1536, "max_tokens": 2048,
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
        self._chat = ChatText(AutoTokenizer.from_pretrained(self._base, trust_remote_code=False))
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
        self._vocabulary, self._currency = CatalogueWords({}), ""
        if self._workshop.store is None:
            self._items = [Item(item_id, text) for item_id, text in zip(task.item_ids, task.texts, strict=True)]
            return
        with Store.open(self._workshop.store) as opened:
            known = opened.items(task.item_ids)
            self._vocabulary, self._currency = CatalogueWords(opened.attribute_values()), opened.meta("currency") or ""
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
            writer = LLMSummarizer(
                LocalLLM(self._base), self._vocabulary, wording=self.settings.wording, currency=self._currency
            )
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
            raise SettingsError(
                f"The adapter set '{wanted}' has no adapter of task fit; it has {', '.join(found.tasks)}."
            )
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
            raise SettingsError(
                f"{task.name} has no train case for {self.name} to learn from; set baselines.{self.name}.adapter to "
                "none."
            )
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
        # another evaluation may want the same adapter at the same time: it waits, and takes it
        with FileLock(work / "lock"):
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
