"""A catalogue in a folder, memory-mapped: a process that opens millions of products holds none of their texts, finds a
product's row without a dict of them all, and shares the pages with others. And columns of texts of which a few rows
were changed. That a folder belongs to one revision of one store is for its owner to see to.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from recgraph.store.columns import Catalogue

_COLUMNS = ("item_ids", "titles", "names", "parent_ids", "categories")
_ARRAYS = ("first_seen", "in_stock", "listed")
_BUCKETS = "buckets"  # of products by the checksum of their ids


class _Column(Sequence[str]):
    """A column of texts that are read one by one."""

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self.text(one) for one in range(*row.indices(len(self)))]
        place = row + len(self) if row < 0 else row
        if not 0 <= place < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.text(place)

    def __iter__(self) -> Iterator[str]:
        return map(self.text, range(len(self)))

    def text(self, row: int) -> str:
        raise NotImplementedError


class MappedTexts(_Column):
    """n texts in one buffer uint8, UTF-8; text i ends at `ends`[i]. `places` finds a text's row; without them, or for a
    text that is not there, it is None."""

    def __init__(
        self, data: NDArray[np.uint8], ends: NDArray[Any], places: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> None:
        self._data, self._ends, self._places = data.data, ends, places

    def __len__(self) -> int:
        return len(self._ends)

    def text(self, row: int) -> str:
        return str(self.bytes(row), "utf-8")

    def bytes(self, row: int) -> bytes:
        """The text as it lies there."""
        return bytes(self._data[int(self._ends[row - 1]) if row else 0 : int(self._ends[row])])

    def row(self, text: str) -> int | None:
        """The row of a text of a column whose texts do not repeat."""
        if self._places is None:
            return None
        key, (starts, rows) = text.encode("utf-8", "replace"), self._places
        bucket = zlib.crc32(key) % (len(starts) - 1)
        for row in rows[starts[bucket] : starts[bucket + 1]].tolist():
            if self.bytes(row) == key:
                return int(row)
        return None


class RowOf(Mapping[str, int]):
    """The rows of a column whose texts do not repeat, by text."""

    def __init__(self, texts: MappedTexts) -> None:
        self._texts = texts

    def __getitem__(self, text: str) -> int:
        row = self._texts.row(text)
        if row is None:
            raise KeyError(text)
        return row

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._texts.row(text) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class ChangedTexts(_Column):
    """A column with other texts in some rows and `more` rows, empty where nothing is said of them. Nothing is copied
    but what was changed before."""

    def __init__(self, old: Sequence[str], changed: Mapping[int, str], more: int) -> None:
        before: Mapping[int, str] = old._changed if isinstance(old, ChangedTexts) else {}
        self._old: Sequence[str] = old._old if isinstance(old, ChangedTexts) else old
        self._changed: dict[int, str] = {**before, **changed}
        self._size = len(old) + more

    def __len__(self) -> int:
        return self._size

    def text(self, row: int) -> str:
        if row in self._changed:
            return self._changed[row]
        return self._old[row] if row < len(self._old) else ""


def rows_by_id(catalogue: Catalogue) -> Mapping[str, int]:
    """The rows of a catalogue's products by their ids."""
    ids = catalogue.item_ids
    return RowOf(ids) if isinstance(ids, MappedTexts) else {item_id: row for row, item_id in enumerate(ids)}


def save_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Writes the files of a folder that exists: two arrays for a column of texts, one for each other column; names that
    are the titles only once."""
    for name in _COLUMNS:
        texts = getattr(catalogue, name)
        if name != "names" or texts != catalogue.titles:
            _save_texts(texts, folder, name)
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(catalogue, name))
    count = max(len(catalogue.item_ids), 1)
    checks = np.fromiter((zlib.crc32(one.encode("utf-8", "replace")) for one in catalogue.item_ids), np.uint32)
    order = np.argsort(checks % count, kind="stable")
    np.save(folder / f"{_BUCKETS}.rows.npy", order.astype(np.uint32))
    np.save(
        folder / f"{_BUCKETS}.starts.npy",
        np.searchsorted((checks % count)[order], np.arange(count + 1)).astype(np.uint32),
    )


def load_catalogue(folder: Path) -> Catalogue:
    """What `save_catalogue` wrote. OSError where a file is missing."""
    places = _mapped(folder / f"{_BUCKETS}.starts.npy"), _mapped(folder / f"{_BUCKETS}.rows.npy")
    texts: dict[str, MappedTexts] = {}
    for name in _COLUMNS:
        if name == "names" and not (folder / f"{name}.npy").exists():
            texts[name] = texts["titles"]
        else:
            data, ends = _mapped(folder / f"{name}.npy"), _mapped(folder / f"{name}.ends.npy")
            texts[name] = MappedTexts(data, ends, places if name == "item_ids" else None)
    first_seen, in_stock, listed = (_mapped(folder / f"{name}.npy") for name in _ARRAYS)
    return Catalogue(**texts, first_seen=first_seen, in_stock=in_stock, listed=listed)


def _save_texts(texts: Sequence[str], folder: Path, name: str) -> None:
    parts = [text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
    np.save(folder / f"{name}.npy", np.frombuffer(b"".join(parts), np.uint8))
    np.save(folder / f"{name}.ends.npy", ends.astype(np.uint32 if len(ends) and ends[-1] < 1 << 32 else np.int64))


def _mapped(path: Path) -> NDArray[Any]:
    """As a plain array: to cut a part out of a numpy.memmap takes microseconds."""
    return np.asarray(np.load(path, mmap_mode="r"))
