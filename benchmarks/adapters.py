"""Trains the adapter `recommend` on a real data set and tells what it cost. The script for a GPU host; on a CPU
give --cases.

    # All data, on a GPU:
    python benchmarks/adapters.py --data beauty --source ../shared/data/amazon-beauty-2014 --work /tmp/beauty
    python benchmarks/adapters.py --data fashion --source ../shared/data/fashion-purchases --work /tmp/fashion
    # A sample, on a CPU:
    python benchmarks/adapters.py --data beauty --source … --work /tmp/beauty --cases 40 --preset small

It ingests, runs the pipeline's own stages (prepare, title_embeddings, memory, examples, sft) in the work folder and
prints a table: examples, tokens computed, tokens a second, the share of the machine's measured matrix-product speed
that this is, peak memory, minutes, and what the adapter can do before and after. The adapters stay in
WORK/adapters/<preset>. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import time
from datetime import date
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from recgraph.evaluation.origin import machine

FORMATS = {"beauty": ("sequences", "general"), "fashion": ("open-ecommerce", "fashion")}
STAGES = ("prepare", "title_embeddings", "memory", "examples")


def peak_flops() -> float:
    """Floating-point operations a second of a large matrix product in the number format that training uses, the best of
    five."""
    import torch

    from recgraph.tools.llm.places import placement

    device, dtype = placement()
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):  # the first one warms up
        started = time.perf_counter()
        for _ in range(8):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / 8)
    return 2 * size**3 / best


def params_of(
    repository: Path, data: Path, split: str, preset: str, cases: int, wording: str, exam: int
) -> dict[str, Any]:
    """The repository's params.yaml, pointed at this store; `cases` limits examples and training (0: all), `exam` the
    held-out cases that are measured (0: the preset's)."""
    params: dict[str, Any] = YAML(typ="safe", pure=True).load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"data": str(data.resolve()), "split": split, "preset": preset}
    params["examples"] |= {
        "train_cases": cases,
        "test_cases": min(cases, 1000) or 1000,
        "wording": wording,
        "summary_users": 1,
    }
    params["presets"][preset]["recommend"]["cases"] = cases
    if exam:
        params["presets"][preset]["recommend"]["eval_cases"] = exam
    return params


@click.command(help=__doc__)
@click.option("--data", "name", type=click.Choice(list(FORMATS)), required=True)
@click.option("--source", type=click.Path(exists=True, path_type=Path), required=True, help="the raw data set")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="folder for everything that is made")
@click.option(
    "--split", type=click.Choice(["time", "loo"]), default=None, help="loo for beauty, time for fashion unless given"
)
@click.option("--preset", default="gpu", show_default=True)
@click.option("--cases", default=0, help="a seeded sample of so many cases; 0: all")
@click.option("--exam", default=0, help="so many held-out cases before and after; 0: as the preset says")
@click.option("--prepare", is_flag=True, help="only what comes before the training")
@click.option("--task", "tasks", multiple=True, default=("recommend",), show_default=True)
def main(
    name: str,
    source: Path,
    work: Path,
    split: str | None,
    preset: str,
    cases: int,
    exam: int,
    prepare: bool,
    tasks: tuple[str, ...],
) -> None:
    from recgraph.store.ingest.load import ingest
    from recgraph.tools.llm.places import placement
    from recgraph.train.lora.model import attention_on
    from recgraph.train.pipeline import run_stage

    format_, wording = FORMATS[name]
    work.mkdir(parents=True, exist_ok=True)
    store = work / f"{name}.duckdb"
    if not store.exists():
        click.echo(f"ingesting {source}")
        ingest(store, format_, [source])
    chosen = split or ("loo" if name == "beauty" else "time")
    params = params_of(Path(__file__).resolve().parent.parent, store, chosen, preset, cases, wording, exam)
    with (work / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    identity = work / "stages.json"
    wanted = json.dumps(
        {key: params[key] for key in ("data", "split", "prepare", "title_embeddings", "examples")}, sort_keys=True
    )
    if not identity.is_file() or identity.read_text(encoding="utf-8") != wanted:
        for stage in STAGES:
            started = time.monotonic()
            run_stage(stage, work, note=click.echo)
            click.echo(f"» {stage}: {time.monotonic() - started:.0f} s")
        identity.write_text(wanted, encoding="utf-8")
    if prepare:
        return
    speed = peak_flops()
    rows = []
    for task in tasks:
        run_stage("sft", work, task=task, note=click.echo)
        folder = work / "metrics" / "sft" / preset
        cost, metrics = (
            json.loads((folder / file).read_text(encoding="utf-8")) for file in (f"{task}_cost.json", f"{task}.json")
        )
        rows.append((task, cost, metrics))
    shutil.rmtree(work / "data" / "sft", ignore_errors=True)
    click.echo(
        f"\n{name}, split {chosen}, preset {preset}, {date.today()}; {machine()}; matrix products {speed / 1e12:.2f} "
        f"TFLOP/s; attention '{attention_on(*placement())}'"
    )
    click.echo(
        "| task | examples | tokens | tok/s | of peak | peak memory | minutes | before → after "
        "|\n|---|---|---|---|---|---|---|---|"
    )
    for task, cost, metrics in rows:
        used = cost["tokens_per_second"] * cost["flops_per_token"] / speed
        told = ", ".join(
            f"{key} {metrics['before'][key]:.3f} → {value:.3f}"
            for key, value in metrics["after"].items()
            if key in metrics["before"]
        )
        click.echo(
            f"| {task} | {cost['examples']:,.0f} | {cost['tokens']:,.0f} | {cost['tokens_per_second']:,.0f} | "
            f"{used:.0%} | "
            f"{cost['peak_memory_gib']:.1f} GiB | {cost['seconds'] / 60:.1f} | {told} |"
        )


if __name__ == "__main__":
    main()
