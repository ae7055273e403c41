"""Stage `sft`: one LoRA adapter, trained and measured. `recgraph train sft --task next|fit|summarize`.

    adapters/<preset>/<task>/        the adapter in bf16, with its card recgraph.json
    metrics/sft/<preset>/<task>.json before and after, on held-out users; <task>_loss.csv the loss of each step; <task>_cost.json time and memory

What is trained is planned here (which examples, in which order, with which weight), how is `train/lora/training.py`'s. Checkpoints lie in
data/sft/<preset>-<task>-<hash of settings and data>, so that a killed run goes on and changed settings begin anew. `sft.engine` says who
runs it: this process, or accelerate's launcher with several processes (torchrun, DeepSpeed ZeRO-2 as T 5.2.2, FSDP).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.errors import LLMError, SettingsError, StoreError
from recgraph.graph.grounding import Vocabulary
from recgraph.graph.prompts import VERSIONS, clean, next_form, parse_next
from recgraph.store import snapshot
from recgraph.store.parquet import read_table
from recgraph.tools.llm.adapter_sets import WEIGHTS, AdapterCard, portable
from recgraph.tools.llm.places import find_llm, fingerprint, model_title, placement, quiet_transformers
from recgraph.tools.llm.protocol import LLM, Prompt
from recgraph.train.examples import POOLS, Row
from recgraph.train.lora.training import Epoch, LoraSettings, Tokens, TrainedAdapter, load_base, perplexities, train
from recgraph.train.metrics import auc
from recgraph.train.pipeline import TASKS, Note, Params, block, needed, value
from recgraph.train.prepare import read_facts
from recgraph.train.summary.checks import summary_report, written

SUMMARIES = 24  # held-out summaries written before and after at most: each is a hundred tokens, one by one
ENGINES = ("single", "torchrun", "deepspeed", "fsdp")
Groups = Mapping[int, Sequence[Row]]


def read_rows(file: Path, part: str) -> dict[int, list[Row]]:
    """The rows of one part of an examples file, by group, in the file's order."""
    columns = read_table(needed(file, "examples"))
    plain = (columns[name].tolist() if isinstance(columns[name], np.ndarray) else columns[name] for name in Row.__slots__)
    groups: dict[int, list[Row]] = {}
    for row in zip(*plain, strict=True):
        if row[0] == part:
            groups.setdefault(row[3], []).append(Row(*row))
    return groups


def draw(groups: Groups, settings: LoraSettings, epoch: int, tokens: Tokens) -> Epoch:
    """One epoch's examples: the groups in a seeded order, the rows of one together so that they share a trunk.

    Of a FIT case the target and `negatives` drawn from its pool, kinds in turn (T draws one); the target weighs as much as its negatives
    together, so that Yes and No are equally frequent. Only tasks that write learn to stop.
    """
    random = np.random.default_rng([settings.seed, epoch])
    names = sorted(groups)
    chosen: list[Any] = []
    for name in [names[place] for place in random.permutation(len(names))]:
        rows = groups[name]
        judged = rows[0].answer in ("Yes", "No")
        if judged:
            wrong = _negatives([row for row in rows if row.answer == "No"], settings.negatives, random)
            rows = [*(row for row in rows if row.answer == "Yes"), *wrong]
        for row in rows:
            weight = 1.0 if not judged or row.answer == "Yes" else 1.0 / max(1, len(rows) - 1)
            prompt = Prompt(row.system, row.user)
            silent = "" if judged or settings.unseen_ids or not row.item_id or row.item_id in row.user else row.item_id
            chosen.append(tokens.example(prompt, row.answer, weight=weight, group=name, stop=not judged, limit=settings.max_tokens, silent=silent))
    return chosen


def _negatives(pool: Sequence[Row], count: int, random: np.random.Generator) -> list[Row]:
    by_kind = [[row for row in pool if row.kind == kind] for kind in POOLS]
    shuffled = [[rows[place] for place in random.permutation(len(rows))] for rows in by_kind if rows]
    in_turn = [shuffled[kind] for kind in random.permutation(len(shuffled))]
    found = [rows[turn] for turn in range(max(map(len, in_turn), default=0)) for rows in in_turn if turn < len(rows)]
    return found[:count]


def first(groups: Groups, count: int) -> dict[int, Sequence[Row]]:
    """The first `count` groups (0: all): examples are written in a seeded order, so any cut is a fair sample."""
    return {name: groups[name] for name in sorted(groups)[: count or None]}


