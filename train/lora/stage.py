"""Stage `sft`: one LoRA adapter, trained and measured. `recgraph train sft --task recommend|next|fit|summarize`.

    adapters/<preset>/<task>/        the adapter in bf16, with its card recgraph.json
    metrics/sft/<preset>/<task>.json before and after, on held-out users; <task>_loss.csv the loss of each step;
                                     <task>_cost.json time and memory

What is trained is planned in train/lora/job.py, how in train/lora/training.py; several processes are
train/lora/launch.py's, and what the adapter can do afterwards is train/lora/exam.py's.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recgraph.graph.prompts import VERSIONS
from recgraph.store import snapshot
from recgraph.tools.llm.adapter_sets import CARD, AdapterCard, portable
from recgraph.tools.llm.places import fingerprint, model_title
from recgraph.train.lora.exam import Exam
from recgraph.train.lora.job import Job, sha256_of, train_job
from recgraph.train.lora.launch import launch
from recgraph.train.lora.training import TrainedAdapter, save_small
from recgraph.train.params import Params
from recgraph.train.pipeline import Note, split_folder
from recgraph.train.prepare import read_facts


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, preset, presets.<preset>.<task> (LoraSettings), the fields of `SftParams`; the task as
    params["task"]."""
    job, split = Job.of(params, folder), split_folder(params, folder)
    target = folder / "adapters" / job.preset / job.task
    facts = {"source": _source(folder), "fitted_before": read_facts(split)["fitted_before"]}
    if job.keeps(target, facts):
        note(f"{target} stays as it is, whatever the examples: `sft.keep` in params.yaml names its preset")
        return
    job.work.mkdir(parents=True, exist_ok=True)
    exam, halfway = Exam(job, folder), job.work / "between.json"

    def after(adapter: Path) -> None:
        if job.settings.retrain_share and not halfway.is_file():
            note("measuring before the hard examples are trained further")
            halfway.write_text(json.dumps(exam.measure(adapter)), encoding="utf-8")

    trained = train_job(job, note, after) if job.sft.engine == "single" else launch(job, folder, note)
    between = json.loads(halfway.read_text(encoding="utf-8")) if halfway.is_file() else {}
    (target / CARD).unlink(missing_ok=True)  # first: a kill from here on leaves nothing that would be kept
    shutil.rmtree(target, ignore_errors=True)
    save_small(trained.adapter, target)
    portable(target, model_title(job.base))
    note("measuring before and after, on held-out users")
    metrics: dict[str, Any] = (
        {"before": exam.measure(None)}
        | ({"before_retraining": between} if between else {})
        | {"after": exam.measure(target)}
    )
    _write_metrics(folder / "metrics" / "sft" / job.preset, job.task, metrics, trained)
    card_of(job, trained, facts, metrics).write(target)
    for name, after_value in metrics["after"].items():
        note(f"  {name}: {metrics['before'].get(name, math.nan):.4g} before, {after_value:.4g} after")


def card_of(job: Job, trained: TrainedAdapter, facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> AdapterCard:
    """The card of what was trained; `facts` are the `source` of its examples and what they were `fitted_before`."""
    learnt = {
        "examples_sha256": sha256_of(job.examples),
        "examples": int(trained.cost["examples"]),
        "trained_further": len(trained.hard),
    }
    return AdapterCard(
        task=job.task,
        base_name=model_title(job.base),
        base_fingerprint=fingerprint(job.base),
        preset=job.preset,
        settings=asdict(job.settings) | {"threads": job.sft.threads},
        data={**facts, **learnt},
        metrics=metrics,
        prompt_version=VERSIONS[job.task],
        created_with={name: version(name) for name in ("torch", "transformers", "peft", "trl")},
    )


def _source(folder: Path) -> str:
    """Where the shop's data come from, for the card."""
    facts = snapshot.meta(folder / "data" / "prepare" / "all")
    return "simulated" if facts.get("simulated") else facts.get("name", "")


def _write_metrics(folder: Path, task: str, metrics: Mapping[str, Any], trained: TrainedAdapter) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat()}
    for name, facts in ((f"{task}.json", metrics), (f"{task}_cost.json", {**trained.cost, **machine})):
        (folder / name).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    steps = {phase: 0 for phase, *_ in trained.curve}
    offset = 0
    lines = ["step,phase,loss"]
    for phase in steps:
        own = [(step, loss) for name, step, loss, *_ in trained.curve if name == phase]
        lines += [f"{offset + step},{phase},{loss:.6f}" for step, loss in own]
        offset += max((step for step, _ in own), default=0)
    (folder / f"{task}_loss.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
