"""The limit that other tests put on a block: of the time in which the machine ran."""

from __future__ import annotations

import signal
import time

import pytest
from within import LONGEST, Clock, clock, within


def test_a_block_that_takes_too_long_fails() -> None:
    with within(1):
        time.sleep(0.1)
    with pytest.raises(AssertionError, match=r"took 0\.[2-9]"), within(0.1):
        time.sleep(0.3)


def test_a_limit_is_held_to_the_hundredth() -> None:
    """Something that waits for its deadline of 0.4 s may not pass for done before it."""
    for _ in range(5):
        with pytest.raises(AssertionError, match=r"took 0\.4"), within(0.4):
            time.sleep(0.401)


def test_a_clock_that_has_ended_is_no_clock() -> None:
    one = Clock()
    one.process.kill()
    one.process.wait()
    with pytest.raises(AssertionError, match="no limit would be held"):
        one.seconds()


def test_a_machine_that_stood_still_is_no_fault() -> None:
    """A request with half a second was 265 s on its way, once, on a machine that was stopped meanwhile: so it seemed."""
    with within(2 * LONGEST):
        clock().process.send_signal(signal.SIGSTOP)
        time.sleep(3 * LONGEST)
        clock().process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
