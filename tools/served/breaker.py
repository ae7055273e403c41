"""A circuit breaker: what failed several times in a row is not asked for a while, so that a dead server costs nothing.

After the while one caller tries; the others are still refused until it is known how that ended. Knows neither servers
nor models, only names under which failures are counted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

FAILURES = 3  # in a row, then nothing is asked
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0  # seconds; doubled with each try that fails
TRIAL = 60.0  # seconds after which a trial of which nothing was heard is taken for lost


@dataclass
class _Circuit:
    failures: int = 0
    pause: float = FIRST_PAUSE
    shut_until: float = 0.0
    why: str = ""


class Breaker:
    """Failures by name. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._circuits = threading.Lock(), dict[str, _Circuit]()

    def refusal(self, name: str) -> str:
        """Why `name` is not to be asked now, "" where it may be. Who may ask after a pause is alone with it."""
        now = time.monotonic()
        with self._lock:
            circuit = self._circuits.get(name)
            if circuit is None or circuit.failures < FAILURES:
                return ""
            if now < circuit.shut_until:
                left = circuit.shut_until - now
                return f"it failed {circuit.failures} times in a row and is asked again in {left:.0f} s. {circuit.why}"
            circuit.shut_until = now + TRIAL
            return ""

    def worked(self, name: str) -> None:
        with self._lock:
            self._circuits.pop(name, None)

    def undecided(self, name: str) -> None:
        """What was allowed to ask did not find out: the next one may."""
        with self._lock:
            if circuit := self._circuits.get(name):
                circuit.shut_until = min(circuit.shut_until, time.monotonic())

    def failed(self, name: str, why: str) -> None:
        """One more failure; `why` is told to those who are refused."""
        with self._lock:
            circuit = self._circuits.setdefault(name, _Circuit())
            circuit.failures, circuit.why = circuit.failures + 1, why
            if circuit.failures >= FAILURES:
                circuit.shut_until = time.monotonic() + circuit.pause
                circuit.pause = min(2 * circuit.pause, LONGEST_PAUSE)
