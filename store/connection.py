"""One DuckDB file, opened for reading or for writing, shared by all `Store` objects of the process that name it.

DuckDB lets either many processes read a file or one process write it, and refuses two modes in one process. So there is
one `Database` a path and process: it reads until somebody writes, closes and reopens the file for that block, and goes
back. It knows no table; see `store/migrations.py` for the schema and `store/db.py` for the queries.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from recgraph.errors import StoreBusy, StoreError, StoreReadOnly

PATIENCE = 2.0  # seconds to wait for another process's lock before StoreBusy
# while an ingest is at work: its merge, all that it locks the store for, takes seconds (5.9 million events: 30)
MERGE_PATIENCE = 60.0
WANTED = ".wanted"  # after the store's name: touched by an ingest that waits for other processes to close the file
_WANTED_FOR = 1.0  # seconds after which such a file is a killed ingest's
_LOOK_EVERY = 0.1  # seconds between two looks whether an ingest wants the file that nobody reads just now
INGEST_FOLDER = ".ingest"  # after the store's name: there while an ingest is at work (store/ingest/side.py)
# A store never reaches for the network: extensions are only those built into the wheel.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_UNWRITABLE = ("permission denied", "read-only file system", "no space left", "not permitted", "read-only mode")


def translate(error: duckdb.Error, path: Path) -> StoreError:
    """The StoreError that says what a DuckDB error on opening or committing `path` means to the user."""
    text = str(error)
    low = text.lower()
    if "could not set lock" in low or "conflicting lock" in low or "different configuration" in low:
        return StoreBusy(
            f"Another process is using the store {path}. Try again when it is done, or close it. (DuckDB: "
            f"{text.splitlines()[0]})"
        )
    if any(sign in low for sign in _UNWRITABLE):
        return StoreReadOnly(
            f"The store {path} cannot be written ({text.splitlines()[0]}). Reading works; make the file and its "
            "folder writable."
        )
    if "not a valid duckdb database" in low:
        return StoreError(f"{path} is not a DuckDB file. Name another file with --store, or move this one away.")
    if "version number" in low or "newer version" in low:
        return StoreError(
            f"{path} was written by a newer DuckDB than the installed {duckdb.__version__}. Run: pip install -U duckdb"
        )
    return StoreError(f"The store {path} cannot be used: {text.splitlines()[0]}")


def check_writable(path: Path) -> None:
    """Raises StoreReadOnly where the store's file or its folder cannot be written."""
    if not os.access(
        path if path.exists() else path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise StoreReadOnly(
            f"The store {path} cannot be written (permission denied). Reading works; make the file and its folder "
            "writable."
        )
    # DuckDB writes beside the file (.wal), so a writable file in a read-only folder would only fail at the commit.
    if not os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreReadOnly(
            f"The folder {path.parent} cannot be written, and the store keeps its log there. Reading works."
        )


def _connect(path: Path, write: bool, patience: float | None = None) -> duckdb.DuckDBPyConnection:
    """Opens the file, waiting for a lock held elsewhere: `patience` seconds, else PATIENCE, and MERGE_PATIENCE while an
    ingest is at work."""
    if write:
        check_writable(path)
    begun = alone = time.monotonic()  # `alone`: since when no ingest is known to be at work
    asks = write and patience is not None  # an ingest, for which readers make way
    try:
        while True:
            try:
                if write or not is_wanted(path):
                    return duckdb.connect(str(path), read_only=not write, config=CONFIG)
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
        self._state = threading.Condition()
        self._turn = threading.Lock()  # held by the thread that writes
        self._con: duckdb.DuckDBPyConnection | None = None
        self._writers = 0  # stores opened for writing + a writing() block in progress
        self._owners = 0
        self._active = 0  # cursors handed out to readers
        # cursors to hand out again: making one costs more than reading a history
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._switching = False
        self._cursor: duckdb.DuckDBPyConnection | None = None  # of the transaction in progress
        self._owner_thread: int | None = None
        self._generation = 0
        self._file = 0  # inode of the open file
        self._watcher: threading.Thread | None = None

    @property
    def generation(self) -> int | None:
        """A number that is another one once anything can have been written, by this process or, while the file was
        closed, by others; None while it is closed or a transaction of this thread is open."""
        return None if self._con is None or self._owner_thread == threading.get_ident() else self._generation

    @classmethod
    def acquire(cls, path: str | Path, write: bool, patience: float | None = None) -> Database:
        """The process's database of `path`, opened at least for reading. Give it back with `release`. `patience` is how
        many seconds a writer waits for other processes."""
        place = Path(path).expanduser().absolute()
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

    def release(self, write: bool) -> None:
        """Undoes one `acquire`; the last one closes the file and frees its lock."""
        if write:
            self._drop_writer()
        with Database._shared_lock:
            self._owners -= 1
            if self._owners == 0:
                Database._shared.pop(os.path.realpath(self.path), None)
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
                if write:
                    self._con = _connect(self.path, True, patience)
            finally:
                self._switching = False
                self._state.notify_all()

    def _watch(self) -> None:
        """Sees to it, in a thread of its own, that a file which this process only reads is there for an ingest."""
        self._file = _inode(self.path)
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._look, name="recgraph-store", daemon=True)
            self._watcher.start()

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            with self._state:
                if self._con is None or self._writers:
                    self._watcher = None  # the next one that opens the file for reading starts another
                    return
                if is_wanted(self.path) or _inode(self.path) not in (0, self._file):
                    self._switch(None)

    def _add_writer(self, patience: float | None = None) -> None:
        with self._state:
            self._writers += 1
            if self._writers > 1:
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

        A `fresh` cursor has no temporary tables and macros, and whatever it gets goes with it.
        """
        if self._owner_thread == threading.get_ident() and self._cursor is not None:
            yield self._cursor
            return
        with self._state:
            self._state.wait_for(lambda: not self._switching)
            if self._con is None:
                self._con = _connect(self.path, write=self._writers > 0)
                self._watch()
            cursor = self._idle.pop() if self._idle and not fresh else self._con.cursor()
            self._active += 1
        try:
            yield cursor
        finally:
            with self._state:
                if fresh:
                    cursor.close()
                else:
                    self._idle.append(cursor)
                self._active -= 1
                self._state.notify_all()

    @contextmanager
    def writing(self, session: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside one transaction, committed at the end and rolled back on any error. Nested blocks join the
        outer one.

        With `session`, a cursor of `reading()` that the caller still holds, the transaction is that cursor's, which
        keeps its temporary tables; only for a database acquired for writing. Raises StoreBusy or StoreReadOnly on
        entering, and at the end where the disk refuses the commit.
        """
        if self._owner_thread == threading.get_ident() and self._cursor is not None:
            yield self._cursor
            return
        with self._turn:
            self._add_writer()
            try:
                assert self._con is not None
                cursor = session or self._con.cursor()
                cursor.begin()
                self._cursor, self._owner_thread = cursor, threading.get_ident()
                try:
                    yield cursor
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

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.commit()
        except duckdb.Error as error:
            self._rollback(cursor)
            raise translate(error, self.path) from error
        self._generation += 1

    @staticmethod
    def _rollback(cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.rollback()
        except duckdb.Error:
            return  # the failed statement or commit already ended the transaction


def _forget_shared() -> None:
    """In a forked child: connections are their parent's, and who opens a store opens the file anew."""
    Database._shared, Database._shared_lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)
