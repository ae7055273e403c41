"""Answers of earlier evaluations, so that a killed one goes on where it was and a system more costs only its own time.

A file a system and seed, named by all that decides the answers: the data, what is asked, the settings, the encoder, and
the code of the system. It tells the machine too: answers may be carried from a faster one to where they are compared.
What the answers are worth is unknown here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.evaluation.ask import Measured, Options
from recgraph.evaluation.origin import machine
from recgraph.tools.llm.protocol import Usage
from recgraph.train.metrics import Places
from recgraph.train.task import System

_ROOMS = ("recgraph.evaluation.", "recgraph.train.", "recgraph.tools.")
# The hash of its data says what a task is, models have no more than progress bars of the pipeline, and a workshop only
# hands on.
_LEFT_OUT = (
    "recgraph.train.task",
    "recgraph.train.pipeline",
    "recgraph.train.params",
    "recgraph.evaluation.workshop",
    "recgraph.evaluation.systems",
)


@dataclass(frozen=True)
class Kept:
    """The answers in a `folder` to what `options` ask of a task."""

    folder: Path
    data_hash: str
    options: Options
    embedder: str = ""

    def file(self, name: str, seed: int, system: System) -> Path:
        """Where these answers are or would be."""
        o = self.options
        code = code_of(type(system).__module__, *system.code)
        parts = [code, self.data_hash, o.protocol, o.seen, o.sample, o.seed, name, seed, repr(system.settings)]
        parts += [o.negatives] if o.negatives != "both" else []
        parts += [self.embedder] if self.embedder else []
        return self.folder / f"{name}-{seed}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}.npz"

    def read(self, file: Path) -> tuple[list[Measured], float, str]:
        """The answers to each set of candidates, the seconds of fitting, and the machine of both ("": not told)."""
        with np.load(file, allow_pickle=False) as found:
            columns = zip(found["better"], found["equal"], found["first"], found["invalid"], strict=True)
            count = len(found["better"])
            used = [Usage(*map(int, one)) for one in found["used"]] if "used" in found else [None] * count
            ceiling = [*found["ceiling"]] if "ceiling" in found else [None] * count
            seconds = found["seconds"] if found["seconds"].ndim else [found["seconds"]] * count
            measured = [
                Measured(Places(better, equal), first, invalid, float(took), tokens, reached)
                for (better, equal, first, invalid), took, tokens, reached in zip(
                    columns, seconds, used, ceiling, strict=True
                )
            ]
            return measured, float(found["fit_seconds"]), str(found["machine"]) if "machine" in found else ""

    def piece(self, file: Path, name: str, make: Callable[[], Measured]) -> Measured:
        """A part of answers that are still being made, from the folder beside `file` where it is there."""
        part = file.with_suffix("") / f"{name}.npz"
        if not part.is_file():
            _write(part, [make()], 0.0)
        return self.read(part)[0][0]

    def write(self, file: Path, measured: Sequence[Measured], fit_seconds: float) -> None:
        """All answers; their pieces are not needed any more."""
        _write(file, measured, fit_seconds)
        shutil.rmtree(file.with_suffix(""), ignore_errors=True)


def _write(file: Path, measured: Sequence[Measured], fit_seconds: float) -> None:
    columns: dict[str, Any] = {
        "better": [one.places.better for one in measured],
        "equal": [one.places.equal for one in measured],
    }
    columns |= {"first": [one.first for one in measured], "invalid": [one.invalid for one in measured]}
    columns |= {"seconds": [one.seconds for one in measured], "fit_seconds": fit_seconds, "machine": machine()}
    if measured[0].used is not None:
        columns["used"] = [astuple(one.used) for one in measured if one.used is not None]
    if measured[0].ceiling is not None:
        columns["ceiling"] = [one.ceiling for one in measured]
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, **columns)
    part.replace(file)  # a kill while writing leaves no half file under the name


def code_of(*modules: str) -> str:
    """A hash of `sources_of` them: a change there makes another system, a change elsewhere does not."""
    found = sources_of(*modules)
    return hashlib.sha256(b"".join(found[name] for name in sorted(found))).hexdigest()


def sources_of(*modules: str) -> dict[str, bytes]:
    """The code, by name, of modules and of what they import from evaluation, train and tools, wherever in them the
    import stands. A module outside those rooms is not looked at."""
    found: dict[str, bytes] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        if name in found or name in _LEFT_OUT or not name.startswith(_ROOMS):
            continue
        spec = find_spec(name)
        if spec and spec.origin:
            found[name] = Path(spec.origin).read_bytes()
            waiting += _imported(found[name])
    return found


def _imported(code: bytes) -> Iterator[str]:
    """The modules that a module's import statements name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (
                f"{node.module}.{alias.name}" for alias in node.names if _is_module(f"{node.module}.{alias.name}")
            )


def _is_module(name: str) -> bool:
    """Whether `from recgraph.tools.sources import text` takes a module and not a name of one."""
    package, _, last = name.rpartition(".")
    spec = find_spec(package) if package.startswith("recgraph.") else None
    return bool(spec and any((Path(place) / f"{last}.py").is_file() for place in spec.submodule_search_locations or ()))
