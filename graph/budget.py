"""What fits into the time of a request: what the stages that ask a language model cost on this machine, and what is
left out where that is more than is left.

In this order, each only where what comes before it was not enough: summaries of new blocks (what is cached serves),
candidates that are reranked, the reranking, the prediction. It is decided where each stage begins, by the time that is
left then, and the answer's `plan` says what was left out. Costs are learnt from every request, and kept in a file of
the machine's. What a stage does is unknown here.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from recgraph.errors import LLMTimeout

Part = Literal["summarize", "recommend", "rerank"]
LATEST = 20  # costs that are kept of a part
LEAST = 5  # candidates below which it is not worth asking about them
PROBED = 20  # requests in a row that leave a part out, after which it is tried once: it may cost less by now
# What is read once for all units weighs as much as so many of them: a shared prompt of 500 tokens beside candidates of
# 60 (benchmarks/latency.py).
_SHARED: Mapping[Part, int] = {"summarize": 0, "recommend": 0, "rerank": 8}
_UNITS: Mapping[Part, str] = {"summarize": "new blocks", "recommend": "prediction", "rerank": "candidates"}
_INSTEAD: Mapping[Part, str] = {
    "summarize": "what was known before serves",
    "recommend": "retrieved without one",
    "rerank": "the others follow in the order of retrieval",
}
_SETS = 50  # models and adapters whose costs are kept
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was left out: `kept` of so many units of a part were done, because all of them take `needed` seconds, beside
    what must still follow, and `left` were left; or, without these, because the others could not change the answer, or
    the ranking is `sure` of its first."""

    part: Part
    kept: int
    of: int
    needed: float | None = None
    left: float = 0.0
    sure: bool = False

    def __str__(self) -> str:
        if self.sure:
            return f"{self.part}: none of the {_UNITS[self.part]}; the ranking is sure of its first"
        if self.needed is None:
            return (
                f"{self.part}: {self.kept} of {self.of} {_UNITS[self.part]}; the others cannot come among those shown"
            )
        some = f"{self.kept} of {self.of}" if self.kept else "none of the" if self.of > 1 else "no"
        return (
            f"{self.part}: {some} {_UNITS[self.part]}; {_INSTEAD[self.part]} (needs about {self.needed:.2f} s, "
            f"{max(self.left, 0):.2f} s were left)"
        )


class Planner(Protocol):
    """Says how much of a part is done."""

    def choose(
        self, part: Part, units: int, deadline: float | None, after: Mapping[Part, int]
    ) -> tuple[int, LeftOut | None]:
        """How many of the units to do, and what is left out by that. `deadline` is a moment of `time.monotonic()`;
        `after` are units of the parts that must still follow."""

    def timed(self, part: Part, units: int) -> AbstractContextManager[Callable[[int], None]]:
        """Around the work on so many units; what it gives is told of how many were done, where not all of them."""


class Costs:
    """Seconds that parts took lately, by units. Thread-safe. With a file they outlive the process: `keep` writes it,
    and a file that is not there or is not ours costs nothing but that."""

    def __init__(self, file: Path | None = None, key: str = "") -> None:
        """`key` names what answers: the model and its adapters."""
        self._file, self._key, self._lock, self._new = file, key, threading.Lock(), False
        self._taken: dict[str, list[tuple[int, float]]] = _read(file).get(key, {}) if file else {}

    def note(self, part: Part, units: int, seconds: float) -> None:
        with self._lock:
            taken = self._taken.setdefault(part, [])
            taken.append((units, seconds))
            del taken[:-LATEST]
            self._new = True

    def rate(self, part: Part) -> float | None:
        """Seconds a unit, as three of four lately took at most; None where none was measured. The first call of a
        process, which compiles and warms, weighs nothing as soon as there is another one."""
        with self._lock:
            taken = sorted(seconds / (units + _SHARED[part]) for units, seconds in self._taken.get(part, ()))
        return taken[3 * (len(taken) - 1) // 4] if taken else None

    def keep(self) -> None:
        """Writes the file, beside what others wrote meanwhile."""
        if self._file is None or not self._new:
            return
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            known = _read(self._file)
            known.pop(self._key, None)
            kept = dict([*known.items(), (self._key, self._taken)][-_SETS:])
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(kept), encoding="utf-8")
            beside.replace(self._file)
        except OSError as error:
            _log.info("What the stages cost is not kept: %s", error)


class TimeBudget:
    """Chooses by what was measured. Thread-safe."""

    def __init__(self, costs: Costs | None = None) -> None:
        self.costs = costs or Costs()
        self._passed_over: dict[str, int] = {}

    def choose(
        self, part: Part, units: int, deadline: float | None, after: Mapping[Part, int]
    ) -> tuple[int, LeftOut | None]:
        """As `Planner.choose`. What was never measured is tried: the deadline holds all the same."""
        rate = self.costs.rate(part)
        if deadline is None or rate is None or units == 0:
            return units, None
        left = deadline - time.monotonic()
        following = sum((self.costs.rate(one) or 0.0) * (count + _SHARED[one]) for one, count in after.items())
        needed = rate * (units + _SHARED[part]) + following
        if needed <= left:
            self._passed_over.pop(part, None)
            return units, None
        fitting = int((left - following) / rate - _SHARED[part]) if part == "rerank" and rate else 0
        kept = min(fitting, units) if fitting >= min(LEAST, units) else 0
        if kept == 0:
            passed = self._passed_over[part] = self._passed_over.get(part, 0) + 1
            if passed >= PROBED and left > 0:
                self._passed_over.pop(part, None)
                return units, None
        return kept, LeftOut(part, kept, units, needed, left)

    @contextmanager
    def timed(self, part: Part, units: int) -> Iterator[Callable[[int], None]]:
        """Learns what a part costs: also of one that the deadline ended, which costs at least that."""
        begun, done = time.perf_counter(), [units]
        try:
            yield done.append
        except LLMTimeout:
            taken, rate = time.perf_counter() - begun, self.costs.rate(part)
            if rate is None or taken > rate * (units + _SHARED[part]):  # else the request came late, which says nothing
                self.costs.note(part, units, taken)
            raise
        self.costs.note(part, done[-1], time.perf_counter() - begun)


class Repeated:
    """Chooses as was chosen for a past answer, whatever the time."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        self._left_out = {one.part: one for one in left_out if one.needed is not None}

    def choose(
        self, part: Part, units: int, deadline: float | None, after: Mapping[Part, int]
    ) -> tuple[int, LeftOut | None]:
        """As `Planner.choose`."""
        past = self._left_out.get(part)
        return (units, None) if past is None else (min(past.kept, units), past)

    @contextmanager
    def timed(self, part: Part, units: int) -> Iterator[Callable[[int], None]]:
        """Learns nothing."""
        yield lambda done: None


def _read(file: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The costs that a file has, by what answered and by part; none where it is not as `Costs.keep` writes it."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(key): {
                str(part): [(int(units), float(seconds)) for units, seconds in taken][-LATEST:]
                for part, taken in parts.items()
            }
            for key, parts in told.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
