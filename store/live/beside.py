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
    """Does some work `after` so many seconds, unless it is called off before. It keeps no process from ending for more
    than GRACE seconds."""

    def __init__(self, name: str, work: Callable[[], None], after: float = 0.0) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._after, self._off = work, after, threading.Event()

    def run(self) -> None:
        if not self._off.wait(self._after):
            self._work()

    def call_off(self) -> None:
        """What has not begun does not begin; work that goes on and on ends at its next `pause`."""
        self._off.set()

    def pause(self, seconds: float) -> bool:
        """Waits, within the work; False where it was called off meanwhile."""
        return not self._off.wait(seconds)


@atexit.register
def _end() -> None:
    until = time.monotonic() + GRACE
    running = [thread for thread in threading.enumerate() if isinstance(thread, Beside)]
    for thread in running:
        thread.call_off()
    for thread in running:
        thread.join(max(0.0, until - time.monotonic()))
