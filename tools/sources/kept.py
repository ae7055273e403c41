"""What sources have built of a past, by name: arrays, sparse tables and indexes that are built once. In memory, or in a
folder from which they are memory-mapped, so that opening a store builds nothing and processes share the memory.

A name holds the settings a thing was built with; that a folder belongs to one past is for its owner to see to.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recgraph.errors import StoreError
from recgraph.store.care import checksums
from recgraph.store.db import Store
from recgraph.tools.index import VectorIndex

_log = logging.getLogger(__name__)
Array = NDArray[Any]
T = TypeVar("T")
INDEX_FOLDER = ".index"  # after the store's name
_FORM = 3  # of the files: another number where older ones would be read wrongly
_PARTS = ("data", "indices", "indptr")  # of a csr table, a file each


class Built:
    """Without a folder it keeps in memory. In a folder a thing is written beside its place and then renamed: another
    process sees it whole or not at all, and one that was cut off leaves nothing that is read."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.damaged: list[str] = []  # names of what lay there and could not be read: it was made again
        self._held: dict[str, Any] = {}
        self._warming: threading.Thread | None = None

    def warm(self) -> None:
        """Begins to read what lies in the folder into the system's memory, where half of that holds it, in a thread of
        its own. Without it each of the first thousands of requests waits for some hundred pages to come from the disk,
        one after the other."""
        if self.folder is not None and self._warming is None:
            self._warming = threading.Thread(target=_read_ahead, args=(self.folder,), name="recgraph-warm", daemon=True)
            self._warming.start()

    def wait(self) -> None:
        """Returns when all that `warm` reads is read."""
        if self._warming is not None:
            self._warming.join()

    def array(self, name: str, make: Callable[[], Array]) -> Array:
        """The array of this name; where there is none, what `make` makes, which is kept."""
        return self.get(name, make, lambda made, place: np.save(place / "array.npy", made), _array)

    def sparse(self, name: str, make: Callable[[], sp.csr_matrix]) -> sp.csr_matrix:
        """Likewise a csr table."""
        return self.get(name, make, _save_sparse, _sparse)

    def index(self, name: str, make: Callable[[], VectorIndex], keys: Sequence[str] | None = None) -> VectorIndex:
        """Likewise an index, under these keys: those of a large catalogue are in memory already, and are not kept."""

        def save(made: VectorIndex, place: Path) -> None:
            made.keyed(None).save(place, "index")

        return self.get(name, make, save, lambda place: VectorIndex.load(place, "index").keyed(keys))

    def some(self, names: Collection[str]) -> Built:
        """In memory, what is held here under these names: for another past that has it in common with this one."""
        found = Built()
        found._held = {name: held for name, held in self._held.items() if name in names}
        return found

    def has(self, name: str) -> bool:
        """Whether there is something of this name."""
        return name in self._held or (self.folder is not None and (self.folder / name).exists())

    def get(self, name: str, make: Callable[[], T], save: Callable[[T, Path], None], load: Callable[[Path], T]) -> T:
        """Likewise anything: `save` writes its files into a folder that is there, `load` reads them. OSError,
        ValueError, EOFError, KeyError or StoreError of `load` mean that they are damaged."""
        if name not in self._held:
            if self.folder is None:
                self._held[name] = make()
            else:
                self._held[name] = self._loaded(self.folder / name, make, save, load)
        found: T = self._held[name]
        return found

    def _loaded(
        self, place: Path, make: Callable[[], T], save: Callable[[T, Path], None], load: Callable[[Path], T]
    ) -> T:
        if place.exists():
            try:
                if why := checksums.problem(place):
                    raise StoreError(why)
                return load(place)
            except (OSError, ValueError, EOFError, KeyError, StoreError) as error:  # cut off or overwritten
                self.damaged.append(place.name)
                _log.warning("%s is damaged (%s) and is made again; that takes its time once.", place, error)
                shutil.rmtree(place, ignore_errors=True)
        _write(place, make(), save)
        return load(place)


def beside(store: Store, *fitted: str, note: Callable[[str], None] = lambda _: None) -> Built:
    """What was built of a store's newest revision and of what was `fitted` (names, facts), in the folder NAME.index
    beside the store; what lies there of other revisions goes. In memory where nothing can be written there."""
    key = hashlib.sha256(repr((_FORM, fitted)).encode()).hexdigest()[:12]
    root = store.path.with_name(store.path.name + INDEX_FOLDER)
    folder = root / f"{store.revision()}-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Built()
    for stale in root.iterdir():
        if stale != folder:
            note(f"{stale} is of another revision or of other parts, and goes")
            shutil.rmtree(stale, ignore_errors=True)  # who has it open keeps it
    return Built(folder)


def _write(place: Path, made: T, save: Callable[[T, Path], None]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        save(made, beside)
        checksums.write(beside)
        os.replace(beside, place)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if not place.exists():  # else another process was first, with the same
            raise


def _read_ahead(folder: Path) -> None:
    block = bytearray(1 << 22)
    try:
        files = [file for file in folder.rglob("*") if file.is_file()]
        if sum(file.stat().st_size for file in files) > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
            return
        for file in files:  # by reading: of what is only advised (POSIX_FADV_WILLNEED) a part is read
            with file.open("rb", buffering=0) as opened:
                while opened.readinto(block):
                    pass
    except OSError as error:  # another process put something else there; what is mapped is read as it is needed
        _log.info("%s was not read ahead: %s", folder, error)


def _array(place: Path) -> Array:
    return np.asarray(np.load(place / "array.npy", mmap_mode="r"))


def _save_sparse(table: sp.csr_matrix, place: Path) -> None:
    for part in _PARTS:
        np.save(place / f"{part}.npy", getattr(table, part))
    np.save(place / "shape.npy", np.array(table.shape))


def _sparse(place: Path) -> sp.csr_matrix:
    data, indices, indptr = (np.asarray(np.load(place / f"{part}.npy", mmap_mode="r")) for part in _PARTS)
    return sp.csr_matrix((data, indices, indptr), shape=tuple(np.load(place / "shape.npy")), copy=False)
