"""Tools that are fitted on the store as of a moment: retrievers, query memories. What fits them is unknown here."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

_KEPT = 4  # tools, one for each as-of time asked for lately


class _Fittable(Protocol):
    """A tool that knows whether all that belongs to it is in it."""

    @property
    def complete(self) -> bool: ...


Tool = TypeVar("Tool", bound=_Fittable)


class OfMoments(Generic[Tool]):
    """Tools fitted as of a moment, the last few kept. Thread-safe: a tool is fitted once, and again where the time did
    not suffice for all of it or where the store has changed and `outdated` says that the tool would be another one."""

    def __init__(
        self,
        fit: Callable[[datetime | None, float | None], Tool],
        revision: Callable[[], str],
        outdated: Callable[[str], bool] = lambda known: True,
    ) -> None:
        """`outdated` is asked with the revision that a tool knows."""
        self._fit, self._revision, self._outdated = fit, revision, outdated
        self._kept, self._lock = OrderedDict[datetime | None, tuple[str, Tool]](), threading.Lock()

    def __call__(self, as_of: datetime | None, until: float | None = None) -> Tool:
        with self._lock:
            revision = self._revision()
            known, kept = self._kept.get(as_of, ("", None))
            if kept is not None and known != revision and not self._outdated(known):
                self._kept[as_of] = revision, kept
            elif (
                kept is None
                or known != revision
                or not (kept.complete or (until is not None and time.monotonic() >= until))
            ):
                self._kept[as_of] = revision, self._fit(as_of, until)
            self._kept.move_to_end(as_of)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[as_of][1]
