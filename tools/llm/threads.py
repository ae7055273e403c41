"""Calls that may hang, in threads that nobody has to wait for: neither the caller past a deadline nor the process at
its end.

The threads are kept for the next calls. Beside a language model server that computes on all cores, a new thread is run
for the first time after a tenth of a second and more, so that starting sixteen took longer than their deadline.

Knows nothing of what is called. A call that holds something open while it runs (a socket) tells `Abandon.register` how
to break it off; whoever gives up on a batch breaks off all that is open then, so that the work ends too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Work = Callable[[], None]
MOST_KEPT, KEPT_SECONDS = 32, 60.0  # threads without work, and how long each waits for some
GRACE = 5.0  # seconds that the process's end waits for threads to start


class _Workers:
    """Threads that wait for work when theirs is done; where none does, another is started, so a hung one holds up
    nobody. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._idle, self._starting = threading.Lock(), list[SimpleQueue[Work]](), 0

    def run(self, work: Work) -> None:
        """Has a thread do it, and returns at once. It must not raise."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
            self._starting += kept is None
        inbox = kept or SimpleQueue[Work]()
        inbox.put(work)
        if kept is not None:
            return
        try:
            start_new_thread(self._serve, (inbox,))  # threading.Thread.start() waits until the thread is run
        except RuntimeError:
            self._has_started()
            raise

    def _has_started(self) -> None:
        with self._lock:
            self._starting -= 1

    def _serve(self, inbox: SimpleQueue[Work]) -> None:
        self._has_started()
        threading.current_thread().name = "recgraph-call"  # in logs
        work: Work | None = inbox.get()
        while work is not None:
            Context().run(work)  # nothing of an earlier call's
            del work  # nothing that it held waits for the next one
            work = self._next(inbox)

    def _next(self, inbox: SimpleQueue[Work]) -> Work | None:
        with self._lock:
            if len(self._idle) >= MOST_KEPT:
                return None
            self._idle.append(inbox)
        with contextlib.suppress(Empty):
            return inbox.get(timeout=KEPT_SECONDS)
        with self._lock:
            if inbox in self._idle:
                self._idle.remove(inbox)
                return None
        return inbox.get()  # given just as the time was up

    def forget(self) -> None:
        """What a forked child does: the threads are its parent's, and so may be the lock."""
        self._lock, self._idle, self._starting = threading.Lock(), [], 0

    def started(self) -> None:
        """Waits, some seconds at most, for threads that have not run yet: one that first runs while the interpreter
        ends crashes some versions of it."""
        until = time.monotonic() + GRACE
        while self._starting and time.monotonic() < until:
            time.sleep(0.01)


_workers = _Workers()
atexit.register(_workers.started)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.forget)


class Abandon:
    """Whether a batch of calls was given up, and how to break off those that run. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._breaks, self._given_up = threading.Lock(), list[Callable[[], None]](), False

    def register(self, break_off: Callable[[], None]) -> None:
        """Has it called when the batch is given up; at once where it was already."""
        with self._lock:
            if not self._given_up:
                self._breaks.append(break_off)
                return
        break_off()

    def give_up(self) -> None:
        with self._lock:
            self._given_up, breaks = True, self._breaks
            self._breaks = []
        for break_off in breaks:
            break_off()


_running = threading.local()


def current() -> Abandon | None:
    """The batch that this thread works for."""
    return getattr(_running, "batch", None)


def together(calls: Sequence[Callable[[], T]], deadline: float, workers: int = 1) -> list[T]:
    """What all calls give, in order, `workers` of them at a time. Raises the first error as soon as it is there, and
    TimeoutError at the deadline (`time.monotonic()`); what was not begun by then is not begun any more."""
    batch = Abandon()
    futures: list[Future[T]] = [Future() for _ in calls]
    waiting = deque(zip(futures, calls, strict=True))

    def work() -> None:
        _running.batch = batch
        with contextlib.suppress(IndexError):  # nothing waits any more
            while True:
                _settle(*waiting.popleft())

    try:
        for _ in range(min(workers, len(calls))):
            _workers.run(work)
        return _results(futures, deadline)
    finally:
        waiting.clear()
        batch.give_up()
        del futures  # as in _results


def _results(futures: list[Future[T]], deadline: float) -> list[T]:
    done, missing = wait(futures, max(0.0, deadline - time.monotonic()), FIRST_EXCEPTION)
    error = next(filter(None, (future.exception() for future in futures if future in done)), None)
    try:
        if error is not None:
            raise error
        if missing:
            raise TimeoutError
        return [future.result() for future in futures]
    finally:
        # An error's traceback holds this frame: what the error hangs on may not be in it, or both stay until the
        # collector comes.
        del futures, done, missing, error


class _Settled:
    """A block whose error goes into a future, to be raised where its result is asked for."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self._future.set_exception(error)
        del self._future, error  # as in _results
        return True


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    """Runs a call into its future."""
    with _Settled(future):
        future.set_result(call())
    del future, call
