"""A limit on how long a block may take, by a clock that stands still while the whole machine does.

A machine that is shared is stopped at times, once for four minutes within a request whose deadline was half a second;
the wall's clock then tells a fault that is none. A process beside the tests adds up its own short sleeps: what stops the
machine stops it too, and what blocks the tests' process (a lock, a call that holds the interpreter) does not.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import mmap
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

LONGEST = 0.25  # seconds that one sleep may add: a busy machine wakes a sleeper late, one that was stopped far later

_TICKER = f"""
import mmap, os, struct, sys, time
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 16)
parent, passed, last = os.getppid(), 0.0, time.monotonic()
while os.getppid() == parent:
    time.sleep(0.02)
    now = time.monotonic()
    passed, last = passed + min(now - last, {LONGEST}), now
    shared[:] = struct.pack("dd", passed, last)
"""


class Clock:
    """Seconds that the machine ran, told by a process of its own that ends with this one."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(16))
            file.flush()
            self._shared = mmap.mmap(file.fileno(), 16, access=mmap.ACCESS_READ)
            self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _TICKER, file.name])
            atexit.register(self._end)
            while not any(self._shared[:]):
                self._check()

    def _check(self) -> None:
        assert self.process.poll() is None, "the clock beside the tests has ended: no limit would be held"

    def seconds(self) -> float:
        """To the microsecond: what the process has counted, and since then this one's time, as far as it counts."""
        self._check()
        passed, last = struct.unpack("dd", self._shared[:])
        return float(passed + min(time.monotonic() - last, LONGEST))

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()


clock = functools.cache(Clock)  # one for all tests of a process


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails where the block takes longer. What all threads were doing then is in the test's captured stderr."""
    begun = clock().seconds()
    faulthandler.dump_traceback_later(seconds + LONGEST, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = clock().seconds() - begun
    assert took < seconds, f"took {took:.2f} s"
