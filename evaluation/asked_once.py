"""A language model that is asked each thing once: to equal requests (prompts, adapter, options) it gives the answer of
the first. For several variants of the product over the same cases, whose prompts are often the same.

A reused answer is told with the tokens it took when it was first asked, and `waited` gives the seconds it took then, so
that whoever measures can count both as if it had been asked again. What is asked is unknown here.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from recgraph.tools.llm.protocol import LLM, Completion, Form, Prompt, Remembering, Usage

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Answered(Generic[Result]):
    """What came back, and from when to when it was computed (`time.perf_counter()`)."""

    result: tuple[list[Result], Usage]
    begun: float
    ended: float


class AskedOnce:
    """`llm` with all its answers kept, as long as this is (see `protocol.LLM`). Thread-safe.

    What failed, or was cut off by its deadline, is asked again.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm, self._lock = llm, threading.Lock()
        self.name, self.parameters, self.adapters = llm.name, llm.parameters, llm.adapters
        self.max_choices, self.on_cpu = llm.max_choices, llm.on_cpu
        self._kept: dict[str, _Answered[Any]] = {}  # by a hash: a prompt may list a whole catalogue
        self._reused: list[tuple[float, float]] = []

    def begin(self) -> None:
        """Before each answer that is measured. A model in process forgets what earlier prompts began with, so that no
        answer hangs on those before it, nor costs less for them; a server minds its own."""
        self._reused = []
        if isinstance(self._llm, Remembering):
            self._llm.start_afresh()

    def waited(self) -> float:
        """The seconds that the answers reused since `begin` took when they were computed; those computed at the same
        time count once."""
        total, until = 0.0, 0.0
        for begun, ended in sorted(self._reused):
            total += max(0.0, ended - max(begun, until))
            until = max(until, ended)
        return total

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int = 64,
        form: Form | None = None,
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[Completion], Usage]:
        """As the model's."""
        return self._once(
            ("generate", tuple(prompts), max_tokens, form, adapter),
            lambda: self._llm.generate(prompts, max_tokens=max_tokens, form=form, adapter=adapter, deadline=deadline),
            lambda found: all(one.finished for one in found) or deadline is None or time.monotonic() < deadline,
        )

    def score(
        self,
        prompts: Sequence[Prompt],
        *,
        answers: tuple[str, str] = ("Yes", "No"),
        adapter: str | None = None,
        deadline: float | None = None,
    ) -> tuple[list[tuple[float, float]], Usage]:
        """As the model's."""
        return self._once(
            ("score", tuple(prompts), answers, adapter),
            lambda: self._llm.score(prompts, answers=answers, adapter=adapter, deadline=deadline),
            lambda found: len(found) == len(prompts),
        )

    def count_tokens(self, text: str) -> int:
        """As the model's."""
        return self._llm.count_tokens(text)

    def _once(
        self, asked: object, ask: Callable[[], tuple[list[Result], Usage]], whole: Callable[[list[Result]], bool]
    ) -> tuple[list[Result], Usage]:
        """What was answered to the same before, else now; `whole` answers are kept."""
        key = hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._reused.append((kept.begun, kept.ended))
                return cast(tuple[list[Result], Usage], kept.result)
        begun = time.perf_counter()
        result = ask()
        if whole(result[0]):
            with self._lock:
                self._kept[key] = _Answered(result, begun, time.perf_counter())
        return result
