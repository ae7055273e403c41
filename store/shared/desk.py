"""Writes on their way to the owner of a shared store: those of all threads of this process go in one message, and one
message asks for all answers.

A write that got no answer is asked for again where that does no harm; its number tells the owner that it is the same.
How a write is packed is unknown here (store/shared/calls.py).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.live.beside import Beside
from recgraph.store.shared.session import Session, is_lost, literal

PATIENCE = 60.0  # seconds until a write that is not answered is StoreBusy, as while an ingest has the file
_ASKED = 0.002  # seconds between two questions for answers
_TRIED = 0.1  # seconds between two tries to reach an owner that does not answer
_ENDS = 5.0  # seconds without a write after which the thread ends


@dataclass
class _Wanted:
    """A write that a thread waits for."""

    name: str
    payload: str
    repeatable: bool
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    answered: threading.Event = field(default_factory=threading.Event)
    answer: str = ""
    error: StoreError | None = None

    def fail(self, error: StoreError) -> None:
        self.error = error
        self.answered.set()


class WriteDesk:
    """Where the threads of one process leave their writes. Thread-safe."""

    def __init__(self, connect: Callable[[], Session], name: str) -> None:
        """`connect` makes a session of the desk's own; `name` is what errors call the store."""
        self._connect, self._name = connect, name
        self._state = threading.Condition()
        self._new: list[_Wanted] = []
        self._thread: Beside | None = None
        self._session: Session | None = None

    def ask(self, name: str, payload: str, repeatable: bool) -> str:
        """The owner's answer, packed. StoreBusy where there is none, StoreError where it refuses to talk."""
        wanted = _Wanted(name, payload, repeatable)
        with self._state:
            self._new.append(wanted)
            if self._thread is None:
                self._thread = thread = Beside("recgraph-desk", lambda: self._work(thread), wake=self._wake)
                thread.start()
            self._state.notify_all()
        if not wanted.answered.wait(PATIENCE):
            raise self._silent("did not answer")
        if wanted.error is not None:
            raise wanted.error
        return wanted.answer

    def _silent(self, what: str) -> StoreBusy:
        return StoreBusy(
            f"The owner of the store {self._name} {what}; whether this was written is not known. Start it: recgraph store serve "
            "FILE. Events with ids may be given again."
        )

    def _wake(self) -> None:
        with self._state:
            self._state.notify_all()

    def _work(self, thread: Beside) -> None:
        waiting: dict[str, _Wanted] = {}
        while True:
            with self._state:
                if not waiting:
                    self._state.wait_for(lambda: bool(self._new) or thread.is_called_off, _ENDS)
                    if not self._new:
                        self._thread = None
                        self._hang_up()
                        return
                new, self._new = self._new, []
            try:
                self._exchange(waiting, new)
            except duckdb.Error as error:
                self._hang_up()
                self._after(error, waiting, new)
                time.sleep(_TRIED)
                continue
            if waiting:
                time.sleep(_ASKED)

    def _exchange(self, waiting: dict[str, _Wanted], new: list[_Wanted]) -> None:
        """Leaves the new ones, and takes the answers there are."""
        if self._session is None:
            self._session = self._connect()
        if new:
            rows = ", ".join(f"({literal(one.number)}, {literal(one.name)}, {literal(one.payload)})" for one in new)
            self._session.send(f"INSERT INTO desk.requests VALUES {rows}")  # noqa: S608 - literals
            waiting.update((one.number, one) for one in new)
        numbers = literal(list(waiting))
        asked = f"SELECT id, answer FROM desk.answers WHERE id IN (SELECT unnest({numbers}::VARCHAR[]))"  # noqa: S608 - hex
        for number, answer in self._session.send(asked).fetchall():
            wanted = waiting.pop(number, None)
            if wanted is not None:
                wanted.answer = answer
                wanted.answered.set()

    def _after(self, error: duckdb.Error, waiting: dict[str, _Wanted], new: list[_Wanted]) -> None:
        """What becomes of the writes after a failed exchange: asked for again where they may be."""
        left = {**waiting, **{one.number: one for one in new}}
        waiting.clear()
        for one in left.values():
            if not is_lost(error):
                one.fail(StoreError(f"The store {self._name} cannot be written ({str(error).splitlines()[0]})."))
            elif not one.repeatable:
                one.fail(self._silent("was lost"))
            else:
                with self._state:
                    self._new.append(one)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
