"""The limit that other tests put on a block."""

from __future__ import annotations

import time

import pytest
from within import within


def test_a_block_that_takes_too_long_fails() -> None:
    with within(1):
        time.sleep(0.1)
    with pytest.raises(AssertionError, match=r"took 0\.[2-9]"), within(0.1):
        time.sleep(0.2)


def test_what_hung_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="took"), within(0.1):
        time.sleep(0.5)
    assert "test_what_hung_is_told" in capfd.readouterr().err
