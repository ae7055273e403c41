"""The rows that adapters learn from, and the file that holds them: stage.py writes it, train/lora reads it.

A row's text begins as the row's before it, mostly for thousands of characters; the file says for how many, and holds
only the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recgraph.store.parquet import read_table, write_table
from recgraph.train.pipeline import needed

_TEXTS = ("system", "user")


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and its answer. Rows of one `group` share a case; `kind` says where the item or the summary comes
    from."""

    part: str
    user_id: str
    seq: int
    group: int
    item_id: str
    system: str
    user: str
    answer: str
    kind: str

    @property
    def judged(self) -> bool:
        """Whether it is of task FIT."""
        return self.answer in ("Yes", "No")


Columns = dict[str, list[Any]]


def columns_of(rows: Sequence[Row]) -> Columns:
    """The rows as the file holds them; the first one's texts are whole, so that several can be put in a line."""
    found: Columns = {name: [getattr(row, name) for row in rows] for name in Row.__slots__}
    for name in _TEXTS:
        begun = [_shared(before, text) for before, text in zip(["", *found[name]], found[name], strict=False)]
        found[name] = [text[count:] for count, text in zip(begun, found[name], strict=True)]
        found[f"{name}_begun"] = begun
    return found


def write_columns(path: Path, parts: Sequence[Columns]) -> None:
    """Writes what `columns_of` gave, one after the other."""
    names = (*Row.__slots__, *(f"{name}_begun" for name in _TEXTS))
    columns: dict[str, Any] = {name: [value for part in parts for value in part[name]] for name in names}
    for name in ("seq", "group", *(f"{name}_begun" for name in _TEXTS)):
        columns[name] = np.array(columns[name], np.int32)
    write_table(path, columns)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows in their order, one Parquet column a field."""
    write_columns(path, [columns_of(rows)])


def read_rows(file: Path, part: str) -> dict[int, list[Row]]:
    """The rows of one part of an examples file, by group, in the file's order."""
    groups: dict[int, list[Row]] = {}
    for row in _read(file):
        if row.part == part:
            groups.setdefault(row.group, []).append(row)
    return groups


def _read(file: Path) -> Iterator[Row]:
    columns = read_table(needed(file, "examples"))
    plain = {name: one.tolist() if isinstance(one, np.ndarray) else one for name, one in columns.items()}
    whole = dict.fromkeys(_TEXTS, "")
    for number in range(len(plain["part"])):
        values = {name: plain[name][number] for name in Row.__slots__}
        for name in _TEXTS:
            text = whole[name][: plain[f"{name}_begun"][number]] + values[name]
            # equal texts are one: the system text is that of all rows
            whole[name] = values[name] = whole[name] if text == whole[name] else text
        yield Row(**values)


def _shared(before: str, text: str) -> int:
    most = min(len(before), len(text))
    return bisect_left(range(most), True, key=lambda place: before[: place + 1] != text[: place + 1])
