"""Trains adapters on a machine that has a card and nothing else: what is learnt from travels as tokens.

    # here: what the stage `sft` of a folder would learn from, and what systems of the leaderboard would
    python benchmarks/learn.py pack --out jobs sft --folder .
    python benchmarks/learn.py pack --out jobs system --store beauty.duckdb --keep cache --systems tallrec,llamarec \\
        --set cases=3000
    # there: one after the other; results.jsonl, and an adapter for each
    python benchmarks/learn.py train --base MODEL --out results jobs/*.npz
    # what a step takes there
    python benchmarks/learn.py speed --base MODEL --trees 8192 32768 jobs/shop.npz
    # here: an adapter to where the next evaluation with the same settings looks for what it has trained
    python benchmarks/learn.py keep --jobs jobs --results results --keep cache

A job is everything that decides what comes out: examples by epoch, in the order they are learnt in, and the settings.
`train` needs torch, transformers, peft, trl, click and ruamel.yaml, no store, no encoder and no network. Of each job it
tells tokens a second, the share of the machine's measured matrix-product speed that this is, peak memory and the loss.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

_Epochs = Sequence[Sequence[Any]]


class _Packed(Exception):
    """A system has told what it would learn from."""


@dataclass(frozen=True)
class Learning:
    """What a job's file holds: `start` names an adapter set whose `fit` it goes on from ("": none), `work` the folder,
    beneath the caches, in which a system looks for what it has trained ("": none)."""

    settings: Mapping[str, Any]
    start: str
    work: str


def write_job(file: Path, epochs: _Epochs, what: Learning) -> None:
    """Examples with what each shares with the one before it left out."""
    from recgraph.train.lora.trees import shared_tokens

    every = [example for epoch in epochs for example in epoch]
    shared, rest = np.zeros(len(every), np.int32), list[Any]()
    before = np.empty(0, np.uint32)
    for number, example in enumerate(every):
        tokens = example.tokens
        shared[number] = shared_tokens(before, tokens)
        rest.append(tokens[shared[number] :])
        before = tokens
    largest = max(int(one.max(initial=0)) for one in rest)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file,
        what=np.array(json.dumps(asdict(what))),
        epochs=np.array([len(epoch) for epoch in epochs]),
        shared=shared,
        tokens=np.concatenate(rest).astype(np.uint16 if largest < 1 << 16 else np.uint32),
        prompts=np.array([len(example.prompt) for example in every], np.int32),
        answers=np.array([len(example.answer) for example in every], np.int32),
        weights=np.array([example.weight for example in every]),
        groups=np.array([example.group for example in every], np.int32),
        silent=np.array([example.silent for example in every], np.int32),
    )
    print(f"{file}: {len(every):,} examples, {file.stat().st_size / 2**20:.1f} MiB", file=sys.stderr)


def read_job(file: Path) -> tuple[list[list[Any]], Learning]:
    """As `write_job` was given them."""
    from recgraph.train.lora.trees import Example

    with np.load(file, allow_pickle=False) as held:
        columns = {name: held[name] for name in held.files}
    tokens, begun = columns["tokens"].astype(np.int32), 0

    def examples() -> Iterator[Example]:
        nonlocal begun
        before = np.empty(0, np.int32)
        names = ("shared", "prompts", "answers", "weights", "groups", "silent")
        for shared, prompt, answer, weight, group, silent in zip(*(columns[n].tolist() for n in names), strict=True):
            size = prompt + answer - shared
            before = np.concatenate([before[:shared], tokens[begun : begun + size]])
            begun += size
            parts = (array("i", before[:prompt].tobytes()), array("i", before[prompt:].tobytes()))
            yield Example(*parts, weight, group, tuple(silent))

    every = examples()
    return [list(islice(every, count)) for count in columns["epochs"].tolist()], Learning(
        **json.loads(str(columns["what"]))
    )


# ── Packing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack_stage(given: argparse.Namespace) -> None:
    """What the stage `sft` would learn from, of each task."""
    from recgraph.train.lora.job import Job, draw, first
    from recgraph.train.lora.tokens import Tokens
    from recgraph.train.params import load_params

    for task in given.tasks.split(","):
        job = Job.of({**load_params(given.folder), "task": task}, given.folder)
        groups, tokens = first(job.groups("train"), job.settings.cases), Tokens(job.base)
        epochs = [draw(groups, job.settings, epoch, tokens) for epoch in range(job.settings.epochs)]
        name = given.name or f"{given.folder.resolve().name}-{task}"
        write_job(given.out / f"{name}.npz", epochs, Learning(asdict(job.settings), "", ""))


def pack_systems(given: argparse.Namespace) -> None:
    """What systems of the evaluation would learn from; those that learn from the same prompts are one job."""
    import recgraph.train.lora.training as training
    from recgraph.evaluation.systems import systems
    from recgraph.evaluation.workshop import Workshop
    from recgraph.store.db import Store
    from recgraph.train.task import only_named, read_task

    with Store.open(given.store) as opened:
        task = read_task(opened, given.store.stem, given.split)
    task = only_named(task) if given.items == "named" else task
    tuned = {name: settings_given(given) for name in given.systems.split(",")}
    workshop = Workshop(given.store, given.keep, tuned=tuned)
    packed: dict[str, Any] = {}

    def instead(base: Path, epochs: Any, settings: Any, work: Path, note: Any, *, start: Path | None = None) -> None:
        packed.update(epochs=epochs, settings=asdict(settings), work=str(work.relative_to(given.keep)))
        raise _Packed

    training.train = instead  # type: ignore[assignment]
    for name in tuned:
        try:
            systems([name], workshop)[name](given.seed).fit(task, lambda text: print(text, file=sys.stderr))
        except _Packed:
            what = Learning(packed["settings"], tuned[name].get("start", ""), packed["work"])
            write_job(given.out / f"{given.name or task.name}-{name}.npz", packed["epochs"], what)


def settings_given(given: argparse.Namespace) -> dict[str, Any]:
    """Those of `--set` and `--lora`, each NAME=VALUE with a value of YAML."""
    from ruamel.yaml import YAML

    def read(lines: Sequence[str]) -> dict[str, Any]:
        pairs = (line.split("=", 1) for line in lines)
        return {name: YAML(typ="safe", pure=True).load(value) for name, value in pairs}

    return {**read(given.set), **({"lora": read(given.lora)} if given.lora else {})}


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def train_jobs(given: argparse.Namespace) -> None:
    """One job after the other; each is written before the next begins."""
    import torch

    from adapters import peak_flops
    from recgraph.tools.llm.adapter_sets import find_set, portable
    from recgraph.tools.llm.places import model_title, placement
    from recgraph.train.lora.model import attention_on
    from recgraph.train.lora.training import LoraSettings, save_small, train

    given.out.mkdir(parents=True, exist_ok=True)
    speed, where = peak_flops(), placement()
    machine = {"peak_tflops": round(speed / 1e12, 2), "attention": attention_on(*where), "torch": torch.__version__}
    if where[0] == "cuda":
        machine["card"] = torch.cuda.get_device_name()
    for file in given.jobs:
        begun = time.monotonic()
        epochs, what = read_job(file)
        settings = LoraSettings(**{**what.settings, "save_steps": 1 << 30})
        start = Path(find_set(what.start).tasks["fit"]) if what.start else None
        if where[0] == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory(prefix="recgraph-learn-") as work:
            ready = time.monotonic() - begun

            def note(text: str, name: str = file.stem) -> None:
                print(f"{name}: {text}", file=sys.stderr, flush=True)

            trained = train(given.base, epochs, settings, Path(work), note, start=start)
            shutil.rmtree(given.out / file.stem, ignore_errors=True)
            save_small(trained.adapter, given.out / file.stem)
        portable(given.out / file.stem, model_title(given.base))
        losses = [loss for _, _, loss, _ in trained.curve]
        lines = ["step,phase,loss", *(f"{step},{phase},{loss:.6f}" for phase, step, loss, _ in trained.curve)]
        (given.out / f"{file.stem}_loss.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        ends = [round(sum(part) / max(1, len(part)), 4) for part in (losses[:20], losses[-20:])]
        used = trained.cost["tokens_per_second"] * trained.cost["flops_per_token"] / speed
        told = {"job": file.stem, "date": str(date.today()), **machine, "read_seconds": round(ready, 1), **trained.cost}
        told |= {"share_of_peak": round(used, 4), "steps": len(losses), "loss_begun": ends[0], "loss_ended": ends[1]}
        with (given.out / "results.jsonl").open("a", encoding="utf-8") as results:
            results.write(json.dumps({**told, "settings": dict(what.settings)}) + "\n")
        print(json.dumps(told), flush=True)


def measure_steps(given: argparse.Namespace) -> None:
    """What a step takes, by the tokens of a tree: the median of the last of them, forward, backward and update."""
    import torch
    from peft import get_peft_model

    from adapters import peak_flops
    from recgraph.tools.llm.places import placement
    from recgraph.train.lora.model import attention_on, compile_layers, length_step, load_base, tree_loss
    from recgraph.train.lora.training import LoraSettings, flops_per_token, lora_of
    from recgraph.train.lora.trees import Tree, grow

    (device, dtype), speed = placement(), peak_flops()
    compiled = not given.plain and attention_on(device, dtype) == "tree_flex"
    examples = [example for epoch in read_job(given.job)[0] for example in epoch]
    for size in given.trees:
        cut = list(islice(grow(examples, size), given.steps + 4))
        model = load_base(given.base).to(device)
        each = flops_per_token(model, given.layers)
        if compiled:
            compile_layers(model)
        settings = LoraSettings(rank=16, dropout=0.0, layers=given.layers)
        adapted, seconds = get_peft_model(model, lora_of(model, settings)).train(), list[float]()
        learnt = [weight for weight in adapted.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=5e-4)
        for places, _ in cut:
            begun = time.perf_counter()
            built = Tree([examples[place] for place in places]).tensors(length_step(model, size))
            batch = {name: tensor.to(device) for name, tensor in built.items()}
            with torch.autocast(device, dtype, enabled=dtype == torch.bfloat16):
                loss = tree_loss(adapted, batch).sum() / batch["weights"].sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for the card
            seconds.append(time.perf_counter() - begun)
        took = sorted(seconds[-given.steps :])
        rate = sum(tokens for _, tokens in cut[-given.steps :]) / sum(took)
        told = {"tree_tokens": size, "layers": given.layers, "compiled": compiled, "first": round(seconds[0], 2)}
        told |= {"median": round(took[len(took) // 2], 4), "fastest": round(took[0], 4), "slowest": round(took[-1], 4)}
        told |= {"tokens_per_second": round(rate), "share_of_peak": round(rate * each / speed, 4)}
        print(json.dumps({"date": str(date.today()), "peak_tflops": round(speed / 1e12, 2), **told}), flush=True)


def keep_adapters(given: argparse.Namespace) -> None:
    """Adapters that were trained elsewhere, to the folders in which systems look for theirs."""
    lines = (given.results / "results.jsonl").read_text(encoding="utf-8").splitlines()
    costs = {line["job"]: line for line in map(json.loads, lines)}
    for file in sorted(given.jobs.glob("*.npz")):
        with np.load(file, allow_pickle=False) as held:
            what = Learning(**json.loads(str(held["what"])))
            cases = len(set(held["groups"].tolist()))
        if not what.work or file.stem not in costs:
            continue
        target = given.keep / what.work
        shutil.rmtree(target / "adapter", ignore_errors=True)
        shutil.copytree(given.results / file.stem, target / "adapter")
        facts = {name: costs[file.stem][name] for name in ("examples", "tokens", "plain_tokens", "seconds", "card")}
        (target / "trained.json").write_text(json.dumps({"cases": cases, **facts}) + "\n", encoding="utf-8")
        print(f"{file.stem}: {target}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(required=True)
    pack = does.add_parser("pack", help="what adapters learn from, as tokens")
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument("--name", default="", help="the job's")
    of = pack.add_subparsers(required=True)
    stage = of.add_parser("sft", help="of the pipeline's stage")
    stage.add_argument("--folder", type=Path, default=Path(), help="where params.yaml is")
    stage.add_argument("--tasks", default="recommend")
    stage.set_defaults(run=pack_stage)
    system = of.add_parser("system", help="of systems of the evaluation")
    system.add_argument("--store", type=Path, required=True)
    system.add_argument("--split", default="loo")
    system.add_argument("--items", default="all", choices=["all", "named"])
    system.add_argument("--systems", default="tallrec,recgraph-hierarchical,recgraph-recurrent,llamarec")
    system.add_argument("--keep", type=Path, required=True, help="the evaluation's folder of caches")
    system.add_argument("--seed", type=int, default=0)
    system.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as in the block baselines")
    system.add_argument("--lora", action="append", default=[], metavar="NAME=VALUE")
    system.set_defaults(run=pack_systems)
    learn = does.add_parser("train", help="one job after the other")
    learn.add_argument("--base", type=Path, required=True, help="folder of the base model")
    learn.add_argument("--out", type=Path, required=True)
    learn.add_argument("jobs", type=Path, nargs="+")
    learn.set_defaults(run=train_jobs)
    steps = does.add_parser("speed", help="what a step takes")
    steps.add_argument("--base", type=Path, required=True, help="folder of the base model")
    steps.add_argument("--trees", type=int, nargs="+", default=[1024], help="tokens of a tree")
    steps.add_argument("--layers", type=int, default=15, help="so many of the last get an adapter; 0: all")
    steps.add_argument("--steps", type=int, default=8)
    steps.add_argument("--plain", action="store_true", help="layers not compiled")
    steps.add_argument("job", type=Path)
    steps.set_defaults(run=measure_steps)
    keep = does.add_parser("keep", help="adapters to where evaluations look for them")
    keep.add_argument("--jobs", type=Path, required=True)
    keep.add_argument("--results", type=Path, required=True)
    keep.add_argument("--keep", type=Path, required=True)
    keep.set_defaults(run=keep_adapters)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
