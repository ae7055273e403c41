"""Waiting for a language model that went away: a single answer falls back to retrieval within its deadline, but a batch
has time, and its rows last. What is asked of the model is unknown here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from recgraph.errors import LLMError, LLMTimeout, LLMUnavailable
from recgraph.tools.llm.protocol import LLM, Prompt

PATIENCE = 600.0  # seconds that a server may be away, e.g. to be started again, before it is done without
PAUSE = 3.0  # between two looks
_PROBE = 10.0  # seconds for these tokens; the first alone may be no text, and one that is empty counts as a failure
_TOKENS = 16


class Outage:
    """Of one model, for all threads that ask it under the names of `adapters`, or as it is: a client leaves alone for
    some time what failed, each name for itself."""

    def __init__(
        self, llm: LLM, adapters: Collection[str] = (), patience: float = PATIENCE, pause: float = PAUSE
    ) -> None:
        self._llm, self._patience, self._pause = llm, patience, pause
        self._names: tuple[str | None, ...] = tuple(sorted(set(adapters))) or (None,)
        self._lock, self._began = threading.Lock(), 0.0  # 0: nothing is known to be amiss

    def is_over(self, ended: threading.Event | None = None) -> bool:
        """Whether the model answers: looked at again and again, until it does or was away for too long, or nobody wants
        to know any more (`ended`). From then on nobody waits, until it is back."""
        ended = ended or threading.Event()
        with self._lock:
            while not ended.is_set():
                if not self._is_away():
                    self._began = 0.0
                    return True
                self._began = self._began or time.monotonic()
                if time.monotonic() - self._began > self._patience or ended.wait(self._pause):
                    break
            return False

    def _is_away(self) -> bool:
        return any(map(self._gives_nothing, self._names))

    def _gives_nothing(self, name: str | None) -> bool:
        end = time.monotonic() + _PROBE
        try:
            self._llm.generate([Prompt("", "Yes or no?")], max_tokens=_TOKENS, adapter=name, deadline=end)
        except (LLMUnavailable, LLMTimeout):
            return True
        except LLMError:  # it says something, if not what was hoped for
            return False
        return False
