"""Several processes and threads on one store during an ingest: benchmarks/crowd.py in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CROWD = Path(__file__).resolve().parent.parent / "benchmarks" / "crowd.py"


@pytest.mark.slow
def test_all_are_answered_during_an_ingest_and_no_summary_is_lost() -> None:
    command = [sys.executable, str(CROWD), "--processes", "4", "--threads", "4", "--answers", "2", "--rows", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["answered"], told["died"], told["summaries missing"]) == (told["asked"], 0, 0)
    assert told["events loaded"] == 5000
    assert not [note for note in told["notes"] if "Busy" in note or "Another process" in note]
