"""The one process that has a shared store open for writing: it serves the file through Quack, and does the writes that
others ask for.

Reads run as SQL in DuckDB's own server threads. A write is asked for by a row in `desk.requests`, a table in memory, and
done here as a whole function (store/shared/calls.py): what waits is done in one transaction, so that many
clients cost one commit, and its answer is given only after that commit. So a user of the store that is killed leaves no
transaction open, and one that gets no answer asks again. What is asked is unknown here.

Beside the file lie NAME.token (0600), which opens it and stays the same until it is deleted, and NAME.shared, by which
processes of this machine see without asking that something was written.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from recgraph.errors import StoreBusy, StoreError
from recgraph.store import changes
from recgraph.store.connection import PRIVATE, Database, Terms, is_wanted
from recgraph.store.db import Store
from recgraph.store.forget import erase
from recgraph.store.shared.address import Address, load_extensions
from recgraph.store.shared.calls import BLOCK, EVENTS, FORGET, WRITES, is_repeatable, packed, packed_error, unpacked
from recgraph.store.shared.mark import MARK, Mark

TOKEN = ".token"  # after the store's name
TOKEN_LONGEST = 200
AT_ONCE = 500  # requests of one transaction
_EAGER, _IDLE = 0.001, 0.01  # seconds between two looks at the desk: while something comes, and else
_KEPT = 120.0  # seconds that an answer lies on the desk
_SWEPT = 10.0  # seconds between two sweeps, with which the tables in memory give deleted rows back
_MERGED = 0.3  # seconds in which an ingest for which the owner made way must have taken the file
_log = logging.getLogger(__name__)
_DESK = """ATTACH ':memory:' AS desk;
    CREATE TABLE desk.owner AS SELECT ?::VARCHAR AS path, ?::VARCHAR AS mark;
    CREATE TABLE desk.requests (id VARCHAR, name VARCHAR, payload VARCHAR);
    CREATE TABLE desk.answers (id VARCHAR, answer VARCHAR, given DOUBLE)"""
Request = tuple[str, str, str]  # id, name of the write, its arguments


class Owner:
    """Serves the store at `path` until it is stopped. `run` blocks; `stop` may be called from anywhere."""

    def __init__(self, path: Path, address: Address, anywhere: bool = False) -> None:
        """`anywhere` lets it listen on an address that is not this machine's loopback. StoreError."""
        if not address.is_local and not anywhere:
            raise StoreError(
                f"{address} is not this machine's loopback address. What Quack sends is not encrypted: put a TLS proxy before "
                "127.0.0.1, or say --anywhere where the network is your own."
            )
        self.path, self.address = path.absolute(), address
        self.token_file = self.path.with_name(self.path.name + TOKEN)
        self.token = self._kept_token() or secrets.token_urlsafe(32)
        self._stopped, self._quick = threading.Event(), 0.0
        # The answers given before the file was last written anew: the desk went with it, and who had not read theirs
        # asks again.
        self._told: dict[str, str] = {}

    def stop(self) -> None:
        """What was asked for before is still done."""
        self._stopped.set()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves, and calls `ready` as soon as it does. It makes way for an ingest as readers do. StoreError."""
        Store.create(self.path).close()
        self._write_token()
        mark = Mark(self.path.with_name(self.path.name + MARK), write=True)
        try:
            while not self._stopped.is_set():
                with Store.open(self.path) as store:
                    erase(store)  # who was forgotten stays in freed blocks until the file is written anew
                    with self._served(store, mark) as cursor:
                        ready()
                        self._attend(store, cursor, mark)
                if is_wanted(self.path):
                    self._stopped.wait(_MERGED)  # from here on opening waits for the ingest
        finally:
            mark.close()

    def _kept_token(self) -> str:
        """The token of the last owner, so that who has it goes on where an owner is started anew; "" where there is none,
        or others could have read or left it."""
        try:
            with open(os.open(self.token_file, os.O_RDONLY | os.O_NOFOLLOW), encoding="ascii") as file:
                told = os.fstat(file.fileno())
                mine = told.st_uid == os.geteuid() and stat.S_IMODE(told.st_mode) == PRIVATE
                return file.read(TOKEN_LONGEST).strip() if mine else ""
        except (OSError, UnicodeError):
            return ""

    def _write_token(self) -> None:
        if self._kept_token() != self.token:
            self.token_file.unlink(missing_ok=True)
            with os.fdopen(os.open(self.token_file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, PRIVATE), "w") as file:
                file.write(self.token + "\n")

    @contextmanager
    def _served(self, store: Store, mark: Mark) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for the desk, while the file is open for writing and others can connect."""
        database = store._database
        with database.opened_for(Terms(prepare=load_extensions), write=True):
            store.take_waiting()
            mark.step()
            with database.reading(fresh=True) as cursor:
                for command in _DESK.split(";"):
                    cursor.execute(command, [str(self.path), mark.name] if "?" in command else [])
                self._listen(cursor)
                try:
                    yield cursor
                finally:
                    cursor.execute("CALL quack_stop(?)", [str(self.address)])
                    cursor.execute("DETACH desk")

    def _listen(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute(
                "CALL quack_serve(?, token => ?, allow_other_hostname => ?)",
                [str(self.address), self.token, not self.address.is_local],
            )
        except duckdb.Error as error:
            line = str(error).splitlines()[0]
            raise StoreError(
                f"{self.address} cannot be served ({line}). Is the port taken? Try another: --port"
            ) from error

    def _attend(self, store: Store, cursor: duckdb.DuckDBPyConnection, mark: Mark) -> None:
        """Does what is asked for until it is stopped, an ingest wants the file, or it has to be written anew."""
        swept = time.monotonic()
        while True:
            last = self._stopped.is_set() or is_wanted(self.path)
            requests: list[Request] = cursor.execute(f"FROM desk.requests LIMIT {AT_ONCE}").fetchall()
            now = time.monotonic()
            if requests:
                self._quick = now
                self._answer(store._database, cursor, mark, requests)
                if any(name == FORGET for _, name, _ in requests):
                    return
            elif last:
                return
            else:
                self._stopped.wait(_EAGER if now - self._quick < 1 else _IDLE)
            if now - swept > _SWEPT:
                swept = now
                cursor.execute("DELETE FROM desk.answers WHERE given < ?", [now - _KEPT])
                cursor.execute("CHECKPOINT desk")

    def _answer(
        self, database: Database, cursor: duckdb.DuckDBPyConnection, mark: Mark, requests: Sequence[Request]
    ) -> None:
        new = [one for one in requests if one[0] not in self._told]
        told = self._told | dict(zip((one for one, _, _ in new), done_together(database, new), strict=True))
        answers = [told[one] for one, _, _ in requests]
        if any(name == FORGET for _, name, _ in new):
            self._told = {one: told[one] for one, _, _ in requests}
        mark.step()  # before anybody is told: whose write is answered sees it at the next look
        now = time.monotonic()
        cursor.begin()
        cursor.execute(
            "INSERT INTO desk.answers SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), ?",
            [[one for one, _, _ in requests], answers, now],
        )
        ids = [one for one, _, _ in requests]
        cursor.execute("DELETE FROM desk.requests WHERE id IN (SELECT unnest(?::VARCHAR[]))", [ids])
        cursor.commit()


def done_together(database: Database, requests: Sequence[Request]) -> list[str]:
    """The answers, all of one transaction; where one cannot be done, each of its own."""
    try:
        with database.writing() as cursor:
            return [packed({"value": value}) for value in _all_done(cursor, requests)]
    except (StoreError, ValueError, TypeError) as error:
        if len(requests) == 1:
            if isinstance(error, StoreBusy):
                _log.warning("A write was not done: %s", error)
            return [packed_error(error)]
    return [answer for one in requests for answer in done_together(database, [one])]


def _all_done(cursor: duckdb.DuckDBPyConnection, requests: Sequence[Request]) -> list[object]:
    """What each gives; events with ids, of which there are most, are written together."""
    asked = [(name, unpacked(payload)) for _, name, payload in requests]
    events = [place for place, (name, given) in enumerate(asked) if name == EVENTS and is_repeatable(name, given)]
    written = changes.record_batches(cursor, [(asked[place][1][0], asked[place][1][1]) for place in events])
    done: dict[int, object] = dict(zip(events, written, strict=True))
    return [done[n] if n in done else _done(cursor, name, given) for n, (name, given) in enumerate(asked)]


def _done(cursor: duckdb.DuckDBPyConnection, name: str, given: Sequence[Any]) -> object:
    """One write, or several as one: a list of [name, arguments]."""
    if name == BLOCK:
        return [_done(cursor, one, unpacked(arguments)) for one, arguments in given]
    if name not in WRITES:
        raise StoreError(
            f"'{name[:40]}' is no write that a shared store knows; is it served by another version of recgraph?"
        )
    return WRITES[name](cursor, *given)
