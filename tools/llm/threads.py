"""Calls that may hang, in threads that nobody has to wait for: neither the caller past a deadline nor the process at
its end.

The threads are kept for the next calls. Beside a language model server that computes on all cores, a new thread is run
for the first time after a tenth of a second and more, so that starting sixteen took longer than their deadline.

Knows nothing of what is called. A call that holds something open while it runs (a socket) tells `Abandon.register` how
to break it off; whoever gives up on a batch breaks off all that is open then, so that the work ends too.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Work = Callable[[], None]
KEPT_SECONDS = 60.0  # a thread without work ends after so long


class _Workers:
    """Threads that wait for work, as many as were ever at work at once: a hung one is not waited for, another is
    started. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._idle = threading.Lock(), list[SimpleQueue[Work]]()

    def run(self, work: Work) -> None:
        """Has a thread do it, and returns at once. It must not raise."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            start_new_thread(self._serve, (work,))  # threading.Thread.start() waits until the thread is run
        else:
            inbox.put(work)

    def _serve(self, work: Work | None) -> None:
        inbox = SimpleQueue[Work]()
        while work is not None:
            work()
            del work  # nothing that it held waits for the next one
            work = self._next(inbox)

    def _next(self, inbox: SimpleQueue[Work]) -> Work | None:
        with self._lock:
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
        self._lock, self._idle = threading.Lock(), []


_workers = _Workers()
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

    for _ in range(min(workers, len(calls))):
        _workers.run(work)
    done, missing = wait(futures, max(0.0, deadline - time.monotonic()), FIRST_EXCEPTION)
    try:
        for future in futures:
            if future in done:
                future.result()
        if missing:
            raise TimeoutError
        return [future.result() for future in futures]
    finally:
        waiting.clear()
        batch.give_up()
        # An error's traceback holds this frame: what the error hangs on may not be in it, or both stay until the
        # collector comes.
        del futures, done, missing


class _Settled:
    """A block whose error goes into a future, to be raised where its result is asked for."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self._future.set_exception(error)
        del self._future, error  # as in `together`
        return True


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    """Runs a call into its future."""
    with _Settled(future):
        future.set_result(call())
    del future, call
