"""A limit on how long a block may take, which tells what all threads were doing where it passes."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import time
from collections.abc import Iterator

LATER = 0.25  # seconds after the limit: the stacks are those of a block that is late, not of one that is just ending


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails where the block takes longer. What all threads were doing then is in the test's captured stderr."""
    begun = time.monotonic()
    faulthandler.dump_traceback_later(seconds + LATER, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - begun
    assert took < seconds, f"took {took:.2f} s"