# ── What an adapter can do, on held-out users ────────────────────────────────────────────────────────────────────────────────────────


def measure_next(llm: LLM, groups: Groups, known: Collection[str], adapter: str | None) -> dict[str, float]:
    """Greedy answers to task NEXT, written freely and held to the catalogue's ids (`constrain`), as shares of all answers.

    `invalid` (F: 7 %) is either `invalid_format`, not the two lines asked for, or `unknown_id`, an id the catalogue does not have.
    exact_id and exact_title count an invalid answer as a miss. `constrained_` are those of answers held to the form.
    """
    rows = [row for group in groups.values() for row in group]
    asked = [Prompt(row.system, row.user) for row in rows]
    form = next_form(sorted(known), {}, free_title=True)
    found: dict[str, float] = {"answers": float(len(rows))}
    for name, held in (("", None), ("constrained_", form)):
        answers, _ = llm.generate(asked, max_tokens=64, form=held, adapter=adapter)
        formed = [parse_next(answer.text, lambda _: True, {}) for answer in answers]
        right = [(told, row) for told, row in zip(formed, rows, strict=True) if told.valid and told.item_id in known]
        found |= {
            f"{name}invalid": 1 - len(right) / len(rows) if rows else 0.0,
            f"{name}invalid_format": _share([not told.valid for told in formed]),
            f"{name}unknown_id": _share([told.valid and told.item_id not in known for told in formed]),
            f"{name}exact_id": sum(told.item_id == row.item_id for told, row in right) / max(1, len(rows)),
            f"{name}exact_title": sum(f"Title: {clean(told.title)}" == row.answer.split("\n")[1] for told, row in right) / max(1, len(rows)),
        }
    return found


def measure_fit(llm: LLM, groups: Groups, adapter: str | None) -> dict[str, float]:
    """AUC of the Yes/No logit difference: targets against `random` products (T's protocol), against `alike` and `shown` ones, and all; and
    the perplexity of the right answers, which are one token each."""
    scored: dict[str, list[float]] = {kind: [] for kind in ("positive", *POOLS)}
    surprise: list[float] = []
    for rows in groups.values():
        pairs, _ = llm.score([Prompt(row.system, row.user) for row in rows], adapter=adapter)
        for row, (yes, no) in zip(rows, pairs, strict=True):
            scored[row.kind].append(yes - no)
            surprise.append(-(yes if row.answer == "Yes" else no))
    against = {kind: auc(scored["positive"], scored[kind]) for kind in POOLS if scored[kind]}
    every = [score for kind in POOLS for score in scored[kind]]
    whole = {"cases": float(len(groups)), "prompts": float(len(surprise)), "auc": auc(scored["positive"], every)}
    perplexity = math.exp(sum(surprise) / len(surprise)) if surprise else math.nan
    return whole | {f"auc_{kind}": found for kind, found in against.items()} | {"perplexity": perplexity}


def measure_summaries(llm: LLM, groups: Groups, vocabulary: Vocabulary, adapter: str | None) -> dict[str, float]:
    """Grounding, copying and length of greedy summaries (`train/summary/checks.py`)."""
    rows = [row for group in groups.values() for row in group]
    texts = written(llm, [Prompt(row.system, row.user) for row in rows], adapter)
    return dict(summary_report(texts, [row.user for row in rows], vocabulary, llm.count_tokens))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


# ── The stage ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Job:
    """One adapter to train: everything that decides what comes out."""

    task: str
    preset: str
    settings: LoraSettings
    base: Path
    examples: Path
    work: Path

    @classmethod
    def of(cls, params: Params, folder: Path) -> Job:
        """From params.yaml and params["task"]. SettingsError, StoreError, ModelMissing."""
        task, preset = str(params["task"]), str(value(params, "", "preset"))
        presets = block(params, "presets")
        if preset not in presets:
            raise SettingsError(f"preset is '{preset}' in params.yaml; it must be one of {', '.join(presets)}.")
        settings = LoraSettings.of(presets[preset].get(task, {}), f"presets.{preset}.{task}")
        base = find_llm(str(value(params, "sft", "llm")))
        examples = needed(folder / "data" / "examples" / f"{task}.parquet", "examples")
        threads = int(value(params, "sft", "threads"))
        decisive = {name: given for name, given in asdict(settings).items() if name not in ("eval_cases", "save_steps")}
        engine = str(value(params, "sft", "engine"))
        # A step of two processes is another one: their checkpoints must not be taken up by one, nor the other way round.
        together = [] if engine == "single" else [engine, int(value(params, "sft", "processes"))]
        identity = json.dumps([decisive, fingerprint(base), _sha256(examples), threads, *together], sort_keys=True)
        work = folder / "data" / "sft" / f"{preset}-{task}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        return cls(task, preset, settings, base, examples, work)

    def groups(self, part: str) -> dict[int, list[Row]]:
        return read_rows(self.examples, part)


