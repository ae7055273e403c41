"""kill -9 during an ingest, at each of its steps: the store is as it was, and the next ingest does the whole work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.db import Store
from recgraph.store.ingest.load import ingest

# Ingests and stops for good at the step it is told, after saying so.
_CHILD = """
import sys, time
from recgraph.store.ingest.load import ingest
def progress(step):
    if step == sys.argv[3]:
        print("there", flush=True)
        time.sleep(60)
ingest(sys.argv[1], "tables", [sys.argv[2]], progress=progress)
"""


def _tables(folder: Path, user: str, rows: int) -> Path:
    folder.mkdir()
    events = "".join(f"{user}{n % 50},2025-01-01,click,I{n % 200}\n" for n in range(rows))
    (folder / "events.csv").write_text("user_id,ts,action,item_id\n" + events)
    return folder


def _start_until(step: str, store: Path, tables: Path) -> subprocess.Popen[str]:
    scratch = tables.with_name("scratch")  # a killed process cannot tidy up its temporary folder
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-c", _CHILD, str(store), str(tables), step]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)})
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["reading events.csv", "writing events", "committing"])
def test_a_killed_ingest_leaves_the_store_as_it_was(tmp_path: Path, step: str) -> None:
    path = tmp_path / "s.duckdb"
    ingest(path, "tables", [_tables(tmp_path / "first", "a", 100)])
    with Store.open(path) as store:
        before = (store.counts(), store.revision(), store.history("a1"), store.catalogue().item_ids)
    more = _tables(tmp_path / "more", "b", 2_000)
    _kill(_start_until(step, path, more))
    with Store.open(path) as store:
        assert (store.counts(), store.revision(), store.history("a1"), store.catalogue().item_ids) == before
    report = ingest(path, "tables", [more])
    assert (report.events_new, report.users) == (2_000, 50)


@pytest.mark.slow
def test_a_killed_first_ingest_leaves_no_store_and_a_running_one_is_not_disturbed(tmp_path: Path) -> None:
    path, tables = tmp_path / "s.duckdb", _tables(tmp_path / "first", "a", 1000)
    running = _start_until("committing", path, tables)
    with pytest.raises(StoreBusy, match="Another ingest"):
        ingest(path, "tables", [tables], wait=0.1)
    _kill(running)
    with pytest.raises(StoreError, match="There is no store"):
        Store.open(path)
    assert ingest(path, "tables", [tables]).events_new == 1000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "s.duckdb", "scratch"]
