"""The pipeline's spine: its stages by name, params.yaml, and how a stage tells what it does. Command: `recgraph train STAGE`.

A stage is a module of this room with `run(params, folder, note)`: `params` is the whole params.yaml, `folder` where it lies, `note` takes a
line to show. It reads its own block and the top-level params, reads and writes below `folder`, and hands nothing back. dvc.yaml says
which stage needs what; nothing here knows DVC.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from recgraph.errors import SettingsError, StoreError

Params = Mapping[str, Any]
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
    "fusion": ("recgraph.train.ranking", "learn how far each source of candidates is to be believed"),
    "examples": ("recgraph.train.examples", "write prompts and answers to learn from"),
    "sft": ("recgraph.train.sft", "train a LoRA adapter for each task"),
    "index": ("recgraph.train.index", "build the FAISS indexes"),
    "evaluate": ("recgraph.train.evaluate", "measure retrieval on the held-out cases"),
    "publish": ("recgraph.train.publish", "write the store that `recgraph run` uses"),
}
TASKS = ("next", "fit", "summarize")
SPLITS = ("time", "loo")
_EVERY = 30.0  # seconds between two lines where nobody watches a bar


def load_params(folder: str | Path = ".") -> dict[str, Any]:
    """params.yaml of a folder. Raises SettingsError, naming the repair, where there is none or it is no YAML."""
    # As DVC reads it (YAML 1.2): PyYAML takes 2e-5 for text.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = Path(folder) / "params.yaml"
    try:
        read = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no {path}. Run `recgraph train` in the folder of dvc.yaml and params.yaml: the repository's root.") from None
    except (OSError, YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}. Restore it with: git checkout params.yaml") from None
    if not isinstance(read, dict):
        raise SettingsError(f"{path} holds no params. Restore it with: git checkout params.yaml")
    return read


def run_stage(stage: str, folder: str | Path = ".", task: str = "", note: Note = lambda _: None) -> None:
    """Runs one stage in `folder`. `task` is for `sft` alone, which finds it as params["task"]; without one all three are trained in turn.

    Raises SettingsError for a wrong name, StoreError for a missing input, and what the stage raises.
    """
    if stage not in STAGES:
        raise SettingsError(f"'{stage}' is no stage. Stages: {', '.join(STAGES)}.")
    if task and (stage != "sft" or task not in TASKS):
        raise SettingsError(f"--task is '{task}'; it is for the stage sft and one of {', '.join(TASKS)}.")
    params = load_params(folder)
    module = importlib.import_module(STAGES[stage][0])
    for each in (task,) if task or stage != "sft" else TASKS:
        module.run({**params, "task": each} if each else params, Path(folder), note)


def block(params: Params, stage: str) -> dict[str, Any]:
    """A stage's own params. SettingsError where params.yaml has no such block."""
    found = params.get(stage)
    if not isinstance(found, dict):
        raise SettingsError(f"params.yaml has no block `{stage}:`. Restore it with: git checkout params.yaml")
    return found


def settings_of(kind: type[T], values: Mapping[str, Any], stage: str) -> T:
    """A dataclass of settings from a stage's block, lists as tuples. SettingsError for an unknown name, and what the dataclass raises."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise SettingsError(f"{stage}.{unknown[0]} is no parameter; known are {', '.join(known)}.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def value(params: Params, stage: str, name: str) -> Any:
    """One param of a stage, or of the top level where `stage` is "". SettingsError where it is missing."""
    found = block(params, stage) if stage else params
    if name not in found:
        raise SettingsError(f"params.yaml does not set {f'{stage}.{name}' if stage else name}. Restore it with: git checkout params.yaml")
    return found[name]


def needed(path: Path, stage: str) -> Path:
    """The path, if it is there; else StoreError with the command that makes it. `stage` is who writes it."""
    if not path.exists():
        raise StoreError(f"There is no {path}. Make it with: recgraph train {stage} (or all at once with: dvc repro)")
    return path


def split_folder(params: Params, folder: Path) -> Path:
    """data/prepare/<split>: the snapshot train/, cases.parquet and split.json of the chosen split. SettingsError, StoreError."""
    split = str(value(params, "", "split"))
    if split not in SPLITS:
        raise SettingsError(f"split is '{split}' in params.yaml; it must be one of {', '.join(SPLITS)}.")
    prepared = needed(folder / "data" / "prepare", "prepare")
    if not (prepared / split).is_dir():
        raise SettingsError(f"This shop has no {split} split: its events carry no dates, or too few days. Use: dvc exp run -S split=loo")
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield from bars.track(items, total=count, description=label)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= _EVERY and done:
            told = now
            left = f" of {total}, {(now - started) / done * (total - done):.0f} s left" if total else ""
            print(f"{label}: {done}{left}", file=sys.stderr, flush=True)
        yield item
