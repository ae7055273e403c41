"""What a process that serves writes into its store: events and products as they come, summaries when some have gathered.

An event is in the store when the call returns. For a file opened for writing each event costs a tenth of what opening
it costs, so it is given back to other processes only HELD seconds after the last one. Summaries lie beside the store at
once (store/care/pending.py), so that no answer waits for the store and a kill loses none; a thread takes them in, all
of GATHERED seconds in one opening. What is written is unknown here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from recgraph.errors import StoreError
from recgraph.store.db import Store
from recgraph.store.live.beside import Beside
from recgraph.store.records import Event, Summary

GATHERED = 10.0  # seconds that summaries gather: opening the store for writing holds up who reads it meanwhile
HELD = 1.0  # seconds that the store stays open for writing after an event; others wait PATIENCE (store/connection.py)
_log = logging.getLogger(__name__)


class StoreWriter:
    """Writes into the store that `store` reads. Thread-safe. Close it before the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owning = threading.Lock()  # while the store is opened for writing, written and given back
        self._own: Store | None = None
        self._written = 0.0  # when the last write ended, by time.monotonic()
        self._taking = threading.Lock()  # while summaries are taken in
        self._arming = threading.Lock()
        self._timers: dict[Callable[[], None], Beside] = {}
        self._closed = False

    def record_events(self, events: Sequence[Event], ids: Sequence[str] = ()) -> list[Event]:
        """As `Store.record_events`."""
        with self._held() as store:
            return store.record_events(events, ids)

    def upsert_items(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """As `Store.upsert_items`."""
        with self._held() as store:
            return store.upsert_items(items)

    def save_summaries(self, summaries: Sequence[Summary]) -> None:
        """As `Store.save_summaries`; they are in the store some seconds later, where no other process has it."""
        self._store.save_summaries(summaries)
        self._later(GATHERED, self._take_in)

    def close(self) -> None:
        """Takes in what waits, if that is possible now, and gives the store back."""
        with self._arming:
            self._closed = True
            for timer in self._timers.values():
                timer.call_off()
        self._take_in()
        self._release()

    @contextmanager
    def _held(self) -> Iterator[Store]:
        """The store, open for writing, for one write. StoreBusy, StoreReadOnly."""
        if self._store.is_shared:  # its owner writes, and gathers what comes from several threads
            yield self._store
            return
        with self._owning:
            if self._closed:
                raise StoreError(f"The store {self._store.path} was closed; open it again.")
            if self._own is None:
                self._own = Store.open(self._store.path, write=True)
                self._later(HELD, self._release)
            try:
                yield self._own
            finally:
                self._written = time.monotonic()

    def _release(self) -> None:
        """Gives the store back where nothing was written for HELD seconds, or all is over."""
        with self._owning:
            left = self._written + HELD - time.monotonic()
            if self._own is not None and left > 0 and not self._closed:
                self._later(left, self._release)
            elif self._own is not None:
                self._own.close()
                self._own = None

    def _take_in(self) -> None:
        with self._taking:
            try:
                self._store.take_waiting(patience=0)
            except (StoreError, OSError) as error:  # nothing is lost: they lie there for the next writer
                _log.info("Summaries wait beside the store for its next writer: %s", error)

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        """Does some work in a thread of its own, once, however often it is asked to before it begins."""

        def begin() -> None:
            with self._arming:
                self._timers.pop(work, None)
            work()

        with self._arming:
            if work not in self._timers and not self._closed:
                self._timers[work] = timer = Beside("recgraph-store-writer", begin, after=seconds)
                timer.start()
