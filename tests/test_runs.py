"""The run log and the queue before it: threads, processes, a fork, a kill, a log that another process holds."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recgraph.errors import StoreBusy
from recgraph.store import runs
from recgraph.store.care import runlog
from recgraph.store.connection import Database
from recgraph.store.runs import RunLog, RunQueue


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "shop.duckdb")


def ids(log: RunLog) -> list[str]:
    return [run["run_id"] for run in log.recent(10_000)]


class Busy(RunLog):
    """A log that another process holds."""

    def write(self, runs: object) -> None:
        raise StoreBusy("Another process is using the log.")


def test_a_run_that_waits_is_seen_by_who_reads_the_log_in_this_process(log: RunLog) -> None:
    queue = RunQueue(log)
    for number in range(3):
        queue.add({"run_id": str(number), "user_id": "ann"})
    assert not log.place.exists()  # nobody waited for the file
    assert ids(RunLog(log.place.with_name("shop.duckdb"))) == ["2", "1", "0"]


def test_a_user_is_forgotten_in_what_waits_too(log: RunLog) -> None:
    queue = RunQueue(log)
    queue.add({"run_id": "1", "user_id": "ann"})
    queue.add({"run_id": "2", "user_id": "bob"})
    assert runlog.forget(log.place.with_name("shop.duckdb"), "ann") == 1
    queue.close()
    assert ids(log) == ["2"]


def test_what_waits_is_written_by_itself(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GATHERED", 0.01)
    queue = RunQueue(log)
    for number in ("1", "2"):  # the second time the thread has ended
        queue.add({"run_id": number})
        while queue._thread is not None:
            time.sleep(0.01)
        assert not queue._waiting
    assert ids(log) == ["2", "1"]


def test_eight_threads_lose_nothing(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GATHERED", 0.02)
    queue = RunQueue(log)

    def add(thread: int) -> None:
        for number in range(30):
            queue.add({"run_id": f"{thread}-{number}"})
            if number % 10 == 0:
                time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    queue.close()
    assert sorted(ids(log)) == sorted(f"{thread}-{number}" for thread in range(8) for number in range(30))


def test_a_log_that_cannot_be_written_now_is_said_once_and_the_oldest_go(
    log: RunLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_WAITING", 3)
    queue = RunQueue(Busy(log.place.with_name("shop.duckdb")))
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            queue.add({"run_id": str(number)})
            queue.flush()
        assert queue.trouble == "Another process is using the log."
        queue.log = log
        queue.flush()
    assert queue.trouble == ""
    assert ids(log) == ["3", "2", "1"]
    assert [one.message for one in caplog.records] == [
        "Runs wait to be logged: Another process is using the log.",
        "Runs that will not be in the run log: 1 (Another process is using the log.)",
    ]


def test_a_log_that_others_write_into_is_no_trouble_until_it_is_held_twice(
    log: RunLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Under a crowd an answer said that its run was not logged, and it was a second later."""
    queue = RunQueue(Busy(log.place.with_name("shop.duckdb")))
    queue._thread = threading.current_thread()  # writes nothing by itself
    queue.add({"run_id": "1"})
    queue.flush()
    assert (queue.trouble, caplog.records) == ("", [])
    queue.flush()
    assert queue.trouble == "Another process is using the log."
    queue.log = log
    queue.flush()
    assert queue.trouble == ""
    assert ids(log) == ["1"]


def test_what_cannot_be_written_at_the_close_is_counted(log: RunLog, caplog: pytest.LogCaptureFixture) -> None:
    queue = RunQueue(Busy(log.place.with_name("shop.duckdb")))
    queue.add({"run_id": "1"})
    queue.close()
    assert caplog.records[-1].message == "Runs that are not in the run log: 1 (Another process is using the log.)"


def test_a_log_that_was_begun_and_holds_nothing_yet_is_empty(log: RunLog) -> None:
    """A kill at the first run of all left a file without a table, and no run could be read until the next one."""
    Database.acquire(log.place, write=True).release(write=True)
    assert log.recent() == []


def test_an_id_with_half_a_character_does_not_stop_the_log(log: RunLog) -> None:
    queue = RunQueue(log)
    queue.add({"run_id": "1", "user_id": "a\ud800"})
    queue.close()
    assert log.recent() == [{"run_id": "1", "user_id": "a?"}]


def test_a_forked_child_writes_its_own_runs_and_not_its_parents(log: RunLog) -> None:
    queue = RunQueue(log)
    queue.add({"run_id": "parent"})
    child = os.fork()
    if not child:
        try:
            queue.add({"run_id": "child"})
            queue.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    queue.close()
    assert sorted(ids(log)) == ["child", "parent"]


WRITER = """
import sys, time
from recgraph.store.runs import RunLog, RunQueue
name, number, last = sys.argv[2], int(sys.argv[3]), sys.argv[4]
queue = RunQueue(RunLog(sys.argv[1]))
for one in range(number):
    queue.add({"run_id": f"{name}-{one}"})
    time.sleep(0.02)
if last == "wait":
    time.sleep(2.5)
    queue.add({"run_id": f"{name}-late"})
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_two_processes_log_side_by_side_and_write_what_waits_at_their_end(log: RunLog) -> None:
    """One ends without having closed anything."""
    shop = str(log.place.with_name("shop.duckdb"))
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, shop, name, "80", "end"]) for name in "ab"]
    assert [one.wait(60) for one in writers] == [0, 0]
    assert sorted(ids(log)) == sorted(f"{name}-{number}" for name in "ab" for number in range(80))


@pytest.mark.slow
def test_a_kill_loses_the_runs_of_the_last_second_at_most(log: RunLog) -> None:
    shop = str(log.place.with_name("shop.duckdb"))
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, shop, "a", "5", "wait"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert sorted(ids(log)) == [f"a-{number}" for number in range(5)]
