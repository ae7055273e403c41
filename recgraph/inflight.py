"""Who is being worked on now: any number at once under one name, or one alone. What they do is unknown here.

An answer that ends after its shopper was forgotten would write down again what was just taken out.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from recgraph.errors import StoreBusy

PATIENCE = 120.0  # seconds that one waits for those before it; an answer over HTTP takes as long at the most


class InFlight:
    """By name: `among` others, or `alone`. Who wants to be alone lets nobody in after it. Thread-safe; the thread that
    leaves need not be the one that entered (a generator may be ended by another)."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._changed = patience, threading.Condition()
        self._among, self._alone = Counter[str](), set[str]()

    @contextmanager
    def among(self, name: str) -> Iterator[None]:
        """While nobody is alone under this name. StoreBusy where that takes too long."""
        with self._changed:
            self._wait(name, among=False)
            self._among[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._among[name] -= 1
                if not self._among[name]:
                    del self._among[name]
                self._changed.notify_all()

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """When all others under this name have left. StoreBusy where that takes too long."""
        with self._changed:
            self._wait(name, among=False)
            self._alone.add(name)
        try:
            with self._changed:
                self._wait(name, among=True)
            yield
        finally:
            with self._changed:
                self._alone.discard(name)
                self._changed.notify_all()

    def _wait(self, name: str, *, among: bool) -> None:
        kept_by = self._among if among else self._alone
        if not self._changed.wait_for(lambda: name not in kept_by, self._patience):
            raise StoreBusy("Another request of this shopper does not end. Ask again.")
