"""A shared store as a `Database`: reads are SQL that the owner's server runs, writes are calls that the owner does.

`path` names what lies beside the store (kept indexes, the run log): beside the file where this is the owner's machine,
else in a folder of this machine's own. It knows no table but the owner's desk.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import duckdb

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.care.faults import translate
from recgraph.store.connection import CONFIG, MERGE_PATIENCE, PATIENCE, Database, Terms
from recgraph.store.shared.address import Address, load_extensions, parse_address, token_of
from recgraph.store.shared.calls import BLOCK, answer_of, is_repeatable, name_of, packed
from recgraph.store.shared.desk import WriteDesk
from recgraph.store.shared.mark import MARK, Mark
from recgraph.store.shared.session import Session, is_lost

Value = TypeVar("Value")
_SILENT = ("meta", "vectors", "summaries")  # writes without an answer, which several may be one transaction of


class SharedDatabase(Database):
    """The sessions of this process with one owner. `reading()` gives one as if it were a cursor."""

    _open: ClassVar[dict[str, SharedDatabase]] = {}
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, address: Address) -> None:
        super().__init__(Path(str(address)))
        self.address, self.token = address, token_of(address)
        self._names = itertools.count()
        self._blocks = threading.local()  # of each thread: the writes of the block it is in
        self._mark: Mark | None = None
        self._begin()

    def _begin(self) -> None:
        """As if nobody had used it yet, in this process."""
        self._guard = threading.Lock()
        self._memory: duckdb.DuckDBPyConnection | None = None
        self._free: list[Session] = []
        self._desk = WriteDesk(self._connected, str(self.address))

    @classmethod
    def acquire(cls, path: str | Path, write: bool, patience: float | None = None) -> SharedDatabase:
        """The process's sessions with the owner at an address; give them back with `release`. StoreError, and StoreBusy
        where nobody answers."""
        address = parse_address(str(path))
        with cls._open_lock:
            database = cls._open.get(str(address)) or cls(address)
            cls._open[str(address)] = database
            database._owners += 1
        try:
            database._find_place()
        except BaseException:
            database.release(write)
            raise
        return database

    def release(self, write: bool) -> None:
        with SharedDatabase._open_lock:
            self._owners -= 1
            if self._owners:
                return
            SharedDatabase._open.pop(str(self.address), None)
        with self._guard:
            while self._free:
                self._free.pop().close()

    def _find_place(self) -> None:
        """Learns from the owner where the file is, and whether it is a file of this machine."""
        with self.reading() as cursor:
            row = cursor.execute("SELECT path, mark FROM desk.owner").fetchone()
        place, name = (str(row[0]), str(row[1])) if row else ("", "")
        try:
            mark = Mark(Path(place + MARK))
        except (OSError, ValueError):
            mark = None
        if mark is not None and mark.name == name:
            self.path, self._mark = Path(place), mark
            return
        cache = Path(os.environ.get("RECGRAPH_CACHE") or Path.home() / ".cache" / "recgraph").expanduser()
        folder = cache / "shared" / f"{self.address.host.strip('[]').replace(':', '-')}-{self.address.port}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path, self._mark = folder / Path(place).name, None

    # -- what changed ------------------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int | None:
        return self._mark.count if self._mark is not None else None

    @property
    def in_transaction(self) -> bool:
        return getattr(self._blocks, "writes", None) is not None

    @property
    def is_written(self) -> bool:
        return False

    # -- reading -----------------------------------------------------------------------------------------------------------

    def _connected(self) -> Session:
        """A new session. duckdb.Error."""
        with self._guard:
            if self._memory is None:
                self._memory = memory = duckdb.connect(config=CONFIG)
                load_extensions(memory)
                # secrets of other programs are not looked for; nothing but the sessions reaches outside
                for setting in ("allow_persistent_secrets = false", "threads = 1", "enable_external_access = false"):
                    memory.execute(f"SET {setting}")
            connection, name = self._memory.cursor(), f"s{next(self._names)}"
        return Session(connection, name, str(self.address), self.token)

    def _session(self, fresh: bool) -> Session:
        """One to be used, which the server knows. StoreBusy where it does not answer for PATIENCE, StoreError where it
        refuses."""
        begun = time.monotonic()
        while True:
            with self._guard:
                session = self._free.pop() if self._free and not fresh else None
            try:
                return session or self._connected()
            except duckdb.Error as error:
                if not is_lost(error):
                    raise self._refused(error) from error
                if time.monotonic() - begun > PATIENCE:
                    raise self._gone(error) from error
            time.sleep(0.05)

    def _refused(self, error: duckdb.Error) -> StoreError:
        line = str(error).splitlines()[0]
        if "authentication" in line.lower():
            return StoreError(
                f"{self.address} refuses the token. The one of now lies in the file that `recgraph store serve` names."
            )
        return StoreError(f"{self.address} cannot be used ({line}).")

    def _gone(self, error: duckdb.Error) -> StoreBusy:
        return StoreBusy(
            f"Nobody answers at {self.address}. Start the owner of the store there: recgraph store serve FILE "
            f"--port {self.address.port}. (DuckDB: {str(error).splitlines()[0]})"
        )

    @contextmanager
    def reading(self, fresh: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        session = _Reading(self, fresh)
        try:
            yield cast(duckdb.DuckDBPyConnection, session)
        except duckdb.Error as error:
            session.broken = session.broken or is_lost(error)
            raise self._gone(error) if session.broken else translate(error, self.path) from error
        finally:
            session.give_back()

    # -- writing -----------------------------------------------------------------------------------------------------------

    def call(self, write: Callable[..., Value], *arguments: object) -> Value:
        name, block = name_of(write), getattr(self._blocks, "writes", None)
        if block is None:
            return cast(Value, answer_of(self._desk.ask(name, packed(list(arguments)), is_repeatable(name, arguments))))
        if name not in _SILENT:
            raise StoreError(f"On a shared store {name} is a transaction of its own; do it before or after this one.")
        block.append((name, packed(list(arguments))))
        return cast(Value, None)

    @contextmanager
    def writing(
        self, session: duckdb.DuckDBPyConnection | None = None, patience: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """The calls of the block are one transaction, done by the owner when the block ends; what is read inside is the
        state before it."""
        if self.in_transaction:
            with self.reading() as cursor:
                yield cursor
            return
        writes: list[tuple[str, str]] = []
        self._blocks.writes = writes
        try:
            with self.reading() as cursor:
                yield cursor
        finally:
            self._blocks.writes = None
        if writes:
            answer_of(self._desk.ask(BLOCK, packed(writes), repeatable=True))

    @contextmanager
    def opened_for(self, terms: Terms, write: bool = False, patience: float | None = None) -> Iterator[None]:
        self.refuse()
        yield

    def replace(self, make: Callable[[Path], None]) -> None:
        self.refuse()

    def refuse(self) -> None:
        """StoreError for what can be done to a file alone."""
        raise StoreError(
            f"{self.address} is a shared store, and this needs its file: stop `recgraph store serve` and name {self.path} with --store."
        )

    @classmethod
    def _in_child(cls) -> None:
        cls._open_lock = threading.Lock()
        for database in cls._open.values():
            for one in (database._memory, *database._free):
                if one is not None:
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
            database._begin()


class _Reading:
    """A session of one `reading()`: taken at its first statement, and taken anew where the server was started anew
    since. After that statement it may have temporary tables, and an error is one."""

    def __init__(self, database: SharedDatabase, fresh: bool) -> None:
        self._database, self._fresh, self._session = database, fresh, cast(Session | None, None)
        self.broken = False

    def execute(self, sql: str, values: Any = ()) -> _Reading:
        begun = time.monotonic()
        while True:
            first = self._session is None
            session = self._session or self._database._session(self._fresh)
            self._session = session
            try:
                session.execute(sql, values)
                return self
            except duckdb.Error as error:
                if not first or not is_lost(error) or time.monotonic() - begun > MERGE_PATIENCE:
                    raise
                session.close()
                self._session = None

    def fetchall(self) -> list[Any]:
        assert self._session is not None
        return self._session.fetchall()

    def fetchone(self) -> Any:
        assert self._session is not None
        return self._session.fetchone()

    def fetchnumpy(self) -> dict[str, Any]:
        assert self._session is not None
        return self._session.fetchnumpy()

    def give_back(self) -> None:
        if self._session is None:
            return
        with self._database._guard:
            keep = not self._fresh and not self.broken and self._database._owners > 0
            if keep:
                self._database._free.append(self._session)
        if not keep:
            self._session.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SharedDatabase._in_child)
