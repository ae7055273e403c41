"""Calls in threads that nobody waits for: a deadline holds whatever the threads do, and they are kept."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest
from within import within

from recgraph.tools.llm import threads
from recgraph.tools.llm.threads import together


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_answers_come_in_order_and_the_first_error_at_once() -> None:
    assert together([lambda number=number: number for number in range(40)], soon(10), 16) == [*range(40)]  # type: ignore[misc]
    with within(5), pytest.raises(ZeroDivisionError):
        together([lambda: time.sleep(20), lambda: 1 // 0], soon(30), 2)


def test_the_deadline_holds_where_no_thread_is_run_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cores all compute for another process: sixteen threads took longer to start than that."""
    started = []
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threads, "start_new_thread", lambda *work: started.append(work))
    with within(3), pytest.raises(TimeoutError):
        together([lambda: 1] * 16, soon(0.2), 16)
    assert len(started) == 16
    for serve, (work,) in started:  # run at last, they find that nothing waits for them
        monkeypatch.setattr(threads, "KEPT_SECONDS", 0.01)
        serve(work)


def test_threads_are_kept_for_the_next_calls_and_end_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threads, "KEPT_SECONDS", 0.5)
    begin = threading.Barrier(8)

    def one() -> int:
        begin.wait(10)  # all at once
        return threading.get_ident()

    first = set(together([one] * 8, soon(20), 8))
    while len(threads._workers._idle) < 8:  # the last answers are there a little before their threads wait again
        time.sleep(0.01)
    assert len(first) == 8
    assert set(together([one] * 8, soon(20), 8)) == first
    with within(10):
        while threads._workers._idle:
            time.sleep(0.05)
    assert together([lambda: 3], soon(20)) == [3]


def test_a_call_that_hangs_keeps_no_other_waiting() -> None:
    end = threading.Event()
    try:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                together([lambda: end.wait(60)] * 4, soon(0.01), 4)
        with within(5):
            assert together([lambda: 3], soon(20)) == [3]
    finally:
        end.set()


def _asked(answers: multiprocessing.Queue[list[int]]) -> None:
    answers.put(together([lambda: 3] * 4, soon(20), 4))


def test_a_forked_child_starts_threads_of_its_own() -> None:
    together([lambda: 3] * 4, soon(20), 4)
    fork = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[list[int]] = fork.Queue()
    child = fork.Process(target=_asked, args=(answers,))
    child.start()
    try:
        assert answers.get(timeout=30) == [3] * 4
    finally:
        child.kill()
        child.join()
