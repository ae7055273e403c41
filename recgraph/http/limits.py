"""How much is let in: sizes, rates a key, and how many requests are worked on and wait.

Answers and writes are worked on in threads, so many at a time; behind them so many wait, and who comes then is asked to
come again. Who has waited as long as its time allows is let in beside the others, to answer with what can be had at
once. What they do is unknown here.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter, Semaphore
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from recgraph.errors import SettingsError
from recgraph.http.problems import RETRY_AFTER, Refusal
from recgraph.service import Clock

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What a server takes on. Sizes in bytes, times in seconds."""

    rate: str = "3000/minute"  # requests of one key
    body: int = 1_000_000
    body_seconds: float = 20.0  # for a body to arrive
    answering: int = 4  # answers that are worked on at once
    writing: int = 2  # writes and look-ups; the store takes one write at a time
    queue: int = 200  # requests that wait for each of these


class Rates:
    """Counts the requests of each key. SettingsError for a rate that is none."""

    def __init__(self, rate: str) -> None:
        try:
            self._item: RateLimitItem = parse(rate)
        except ValueError:
            raise SettingsError(f"The rate is '{rate}'; write e.g. 100/second or 3000/minute.") from None
        self._counted = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, key: str) -> None:
        """Counts one request. Refusal 429 where they are too many."""
        if not self._counted.hit(self._item, key):
            reset = self._counted.get_window_stats(self._item, key).reset_time
            wait = max(1, min(int(reset - time.time()) + 1, self._item.get_expiry()))
            detail = f"This key may ask {self._item} at most. Ask again in {wait} s."
            raise Refusal(429, "too-many", detail, {"Retry-After": str(wait)})


class Gate:
    """Lets some work on in threads, some wait, and refuses the rest with 503. As many again are let in late: those
    whose time would be up before their turn, who answer without what takes long."""

    def __init__(self, working: int, queue: int) -> None:
        self._most, self._inside = working + queue, 0
        self._turns, self._late = Semaphore(working), Semaphore(working)
        self._threads = CapacityLimiter(math.inf)  # the turns count them
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def inside(self) -> int:
        """How many are worked on or wait."""
        return self._inside

    async def run(
        self, work: Callable[..., Result], *args: object, clock: Clock | None = None, **named: object
    ) -> Result:
        """What `work` gives, done in a thread when its turn has come, or when the clock says that it is time."""
        if self._inside >= self._most:
            raise Refusal(503, "full", "More requests wait than can be worked on. Ask again.", RETRY_AFTER)
        self._inside += 1
        try:
            async with self._turn(math.inf if clock is None else clock.patience):
                return await anyio.to_thread.run_sync(partial(work, *args, **named), limiter=self._threads)
        finally:
            self._inside -= 1

    @asynccontextmanager
    async def _turn(self, patience: float) -> AsyncIterator[None]:
        turns = self._turns
        with anyio.move_on_after(patience) as waited:
            await turns.acquire()
        if waited.cancelled_caught:
            turns = self._late
            await turns.acquire()
        try:
            yield
        finally:
            turns.release()

    async def stream(self, work: Callable[[], Iterator[Result]], clock: Clock | None = None) -> AsyncIterator[Result]:
        """What `work` yields, each as it comes; all of it in one thread, which stops at the next piece when nobody
        reads on."""
        loop, pieces, left = asyncio.get_running_loop(), asyncio.Queue[Result | None](), threading.Event()

        def pass_on() -> None:
            for piece in work():
                if left.is_set():
                    return
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        task: asyncio.Task[None] = asyncio.create_task(self.run(pass_on, clock=clock))
        self._tasks.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await task  # raises what went wrong
        finally:
            left.set()
