"""One DuckDB file, opened for reading or for writing, shared by all `Store` objects of the process that name it.

DuckDB lets either many processes read a file or one process write it, and refuses two modes in one process. So there is
one `Database` a path and process: it reads until somebody writes, closes and reopens the file for that block, and goes
back. It knows no table; see `store/migrations.py` for the schema and `store/db.py` for the queries.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from filelock import FileLock, Timeout

from recgraph.errors import StoreBusy, StoreError
from recgraph.store.care.faults import LOG, check_writable, is_fatal, set_orphaned_log_aside, translate
from recgraph.store.live.beside import Beside

Value = TypeVar("Value")
PATIENCE = 2.0  # seconds to wait for another process's lock before StoreBusy
# while an ingest is at work: its merge, all that it locks the store for, takes seconds (5.9 million events: 30)
MERGE_PATIENCE = 60.0
WANTED = ".wanted"  # after the store's name: touched by an ingest that waits for other processes to close the file
_WANTED_FOR = 1.0  # seconds after which such a file is a killed ingest's
_LOOK_EVERY = 0.1  # seconds between two looks whether an ingest wants the file that nobody reads just now
INGEST_FOLDER = ".ingest"  # after the store's name: there while an ingest is at work (store/ingest/side.py)
MERGING = "merging"  # in that folder: a copy of the store is merged into and will take its place, so nobody writes now
PRIVATE = 0o600  # of a store and what lies beside it: what shoppers did is nobody else's
# A store never reaches for the network: extensions are only those built into the wheel.
_of_parent: set[str] = set()  # files that were open when this process was forked, which DuckDB knows by their names
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def mark_missing(module: str) -> None:
    """Has a module that is not installed be known as missing, so that it is not looked for again."""
    modules: dict[str, Any] = sys.modules
    if module not in modules and importlib.util.find_spec(module) is None:
        modules[module] = None


# DuckDB imports it twice for each value of a list it is given, and Python remembers no module that is not there: of the
# 3.4 seconds to a first answer that was 2.3.
mark_missing("pandas")


@dataclass(frozen=True)
class Terms:
    """What the SQL of one block may do that is refused while a store serves: reach the files of `folder`, run with
    DuckDB's `settings`, change them (ALTER TABLE does, by itself), use what `prepare` loaded."""

    folder: Path | None = None
    settings: Mapping[str, str | int] = field(default_factory=dict)
    changing: bool = False
    prepare: Callable[[duckdb.DuckDBPyConnection], None] = lambda connection: None


def _locked(connection: duckdb.DuckDBPyConnection, terms: Terms | None) -> duckdb.DuckDBPyConnection:
    """From here on SQL reaches no file but the store's own and those of the terms, whatever a store has in it."""
    allowed = terms or Terms()
    allowed.prepare(connection)
    for name, value in allowed.settings.items():
        connection.execute(f"SET {name} = '{value}'")
    if allowed.folder is not None:
        connection.execute("SET allowed_directories = ?", [[f"{allowed.folder.absolute()}/"]])
    connection.execute("SET enable_external_access = false")
    if not allowed.changing:
        connection.execute("SET lock_configuration = true")
    return connection


def _connect(
    path: Path, write: bool, patience: float | None = None, terms: Terms | None = None
) -> duckdb.DuckDBPyConnection:
    """Opens the file, waiting for a lock held elsewhere: `patience` seconds, else PATIENCE, and MERGE_PATIENCE while an
    ingest is at work."""
    if os.path.realpath(path) in _of_parent:
        raise StoreError(
            f"{path} was being written, or read, when this process was forked from another one, and stays open there: "
            "close it before the fork, or open it only afterwards, in each process."
        )
    new = not path.exists()
    if write:
        check_writable(path)
        set_orphaned_log_aside(path)
    begun = alone = time.monotonic()  # `alone`: since when no ingest is known to be at work
    asks = write and bool(patience)  # an ingest, for which readers make way
    try:
        while True:
            try:
                if write or not is_wanted(path):
                    file = _inode(path)
                    connection = duckdb.connect(str(path), read_only=not write, config=CONFIG)
                    if new:
                        path.chmod(PRIVATE)
                    elif write and (is_merged_beside(path) or _inode(path) != file):
                        connection.close()
                        raise duckdb.IOException("Could not set lock: an ingest is merging into a copy")
                    return _locked(connection, terms)
            except duckdb.Error as error:
                reason, now = translate(error, path), time.monotonic()
                # An ingest that ends between the attempt and this line leaves PATIENCE for the next ones.
                if now - begun <= MERGE_PATIENCE and path.with_name(path.name + INGEST_FOLDER).exists():
                    alone = now
                late = now - begun > patience if patience is not None else now - alone > PATIENCE
                if late or not isinstance(reason, StoreBusy):
                    raise reason from error
                if asks:
                    path.with_name(path.name + WANTED).touch()
            time.sleep(0.05)
    finally:
        if asks:
            path.with_name(path.name + WANTED).unlink(missing_ok=True)