def train_job(job: Job, threads: int, note: Note, after: Callable[[Path], None] | None = None) -> TrainedAdapter:
    """Trains, in this process or as one of several. `threads` is torch's (0: as it is); equal threads give equal weights."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    tokens = Tokens(job.base)
    groups = first(job.groups("train"), job.settings.cases)
    if not groups:
        raise StoreError(f"{job.examples} has no rows to train on. Raise examples.train_cases, or give a shop with purchases before the cut.")
    epochs = [draw(groups, job.settings, epoch, tokens) for epoch in range(job.settings.epochs)]
    return train(job.base, epochs, job.settings, job.work, note, after)


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: preset, presets.<preset>.<task> (see LoraSettings), sft.{engine, processes, threads, llm}; the task as params["task"]."""
    job = Job.of(params, folder)
    threads, engine = int(value(params, "sft", "threads")), str(value(params, "sft", "engine"))
    if engine not in ENGINES:
        raise SettingsError(f"sft.engine is '{engine}' in params.yaml; it must be one of {', '.join(ENGINES)}.")
    job.work.mkdir(parents=True, exist_ok=True)
    exam = _Exam(job, folder, threads)
    between: dict[str, float] = {}

    def after(adapter: Path) -> None:
        if job.settings.retrain_share and not (job.work / "between.json").is_file():
            note("measuring before the hard examples are trained further")
            (job.work / "between.json").write_text(json.dumps(exam.measure(adapter)), encoding="utf-8")

    if engine == "single":
        trained = train_job(job, threads, note, after)
        adapter, cost, curve, hard = trained.adapter, trained.cost, trained.curve, len(trained.hard)
    else:
        adapter, cost, curve, hard = _launched(params, folder, job, engine, int(value(params, "sft", "processes")), note)
    if (job.work / "between.json").is_file():
        between = json.loads((job.work / "between.json").read_text(encoding="utf-8"))
    target = folder / "adapters" / job.preset / job.task
    shutil.rmtree(target, ignore_errors=True)
    save_small(adapter, target)
    portable(target, model_title(job.base))
    note("measuring before and after, on held-out users")
    metrics: dict[str, Any] = {"before": exam.measure(None)} | ({"before_retraining": between} if between else {}) | {"after": exam.measure(target)}
    facts = snapshot.meta(folder / "data" / "prepare" / "all")
    AdapterCard(
        task=job.task,
        base_name=model_title(job.base),
        base_fingerprint=fingerprint(job.base),
        preset=job.preset,
        settings=asdict(job.settings) | {"threads": threads},
        data={
            "source": "simulated" if facts.get("simulated") else facts.get("name", ""),
            "examples_sha256": _sha256(job.examples),
            "fitted_before": read_facts(folder / "data" / "prepare" / str(value(params, "", "split")))["fitted_before"],
            "examples": int(cost["examples"]),
            "trained_further": hard,
        },
        metrics=metrics,
        prompt_version=VERSIONS[job.task],
        created_with={name: version(name) for name in ("torch", "transformers", "peft", "trl")},
    ).write(target)
    _write_metrics(folder / "metrics" / "sft" / job.preset, job.task, metrics, curve, cost)
    for name, after_value in metrics["after"].items():
        note(f"  {name}: {metrics['before'].get(name, math.nan):.4g} before, {after_value:.4g} after")


