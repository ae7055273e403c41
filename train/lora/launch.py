"""Training in several processes: accelerate's launcher (torchrun, DeepSpeed ZeRO-2 as T 5.2.2, FSDP), and what each
process runs.

    python -m recgraph.train.lora.launch TASK FOLDER   one of the processes; started by accelerate, not by hand
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from recgraph.errors import LLMError, SettingsError
from recgraph.tools.llm.adapter_sets import ADAPTERS
from recgraph.tools.llm.places import placement
from recgraph.train.lora.job import Job, train_job
from recgraph.train.lora.training import TrainedAdapter
from recgraph.train.params import load_params
from recgraph.train.pipeline import Note


def launch(job: Job, folder: Path, note: Note) -> TrainedAdapter:
    """Trains under accelerate's launcher and reads what the first process left in the job's work folder. SettingsError
    where the engine needs GPUs that are not there, LLMError where a process fails."""
    engine, on_cpu = job.sft.engine, placement()[0] == "cpu"
    if on_cpu and engine != "torchrun":
        raise SettingsError(
            f"sft.engine is '{engine}' in params.yaml, which needs GPUs, and there is none here. Use torchrun or "
            "single."
        )
    config = Path(__file__).resolve().parent / "engines" / f"{engine}{'_cpu' if on_cpu else ''}.yaml"
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(config),
        "--num_processes",
        str(job.sft.processes),
    ]
    command += ["-m", "recgraph.train.lora.launch", job.task, str(folder.resolve())]
    note(f"{job.sft.processes} processes under accelerate ({engine})")
    finished = subprocess.run(command, check=False, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
    if finished.returncode:
        raise LLMError(
            f"Training under accelerate ({engine}) ended with exit code {finished.returncode}; its own message stands "
            "above."
        )
    facts: dict[str, Any] = json.loads((job.work / "launched.json").read_text(encoding="utf-8"))
    return TrainedAdapter(Path(facts["adapter"]), facts["curve"], facts["hard"], facts["cost"])


def work(task: str, folder: Path) -> None:
    """One of several processes: trains, and the first tells what came out."""
    job = Job.of({**load_params(folder), "task": task}, folder)
    leads = os.environ.get("RANK", "0") == "0"
    trained = train_job(job, _to_stderr if leads else _silent)
    if leads:
        facts = {"adapter": str(trained.adapter), "cost": trained.cost, "curve": trained.curve, "hard": trained.hard}
        (job.work / "launched.json").write_text(json.dumps(facts), encoding="utf-8")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    del line


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ADAPTERS:
        raise SystemExit(
            "usage: python -m recgraph.train.lora.launch TASK FOLDER (started by accelerate; use `recgraph train sft`)"
        )
    work(sys.argv[1], Path(sys.argv[2]))
