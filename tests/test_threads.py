"""Calls in threads that nobody waits for: a deadline holds whatever the threads do, and they are kept."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

import pytest
from within import within

from recgraph.tools.llm import threads
from recgraph.tools.llm.threads import together


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> threads._Workers:
    """New ones, without threads of another test."""
    monkeypatch.setattr(threads, "_workers", threads._Workers())
    return threads._workers


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_answers_come_in_order_and_the_first_error_at_once() -> None:
    assert together([lambda number=number: number for number in range(40)], soon(10), 16) == [*range(40)]  # type: ignore[misc]
    with within(5), pytest.raises(ZeroDivisionError):
        together([lambda: time.sleep(20), lambda: 1 // 0], soon(30), 2)


@pytest.mark.usefixtures("workers")
def test_the_deadline_holds_where_no_thread_is_run_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cores all compute for another process: sixteen threads took longer to start than that."""
    started = []
    monkeypatch.setattr(threads, "start_new_thread", lambda *work: started.append(work))
    with within(3), pytest.raises(TimeoutError):
        together([lambda: 1] * 16, soon(0.2), 16)
    assert len(started) == 16
    monkeypatch.setattr(threads, "KEPT_SECONDS", 0.01)
    for serve, (inbox,) in started:  # run at last, they find that nothing waits for them
        late = threading.Thread(target=serve, args=(inbox,))
        late.start()
        late.join()


def test_threads_are_kept_for_the_next_calls(workers: threads._Workers) -> None:
    begin = threading.Barrier(8)

    def one() -> int:
        begin.wait(10)  # all at once
        return threading.get_ident()

    first = set(together([one] * 8, soon(20), 8))
    assert len(first) == 8
    with within(10):
        while len(workers._idle) < 8:  # answers are there a little before their threads wait again
            time.sleep(0.01)
    assert set(together([one] * 8, soon(20), 8)) == first


def test_no_more_threads_are_kept_than_are_wanted_again(workers: threads._Workers) -> None:
    begin = threading.Barrier(40)
    assert len(together([begin.wait] * 40, soon(20), 40)) == 40
    for _ in range(50):
        together([lambda: 3] * 16, soon(20), 16)
    assert len(workers._idle) <= threads.MOST_KEPT


def test_threads_without_work_end(workers: threads._Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "KEPT_SECONDS", 0.05)
    for _ in range(3):
        assert together([lambda: 3] * 8, soon(20), 8) == [3] * 8
        with within(10):
            while workers._idle:
                time.sleep(0.01)


def test_nothing_of_a_call_is_left_to_the_next(workers: threads._Workers) -> None:
    said = ContextVar("said", default="nothing")

    def one() -> tuple[int, str]:
        before = said.get()
        said.set("a secret")
        return threading.get_ident(), before

    found = []
    for _ in range(3):
        found += together([one], soon(20))
        with within(10):
            while not workers._idle:
                time.sleep(0.01)
    assert len({thread for thread, _ in found}) == 1
    assert [before for _, before in found] == ["nothing"] * 3


class Long(Exception):
    """Can be held weakly."""


def test_an_error_goes_when_it_was_caught() -> None:
    """What it hangs on would stay until the collector comes: a prompt, a model's answer."""
    held: list[weakref.ref[Long]] = []

    def fails() -> None:
        error = Long()
        held.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with suppress(Long):
            together([fails], soon(20))
        with within(10):
            while held[0]() is not None:  # the thread may be a little behind
                time.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.usefixtures("workers")
def test_a_thread_that_cannot_be_had_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = threads.start_new_thread, list[int]()

    def third_fails(serve: Callable[..., None], given: tuple[object, ...]) -> int:
        asked.append(1)
        if len(asked) == 3:
            raise RuntimeError("can't start new thread")
        return real(serve, given)

    monkeypatch.setattr(threads, "start_new_thread", third_fails)
    done = list[int]()

    def one() -> None:
        time.sleep(0.2)
        done.append(1)

    with pytest.raises(RuntimeError, match="new thread"):
        together([one] * 40, soon(20), 16)
    time.sleep(0.5)
    assert len(done) <= 2  # what was begun


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
