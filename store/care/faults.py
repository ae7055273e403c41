"""What a database file does that is damaged, locked, full or not ours, in sentences: every error of DuckDB becomes a
StoreError that says what to do. It knows files and messages, no table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from recgraph.errors import StoreBusy, StoreError, StoreReadOnly

RUNS = ".runs.duckdb"  # what a run log's name ends in (store/runs.py)
LOG = ".wal"  # DuckDB's own log, after the name of its file: what was committed and is not in the file yet
ASIDE = ".damaged"  # after the name of what was set aside

_BUSY = ("could not set lock", "conflicting lock", "different configuration")
_UNWRITABLE = ("permission denied", "read-only file system", "not permitted", "read-only mode")
_FULL = ("no space left", "file too large", "quota exceeded")
_DAMAGED = (
    *("corrupt", "checksum", "could not read enough bytes", "is a directory", "not a valid duckdb database"),
    *("serialization error", "deserial", "internal error", "wal file", "failed to load", "invalidated because", "invalid unicode"),
)


def translate(error: duckdb.Error, path: Path) -> StoreError:
    """The StoreError that says what an error of DuckDB about the file `path` means to the user, and what mends it."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    low = str(error).lower()
    name = f"The {'run log' if path.name.endswith(RUNS) else 'store'} {path}"
    if any(sign in low for sign in _BUSY):
        return StoreBusy(
            f"Another process is using the store {path}. Try again when it is done, or close it. (DuckDB: {line})"
        )
    if any(sign in low for sign in _FULL):
        beside = path.parent.name.endswith(".ingest")  # of an ingest, whose folder is gone when this is read
        return StoreReadOnly(
            f"{name} cannot be written: its disk is full ({line}). Nothing was changed. Free some space there: "
            f"df -h {path.parent.parent if beside else path.parent}"
        )
    if any(sign in low for sign in _UNWRITABLE):
        return StoreReadOnly(
            f"{name} cannot be written ({line}). Reading works; make the file and its folder writable: chmod u+w {path} {path.parent}"
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreError(
            f"{name} needs more memory than this machine gives ({line}). Close other programs, or ask for less at once."
        )
    if "version number" in low or "newer version" in low:
        return StoreError(
            f"{path} was written by a newer DuckDB than the installed {duckdb.__version__}. Run: pip install -U duckdb"
        )
    if "not a valid duckdb database" in low:
        return StoreError(f"{path} is not a DuckDB file. {_remedy(path) or 'Name another file with --store, or move this one away.'}")
    if any(sign in low for sign in _DAMAGED):
        return StoreError(f"{name} is damaged ({line}). {_remedy(path) or _deep(path)}")
    return StoreError(f"{name} cannot be used ({line}). To look into it: recgraph doctor --deep --store {store_of(path)}")


def store_of(path: Path) -> Path:
    """The store that a file belongs to: the run log's is the one beside it."""
    return path.with_name(path.name.removesuffix(RUNS) + ".duckdb") if path.name.endswith(RUNS) else path


def _deep(path: Path) -> str:
    return f"What can be saved of it is saved by: recgraph doctor --deep --mend --store {path}"


def _remedy(path: Path) -> str:
    """Nothing hangs on a run log: a new one is begun."""
    aside = f"To set it aside and begin a new one: recgraph doctor --deep --mend --store {store_of(path)}"
    return aside if path.name.endswith(RUNS) else ""


def is_fatal(error: duckdb.Error) -> bool:
    """Whether DuckDB refuses everything after it until the file is opened anew."""
    return isinstance(error, (duckdb.FatalException, duckdb.InternalException)) or "invalidated" in str(error)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of DuckDB in the block become StoreErrors about `path`."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, path) from error


def check_writable(path: Path) -> None:
    """Raises StoreReadOnly where the store's file or its folder cannot be written."""
    if not os.access(
        path if path.exists() else path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise StoreReadOnly(
            f"The store {path} cannot be written (permission denied). Reading works; make the file and its folder "
            f"writable: chmod u+w {path} {path.parent}"
        )
    # DuckDB writes beside the file (.wal), so a writable file in a read-only folder would only fail at the commit.
    if not os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreReadOnly(
            f"The folder {path.parent} cannot be written, and the store keeps its log there. Reading works. To write: "
            f"chmod u+w {path.parent}"
        )


def places_aside(file: Path, mark: str = ASIDE) -> Iterator[Path]:
    """NAME.damaged, NAME.damaged-2, ..."""
    for number in range(1, 10_000):
        yield file.with_name(f"{file.name}{mark}{'' if number == 1 else f'-{number}'}")


def set_aside(file: Path, mark: str = ASIDE) -> Path:
    """Renames a file (or folder) to the first of `places_aside` that is free, and gives it."""
    place = next(place for place in places_aside(file, mark) if not place.exists())
    file.rename(place)
    return place


def check_complete(file: Path) -> None:
    """Raises StoreReadOnly where a closed database has a log beside it. DuckDB says nothing where, on closing, what
    was committed found no room in the file: who moved the file without its log would lose it."""
    log = file.with_name(file.name + LOG)
    if log.exists() and log.stat().st_size:
        raise StoreReadOnly(
            f"The disk has no room for {file.name} as a whole. Nothing was changed. Free some space there: df -h "
            f"{file.parent.parent if file.parent.name.endswith('.ingest') else file.parent}"
        )


def set_orphaned_log_aside(path: Path) -> Path | None:
    """A log whose file is gone is of another file than the one that is about to be made under its name: DuckDB would
    read it into that. Where it is now; None where there was none."""
    log = path.with_name(path.name + LOG)
    return set_aside(log, ".orphaned") if log.exists() and not path.exists() else None
