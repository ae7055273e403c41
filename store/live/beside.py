"""Threads that work beside the answers, and the end of the process, which waits for them a moment.

Python stops a daemon thread wherever it is when the process ends. One that is inside DuckDB or torch just then takes the
process with it: SIGABRT in place of the exit code. What they work on is unknown here.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable

GRACE = 10.0  # seconds that all of them together get at the end of the process


class Beside(threading.Thread):
    """Does some work `after` so many seconds, unless it is called off before; `wake` is called then, for work that waits
    for something of its own. It keeps no process from ending for more than GRACE seconds."""

    def __init__(
        self, name: str, work: Callable[[], None], after: float = 0.0, wake: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._after, self._wake, self._off = work, after, wake, threading.Event()

    def run(self) -> None:
        try:
            if not self._off.wait(self._after):
                self._work()
        finally:
            del self._work, self._wake  # they hold who holds this thread

    @property
    def is_called_off(self) -> bool:
        return self._off.is_set()

    def call_off(self) -> None:
        """What has not begun does not begin; work that goes on and on ends at its next `pause`."""
        self._off.set()
        if wake := getattr(self, "_wake", None):
            wake()

    def pause(self, seconds: float) -> bool:
        """Waits, within the work; False where it was called off meanwhile."""
        return not self._off.wait(seconds)


@atexit.register
def _end() -> None:
    until = time.monotonic() + GRACE
    while (left := until - time.monotonic()) > 0 and (running := _running()):  # one may have begun another
        for thread in running:
            thread.call_off()
        running[0].join(left)


def _running() -> list[Beside]:
    return [thread for thread in threading.enumerate() if isinstance(thread, Beside) and thread.is_alive()]
