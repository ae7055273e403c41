"""What killed commands leave behind: folders and files beside a store and in the folder for temporary files, told from
those that somebody is using right now. It knows their names, not what is in them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from recgraph.store.care.rewrite import REWRITING
from recgraph.store.connection import INGEST_FOLDER, WANTED

TEMPORARY = ("recgraph-snapshot-", "recgraph-ingest-", "recgraph-shop-", "recgraph-parts-", "recgraph-core-")
_YOUNG = 60.0  # seconds: what is younger may belong to a process that is just beginning
_INDEX = ".index"  # after the store's name: what was built of it (tools/sources/kept.py)
_HALF = ("*/.*-????????", ".*-????????")  # in that folder: things that were being written


@dataclass(frozen=True)
class Leftover:
    """Something that nobody uses any more; `what` says whose it was."""

    place: Path
    what: str

    def sweep(self) -> None:
        """Takes it away; what cannot be taken away stays."""
        if self.place.is_dir() and not self.place.is_symlink():
            shutil.rmtree(self.place, ignore_errors=True)
        else:
            self.place.unlink(missing_ok=True)


def index_of(store: Path) -> Path:
    """The folder of what was built of a store."""
    return store.with_name(store.name + _INDEX)


def found(store: Path) -> list[Leftover]:
    """The leftovers beside a store and in the folder for temporary files."""
    return [*_beside(store.absolute()), *_half_built(store.absolute()), *_temporary()]


def _beside(store: Path) -> Iterator[Leftover]:
    if not _ingest_is_at_work(store):
        for ending, what in ((INGEST_FOLDER, "of an ingest that was cut off"), (".lock", "of an ingest that was cut off")):
            place = store.with_name(store.name + ending)
            if place.exists():
                yield Leftover(place, what)
    for ending, what in (
        (WANTED, "of a command that waited for the store"),
        (REWRITING, "of writing the store anew"),
        (REWRITING + ".wal", "of writing the store anew"),
        (".publish", "of publishing"),
        (".publish.wal", "of publishing"),
        (".tmp", "what DuckDB could not hold in memory"),
    ):
        for name in (store.name, store.with_suffix(".runs.duckdb").name):
            place = store.with_name(name + ending)
            if place.exists() and not _is_used(place):
                yield Leftover(place, what)


def _ingest_is_at_work(store: Path) -> bool:
    lock = store.with_name(store.name + ".lock")
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _half_built(store: Path) -> Iterator[Leftover]:
    for pattern in _HALF:
        for place in sorted(index_of(store).glob(pattern)):
            if not _is_used(place):
                yield Leftover(place, "of an index that was being built")
    for place in sorted(store.with_name(store.name + ".pending").glob("*.new")):
        if not _is_used(place):
            yield Leftover(place, "of a run that was cut off")


def _temporary() -> Iterator[Leftover]:
    for entry in sorted(Path(tempfile.gettempdir()).iterdir()):
        if entry.name.startswith(TEMPORARY) and entry.is_dir() and not _is_used(entry):
            yield Leftover(entry, "a folder of a command that was cut off")


def _is_used(place: Path) -> bool:
    """Whether it is young, or a process has something in it open. Others' processes cannot be looked into: then an hour
    must have passed."""
    try:
        age = time.time() - max(one.stat().st_mtime for one in (place, *(place.iterdir() if place.is_dir() else ())))
    except OSError:
        return True
    if age < _YOUNG:
        return True
    opened = _open_files()
    if opened is None:
        return bool(age < 3600)
    return any(one == str(place) or one.startswith(f"{place}/") for one in opened)


def _open_files() -> set[str] | None:
    """What processes that may be looked into have open; None where the system does not say."""
    processes = [entry for entry in Path("/proc").glob("[0-9]*/fd")] if Path("/proc/self/fd").exists() else []
    if not processes:
        return None
    found = set[str]()
    for folder in processes:
        with suppress(OSError):  # somebody else's, or it has ended
            for link in os.listdir(folder):
                with suppress(OSError):  # closed meanwhile
                    found.add(os.readlink(folder / link))
    return found
