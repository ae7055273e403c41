"""One adapter to train: the job as params.yaml describes it, its examples, and the order they are learnt in. How a step
is made is train/lora/training.py's; what an adapter can do, train/lora/exam.py's. Checkpoints lie in
data/sft/<preset>-<task>-<hash of settings and data>, so that a killed run goes on and changed settings begin anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from recgraph.errors import SettingsError, StoreError
from recgraph.graph.prompts import VERSIONS
from recgraph.tools.llm.adapter_sets import WEIGHTS, AdapterCard
from recgraph.tools.llm.places import find_llm, fingerprint
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.examples.negatives import POOLS
from recgraph.train.examples.rows import Row, read_rows
from recgraph.train.lora.tokens import Lesson, Tokens
from recgraph.train.lora.training import Epoch, LoraSettings, TrainedAdapter, train
from recgraph.train.params import RESTORE, Params, block, settings_of, text
from recgraph.train.pipeline import Note, needed

Groups = Mapping[int, Sequence[Row]]


@dataclass(frozen=True)
class SftParams:
    """The block `sft` of params.yaml. `llm` is the base model, a folder or hub id ("" the default one); `engine` says
    who runs the training: this process, or accelerate's launcher with so many `processes`; `threads` are torch's (0: as
    it is), equal threads give equal weights. Adapters of presets in `keep` are not trained again for other examples."""

    llm: str
    engine: Literal["single", "torchrun", "deepspeed", "fsdp"]
    processes: int
    threads: int
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One adapter to train: everything that decides what comes out. `task` is its name, of ADAPTERS: `next` and `fit`
    learn from their own rows of the examples of `recommend`, and are set as it is where they have no settings."""

    task: str
    preset: str
    settings: LoraSettings
    sft: SftParams
    base: Path
    examples: Path
    work: Path

    @classmethod
    def of(cls, params: Params, folder: Path) -> Job:
        """From params.yaml and params["task"]. SettingsError, StoreError, ModelMissing."""
        task, sft = str(params["task"]), block(params, "sft", SftParams)
        if not isinstance(presets := params.get("presets"), Mapping):
            raise SettingsError(f"params.yaml has no block `presets:`. {RESTORE}")
        preset = text(params, "preset", *presets)
        file = "summarize" if task == "summarize" else "recommend"
        named = task if task in presets[preset] else file
        settings = settings_of(LoraSettings, presets[preset].get(named, {}), f"presets.{preset}.{named}")
        base = find_llm(sft.llm)
        examples = needed(folder / "data" / "examples" / f"{file}.parquet", "examples")
        # A step of two processes is another one: their checkpoints must not be taken up by one, nor the other way
        # round.
        together = [] if sft.engine == "single" else [sft.engine, sft.processes]
        identity = json.dumps(
            [_decisive(asdict(settings)), fingerprint(base), sha256_of(examples), sft.threads, *together],
            sort_keys=True,
        )
        work = folder / "data" / "sft" / f"{preset}-{task}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        return cls(task, preset, settings, sft, base, examples, work)

    def keeps(self, target: Path, facts: Mapping[str, Any]) -> bool:
        """Whether the adapter in this folder stays as it is: its preset is kept, and it was trained upon this base with
        these settings and prompts, for a shop of these `facts` (`source`, `fitted_before`). From which examples does
        not count: another processor's have other last digits."""
        card = AdapterCard.read(target) if (target / WEIGHTS).is_file() else None
        if card is None or self.preset not in self.sft.keep:
            return False
        if any(card.data.get(name) != value for name, value in facts.items()):
            return False
        same = card.base_fingerprint == fingerprint(self.base) and card.prompt_version == VERSIONS[self.task]
        learnt = asdict(LoraSettings()) | dict(card.settings)  # a card may be older than a setting
        return same and _decisive(learnt) == _decisive(asdict(self.settings))

    def groups(self, part: str) -> dict[int, list[Row]]:
        """The rows of a part that the adapter is for, by group."""
        every = read_rows(self.examples, part)
        if self.task not in ("next", "fit"):
            return every
        return {name: [row for row in rows if row.judged == (self.task == "fit")] for name, rows in every.items()}


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of LoRA settings those that the weights hang on."""
    return {name: given for name, given in settings.items() if name not in ("eval_cases", "save_steps", "threads")}


def train_job(job: Job, note: Note, after: Callable[[Path], None] | None = None) -> TrainedAdapter:
    """Trains, in this process or as one of several."""
    if job.sft.threads:
        torch.set_num_threads(job.sft.threads)
    tokens = Tokens(job.base)
    groups = first(job.groups("train"), job.settings.cases)
    if not groups:
        raise StoreError(
            f"{job.examples} has no rows to train on. Raise examples.train_cases, or give a shop with purchases "
            "before the cut."
        )
    epochs = [draw(groups, job.settings, epoch, tokens) for epoch in range(job.settings.epochs)]
    return train(job.base, epochs, job.settings, job.work, note, after)


def draw(groups: Groups, settings: LoraSettings, epoch: int, tokens: Tokens) -> Epoch:
    """One epoch's examples: the groups in a seeded order, the rows of one together so that they share a trunk.

    Of the FIT rows of a case the target and `negatives` drawn from its pool, kinds in turn (T draws one); the target
    weighs as much as its negatives together, so that Yes and No are equally frequent. Only tasks that write learn to
    stop.
    """
    random = np.random.default_rng([settings.seed, epoch])
    names = sorted(groups)
    chosen: list[Lesson] = []
    for name in [names[place] for place in random.permutation(len(names))]:
        rows = groups[name]
        wrong = _negatives([row for row in rows if row.answer == "No"], settings.negatives, random)
        for row in [*(row for row in rows if row.answer != "No"), *wrong]:
            weight = settings.fit_weight if row.judged else 1.0
            if row.answer == "No":
                weight /= len(wrong)
            prompt = Prompt(row.system, row.user)
            silent = (
                "" if row.judged or settings.unseen_ids or not row.item_id or row.item_id in row.user else row.item_id
            )
            chosen.append(Lesson(prompt, row.answer, weight, group=name, stop=not row.judged, silent=silent))
    return tokens.examples(chosen, settings.max_tokens)


def _negatives(pool: Sequence[Row], count: int, random: np.random.Generator) -> list[Row]:
    by_kind = [[row for row in pool if row.kind == kind] for kind in POOLS]
    shuffled = [[rows[place] for place in random.permutation(len(rows))] for rows in by_kind if rows]
    in_turn = [shuffled[kind] for kind in random.permutation(len(shuffled))]
    found = [rows[turn] for turn in range(max(map(len, in_turn), default=0)) for rows in in_turn if turn < len(rows)]
    return found[:count]


def first(groups: Groups, count: int) -> dict[int, Sequence[Row]]:
    """The first `count` groups (0: all): examples are written in a seeded order, so any cut is a fair sample."""
    return {name: groups[name] for name in sorted(groups)[: count or None]}


def sha256_of(file: Path) -> str:
    """Of its bytes, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
