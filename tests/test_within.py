"""The limit that other tests put on a block."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from within import within


def test_a_block_that_takes_too_long_fails() -> None:
    with within(1):
        time.sleep(0.1)
    with pytest.raises(AssertionError, match="took"), within(0.1):
        time.sleep(0.2)


_HANGS = """
import time
from within import within

def hung():
    time.sleep(1)

with within(0.1):
    hung()
"""


def test_what_hung_is_told() -> None:
    """In a process of its own: of more than a hundred threads Python tells a hundred."""
    told = subprocess.run(
        [sys.executable, "-c", _HANGS], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    assert told.returncode == 1
    assert "in hung" in told.stderr.partition("Traceback")[0]
    assert "AssertionError: took" in told.stderr