def is_wanted(path: Path) -> bool:
    """Whether an ingest of another process waits for the file to be closed."""
    try:
        return time.time() - path.with_name(path.name + WANTED).stat().st_mtime < _WANTED_FOR
    except OSError:
        return False


def is_merged_beside(path: Path) -> bool:
    """Whether a copy of the file will take its place, so that what is written now would be lost. A killed ingest's mark
    counts for nothing."""
    if not (path.with_name(path.name + INGEST_FOLDER) / MERGING).exists():
        return False
    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=0):
            return False
    except Timeout:
        return True


def _inode(path: Path) -> int:
    """0 where there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


class Database:
    """The connection of one path. `reading()` and `writing()` hand out cursors; any thread may use either at any time.

    A connection that only reads is closed as soon as an ingest of another process wants the file, and reopened by the
    next read after it; likewise where another file took the place of this one.

    A thread inside `writing()` sees its own transaction through `reading()` too; other threads read the state before
    it. Two threads that write take turns. Do not wait, inside `writing()`, for another thread that writes.
    """

    _shared: dict[str, Database] = {}  # noqa: RUF012 - the one registry of the process
    _shared_lock = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers = 0  # stores opened for writing + a writing() block in progress
        self._owners = 0
        self._generation = 0
        self._terms: Terms | None = None
        self._begin_closed()

    def _begin_closed(self) -> None:
        """As a database that nobody has used yet."""
        self._state = threading.Condition()
        self._turn = threading.Lock()  # held by the thread that writes
        self._con: duckdb.DuckDBPyConnection | None = None
        self._active = 0  # cursors handed out to readers
        # cursors to hand out again: making one costs more than reading a history
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._switching = False
        self._cursor: duckdb.DuckDBPyConnection | None = None  # of the transaction in progress
        self._owner_thread: int | None = None
        self._file = 0  # inode of the open file
        self._watcher: Beside | None = None
        self._broken = False  # DuckDB refuses all after a fatal error: the file is opened anew

    @property
    def generation(self) -> int | None:
        """A number that is another one once anything can have been written, by this process or, while the file was
        closed, by others; None while it is closed or a transaction of this thread is open."""
        return None if self._con is None or self.in_transaction or self._is_replaced else self._generation

    @property
    def _is_replaced(self) -> bool:
        """Whether another file took the place of the one that is open."""
        return not self._writers and _inode(self.path) not in (0, self._file)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of this thread is open."""
        return self._owner_thread == threading.get_ident()

    @classmethod
    def acquire(cls, path: str | Path, write: bool, patience: float | None = None) -> Database:
        """The process's database of `path`, opened at least for reading. Give it back with `release`. `patience` is how
        many seconds a writer waits for other processes."""
        place = Path(os.path.expanduser(path)).absolute()
        key = os.path.realpath(place)
        with cls._shared_lock:
            database = cls._shared.setdefault(key, cls(place))
            database._owners += 1
        try:
            if write:
                database._add_writer(patience)
            else:
                with database.reading():
                    pass
        except BaseException:
            database.release(write=False)
            raise
        return database

    @classmethod
    def reopen(cls, path: Path) -> None:
        """After another file took the place of `path`: whoever of this process has it open opens it anew."""
        with cls._shared_lock:
            database = cls._shared.get(os.path.realpath(path))
        if database is not None:
            with database._turn, database._state:
                database._switch(database._writers > 0)

    @property
    def is_written(self) -> bool:
        """Whether this process has it open for writing."""
        return self._writers > 0

    def release(self, write: bool) -> None:
        """Undoes one `acquire`; the last one closes the file and frees its lock."""
        if write:
            self._drop_writer()
        with Database._shared_lock:
            self._owners -= 1
            if self._owners == 0:
                Database._shared.pop(os.path.realpath(self.path), None)
                # A connection that is closed under the write of another thread takes the process with it.
                with nullcontext() if self.in_transaction else self._turn:
                    self._switch(None)

    def _switch(self, write: bool | None, patience: float | None = None) -> None:
        """Closes the connection once no reader uses it, and opens it in the given mode (None and False: at the next
        use)."""
        with self._state:
            self._switching = True
            try:
                self._state.wait_for(lambda: self._active == 0)
                while self._idle:
                    self._idle.pop().close()
                if self._con is not None:
                    self._con.close()
                    self._con = None
                self._generation += 1
                self._broken = False
                if write:
                    self._con = _connect(self.path, True, patience, self._terms)
            finally:
                self._switching = False
                self._state.notify_all()

    def _watch(self) -> None:
        """Sees to it, in a thread of its own, that a file which this process only reads is there for an ingest."""
        self._file = _inode(self.path)
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = watcher = Beside("recgraph-store", lambda: self._look(watcher))
            watcher.start()

    def _look(self, watcher: Beside) -> None:
        while watcher.pause(_LOOK_EVERY):
            with self._state:
                if self._con is None or self._writers:
                    self._watcher = None  # the next one that opens the file for reading starts another
                    return
                if is_wanted(self.path) or self._is_replaced:
                    self._switch(None)

    def _add_writer(self, patience: float | None = None) -> None:
        with self._state:
            self._writers += 1
            if self._writers > 1 and self._con is not None and not self._broken:
                return
            try:
                self._switch(True, patience)
            except StoreError:
                self._writers -= 1
                raise

    def _drop_writer(self) -> None:
        with self._state:
            self._writers -= 1
            if self._writers == 0:
                self._switch(False)

    @contextmanager
    def reading(self, fresh: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one read; results must be fetched before the block ends. Reopens the file where it was closed.

        A `fresh` cursor has no temporary tables and macros, and whatever it gets goes with it. Any error of DuckDB is a
        StoreError that says what to do.
        """
        if self._owner_thread == threading.get_ident() and self._cursor is not None:
            yield self._cursor
            return
        with self._cursor_to_read(fresh) as cursor:
            try:
                yield cursor
            except duckdb.Error as error:
                raise self._translated(error) from error

    @contextmanager
    def _cursor_to_read(self, fresh: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._state:
            self._state.wait_for(lambda: not self._switching)
            if self._broken or (self._active == 0 and self._con is not None and self._is_replaced):
                self._switch(self._writers > 0)
            if self._con is None:
                self._con = _connect(self.path, write=self._writers > 0, terms=self._terms)
                self._watch()
            cursor = self._idle.pop() if self._idle and not fresh else self._con.cursor()
            self._active += 1
        try:
            yield cursor
        finally:
            with self._state:
                if fresh or self._broken:
                    cursor.close()
                else:
                    self._idle.append(cursor)
                self._active -= 1
                self._state.notify_all()

    def _translated(self, error: duckdb.Error) -> StoreError:
        self._broken = self._broken or is_fatal(error)
        return translate(error, self.path)

    @contextmanager
    def writing(
        self, session: duckdb.DuckDBPyConnection | None = None, patience: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside one transaction, committed at the end and rolled back on any error. Nested blocks join the
        outer one.

        With `session`, a cursor of `reading()` that the caller still holds, the transaction is that cursor's, which
        keeps its temporary tables; only for a database acquired for writing. `patience` as in `acquire`. Raises
        StoreBusy or StoreReadOnly on entering, and at the end where the disk refuses the commit; any error of DuckDB is
        a StoreError.
        """
        if self._owner_thread == threading.get_ident() and self._cursor is not None:
            yield self._cursor
            return
        with self._turn:
            self._add_writer(patience)
            try:
                assert self._con is not None
                cursor = session or self._con.cursor()
                cursor.begin()
                self._cursor, self._owner_thread = cursor, threading.get_ident()
                try:
                    yield cursor
                except duckdb.Error as error:
                    self._rollback(cursor)
                    raise self._translated(error) from error
                except BaseException:
                    self._rollback(cursor)
                    raise
                else:
                    self._commit(cursor)
                finally:
                    self._cursor, self._owner_thread = None, None
                    if session is None:
                        cursor.close()
            finally:
                self._drop_writer()

    def call(self, write: Callable[..., Value], *arguments: object) -> Value:
        """One write of `store/`, a function of a cursor and these arguments, in a transaction of its own or the one of
        this thread. A shared store has it done by its owner (store/shared/remote.py)."""
        with self.writing() as cursor:
            return write(cursor, *arguments)

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.commit()
        except duckdb.Error as error:
            self._rollback(cursor)
            raise self._translated(error) from error
        self._generation += 1
        self._make_private(self.path.with_name(self.path.name + LOG))

    def _make_private(self, log: Path) -> None:
        """The log is as readable as its file, whatever the process's umask."""
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
            if stat.S_IMODE(log.stat().st_mode) != mode:
                log.chmod(mode)
        except FileNotFoundError:  # no log: all is in the file
            return

    @contextmanager
    def opened_for(self, terms: Terms, write: bool = False, patience: float | None = None) -> Iterator[None]:
        """For this block the file is opened on other terms, by all threads; for writing where `write`. Not inside
        `reading()` or `writing()`. Raises as `acquire`."""
        with self._turn, self._state:
            self._terms, self._writers = terms, self._writers + write
            try:
                self._switch(self._writers > 0, patience)
            except BaseException:
                self._terms, self._writers = None, self._writers - write
                raise
        try:
            yield
        finally:
            with self._turn, self._state:
                self._terms, self._writers = None, self._writers - write
                self._switch(self._writers > 0)

    def replace(self, make: Callable[[Path], None]) -> None:
        """Closes the file while `make` puts another one in its place; who reads meanwhile waits."""
        with self._turn, self._state:
            self._switch(None)
            try:
                make(self.path)
            finally:
                if self._writers:
                    self._switch(True)

    def _is_idle(self, patience: float) -> bool:
        """Whether no reader uses it, after so many seconds at most, in which no other one begins."""
        self._switching = True
        idle = self._state.wait_for(lambda: self._active == 0, patience)
        self._switching = False
        self._state.notify_all()
        return idle

    @classmethod
    def _before_fork(cls) -> None:
        """Closes what is only read, so that parent and child open it again, each for itself: DuckDB's threads are not
        in a child. Nobody opens anything until the fork is over."""
        cls._shared_lock.acquire()
        for database in cls._shared.values():
            database._state.acquire()
            if not database._writers and database._is_idle(PATIENCE):
                database._switch(None)

    @classmethod
    def _after_fork(cls) -> None:
        for database in cls._shared.values():
            database._state.release()
        cls._shared_lock.release()

    @classmethod
    def _after_fork_in_child(cls) -> None:
        """What is still open is the parent's: a connection that is closed here, or let go, would wait for threads that
        are not there, or abort. So it is held for ever, and DuckDB's own connection in memory too. Locks that other
        threads of the parent hold are made anew."""
        cls._shared_lock = threading.Lock()
        held: list[object] = [duckdb.default_connection()]
        for key, database in cls._shared.items():
            if database._con is not None:
                held += [database._con, database._cursor, *database._idle]
                _of_parent.add(key)
            database._begin_closed()
            database._generation += 1
        for one in held:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))

    @staticmethod
    def _rollback(cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.rollback()
        except duckdb.Error:
            return  # the failed statement or commit already ended the transaction


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=Database._before_fork,
        after_in_parent=Database._after_fork,
        after_in_child=Database._after_fork_in_child,
    )
