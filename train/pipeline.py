"""The pipeline's spine: its stages by name, how one is run, and how it tells what it does. Command:
`recgraph train STAGE`.

A stage is a module of this room with `run(params, folder, note)`: `params` is the whole params.yaml, `folder` where it
lies, `note` takes a line to show. At its door it parses what it needs of the params (train/params.py), once; then it
reads and writes below `folder`, and hands nothing back. dvc.yaml says which stage needs what; nothing here knows DVC.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import TypeVar

from recgraph.errors import SettingsError, StoreError
from recgraph.tools.llm.adapter_sets import ADAPTERS
from recgraph.train.params import Params, load_params, text

Note = Callable[[str], None]
T = TypeVar("T")

# Stage → module and what it is for, in the order they run. `sft` is the only one that runs several times, once a task.
STAGES: Mapping[str, tuple[str, str]] = {
    "shop": ("recgraph.train.shop.stage", "simulate the shop"),
    "prepare": ("recgraph.train.prepare", "split the events and pick the cases to predict"),
    "summarize": ("recgraph.train.summarize", "summarise every user's history, both paradigms"),
    "id_embeddings": ("recgraph.train.id_embeddings", "train CORE, the ID embedding"),
    "title_embeddings": ("recgraph.train.title_embeddings", "train or apply the title encoder"),
    "memory": ("recgraph.train.memory", "embed the queries of the query-product memory"),
    "textformer": ("recgraph.train.textformer", "train the text transformer, which reads titles and queries"),
    "ranking": ("recgraph.train.ranking", "learn how far each source of candidates is to be believed"),
    "examples": ("recgraph.train.examples.stage", "write prompts and answers to learn from"),
    "sft": ("recgraph.train.lora.stage", "train a LoRA adapter for each task"),
    "evaluate": ("recgraph.train.evaluate", "measure retrieval on the held-out cases"),
    "publish": ("recgraph.train.publish", "write the store that `recgraph run` uses"),
    "parts": ("recgraph.train.shop.parts", "pack the trained parts that `recgraph demo` ships"),
}
TRAINED = ("recommend", "summarize")  # the adapters that are trained where none is named
SPLITS = ("time", "loo")
_EVERY = 30.0  # seconds between two lines where nobody watches a bar


def run_stage(stage: str, folder: str | Path = ".", task: str = "", note: Note = lambda _: None) -> None:
    """Runs one stage in `folder`. `task`, an adapter's name, is for `sft` alone, which finds it as params["task"];
    without one those of TRAINED are trained in turn.

    Raises SettingsError for a wrong name, StoreError for a missing input, and what the stage raises.
    """
    if stage not in STAGES:
        raise SettingsError(f"'{stage}' is no stage. Stages: {', '.join(STAGES)}.")
    if task and (stage != "sft" or task not in ADAPTERS):
        raise SettingsError(f"--task is '{task}'; it is for the stage sft and one of {', '.join(ADAPTERS)}.")
    params = load_params(folder)
    module = importlib.import_module(STAGES[stage][0])
    for each in (task,) if task or stage != "sft" else TRAINED:
        module.run({**params, "task": each} if each else params, Path(folder), note)


def needed(path: Path, stage: str) -> Path:
    """The path, if it is there; else StoreError with the command that makes it. `stage` is who writes it."""
    if not path.exists():
        raise StoreError(f"There is no {path}. Make it with: recgraph train {stage} (or all at once with: dvc repro)")
    return path


def split_folder(params: Params, folder: Path) -> Path:
    """data/prepare/<split>: the snapshot train/, cases.parquet and split.json of the chosen split. SettingsError,
    StoreError."""
    split = text(params, "split", *SPLITS)
    prepared = needed(folder / "data" / "prepare", "prepare")
    if not (prepared / split).is_dir():
        raise SettingsError(
            f"This shop has no {split} split: its events carry no dates, or too few days. Use: dvc exp run -S split=loo"
        )
    return prepared / split


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar and the time left on standard error; where that is no terminal, one line each 30 s.

    `total` is their number where they have no length.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    if not sys.stderr.isatty():
        yield from _lines(items, label, count)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield from bars.track(items, total=count, description=label)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    started = reported = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - reported >= _EVERY and done:
            reported = now
            left = f" of {total}, {(now - started) / done * (total - done):.0f} s left" if total else ""
            print(f"{label}: {done}{left}", file=sys.stderr, flush=True)
        yield item