class _Exam:
    """The held-out cases of a task and how to sit them, with the base model or an adapter."""

    def __init__(self, job: Job, folder: Path, threads: int) -> None:
        cases = job.settings.eval_cases
        self._job, self._threads = job, threads
        limit = min(cases, SUMMARIES) if job.task == "summarize" else cases
        self._groups = first(job.groups("test") or job.groups("valid"), limit)
        items = read_table(folder / "data" / "prepare" / "all" / "items.parquet")
        self._known = frozenset(items["item_id"])
        self._vocabulary = Vocabulary({name: set(items[name]) - {""} for name in ("brand", "category", "color")})

    def measure(self, adapter: Path | None) -> dict[str, float]:
        """The task's own measures and the perplexity of the right answers."""
        import torch

        from recgraph.tools.llm.local import LocalLLM

        if self._threads:
            torch.set_num_threads(self._threads)
        task, name = self._job.task, "exam" if adapter else None
        found: dict[str, float]
        llm = LocalLLM(self._job.base, adapters={"exam": str(adapter)} if adapter else None)
        if task == "next":
            found = {**measure_next(llm, self._groups, self._known, name), "perplexity": self._perplexity(adapter)}
        elif task == "fit":
            found = measure_fit(llm, self._groups, name)
        else:
            found = {**measure_summaries(llm, self._groups, self._vocabulary, name), "perplexity": self._perplexity(adapter)}
        return {key: round(number, 6) for key, number in found.items()}

    def _perplexity(self, adapter: Path | None) -> float:
        """exp of the mean log-perplexity of the right answers, each answer counting the same."""
        from peft import PeftModel

        tokens, base = Tokens(self._job.base), load_base(self._job.base)
        with quiet_transformers():
            model = base if adapter is None else PeftModel.from_pretrained(base, adapter)
        rows = [row for group in self._groups.values() for row in group]
        found = perplexities(model, [tokens.example(Prompt(row.system, row.user), row.answer) for row in rows])
        return math.exp(sum(map(math.log, found)) / len(found)) if found else math.nan


def save_small(adapter: Path, target: Path) -> None:
    """Copies a PEFT adapter with its weights in bf16: half the size, and what is measured is what is shipped."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    shutil.copyfile(adapter / "adapter_config.json", target / "adapter_config.json")
    weights = load_file(adapter / WEIGHTS)
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(weights.items())}, target / WEIGHTS, metadata={"format": "pt"})
    (target / WEIGHTS).chmod(0o644)  # safetensors writes it for its owner alone


def _write_metrics(folder: Path, task: str, metrics: Mapping[str, Any], curve: Sequence[Sequence[Any]], cost: Mapping[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "date": _today()}
    for name, told in ((f"{task}.json", metrics), (f"{task}_cost.json", {**cost, **machine})):
        (folder / name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    steps = {phase: 0 for phase, *_ in curve}
    offset = 0
    lines = ["step,phase,loss"]
    for phase in steps:
        own = [(step, loss) for name, step, loss, *_ in curve if name == phase]
        lines += [f"{offset + step},{phase},{loss:.6f}" for step, loss in own]
        offset += max((step for step, _ in own), default=0)
    (folder / f"{task}_loss.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).date().isoformat()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ── Several processes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _launched(params: Params, folder: Path, job: Job, engine: str, processes: int, note: Note) -> tuple[Path, dict[str, float], list[Any], int]:
    """Trains under accelerate's launcher and reads what the first process left in `work`."""
    on_cpu = placement()[0] == "cpu"
    if on_cpu and engine != "torchrun":
        raise SettingsError(f"sft.engine is '{engine}' in params.yaml, which needs GPUs, and there is none here. Use torchrun or single.")
    config = Path(__file__).resolve().parent / "lora" / "engines" / f"{engine}{'_cpu' if on_cpu else ''}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", str(processes)]
    command += ["-m", "recgraph.train.sft", job.task, str(folder.resolve())]
    note(f"{processes} processes under accelerate ({engine})")
    finished = subprocess.run(command, check=False, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
    if finished.returncode:
        raise LLMError(f"Training under accelerate ({engine}) ended with exit code {finished.returncode}; its own message stands above.")
    told = json.loads((job.work / "launched.json").read_text(encoding="utf-8"))
    return Path(told["adapter"]), told["cost"], told["curve"], told["hard"]


def _worker(task: str, folder: Path) -> None:
    """One of several processes: trains, and the first tells what came out."""
    from recgraph.train.pipeline import load_params

    params = {**load_params(folder), "task": task}
    job = Job.of(params, folder)
    leads = os.environ.get("RANK", "0") == "0"
    trained = train_job(job, int(value(params, "sft", "threads")), _to_stderr if leads else _silent)
    if leads:
        told = {"adapter": str(trained.adapter), "cost": trained.cost, "curve": trained.curve, "hard": len(trained.hard)}
        (job.work / "launched.json").write_text(json.dumps(told), encoding="utf-8")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    del line


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TASKS:
        raise SystemExit("usage: python -m recgraph.train.sft TASK FOLDER (started by accelerate; use `recgraph train sft`)")
    _worker(sys.argv[1], Path(sys.argv[2]))
