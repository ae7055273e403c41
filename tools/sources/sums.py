"""Sums of sparse tables' rows, and tables cut to what matters, at a cost that does not grow with their columns."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

LARGE = 200_000  # items from which on tables are cut
Rows = NDArray[Any]  # of whole numbers
Scores = NDArray[np.float32]
Line = tuple[Rows, Scores]  # some rows, or columns, none twice, and a number of each

_scratch = threading.local()


def weighted(line: Line, table: sp.csr_matrix, most: NDArray[np.int64] | None = None) -> Line:
    """The rows of a table that a line names, times its numbers, added up: the columns with a sum above 0. There are no
    negative numbers. Of each row `most` says how many numbers are read, the first; None: all."""
    rows, weights = line
    first = table.indptr[rows].astype(np.int64)
    last = table.indptr[rows + 1].astype(np.int64) if most is None else first + most
    parts = list(zip(first.tolist(), last.tolist(), strict=True))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    columns = np.concatenate([table.indices[begin:end] for begin, end in parts])
    values = np.concatenate([table.data[begin:end] for begin, end in parts])
    return added(columns, values * np.repeat(weights, last - first), table.shape[1])


def added(rows: Rows, values: Scores, n: int) -> Line:
    """Values float32 of rows, of which some come several times, added up by row; those above 0. `n` is more than the
    highest row."""
    total, number = _zeros(n), np.arange(len(rows), dtype=np.float32)
    np.add.at(total, rows, values)
    sums = total[rows]
    total[rows[::-1]] = number[::-1]  # of the places of a row the first stays
    once = (total[rows] == number) & (sums > 0)
    total[rows] = 0.0
    # The last that came stands first, as in scipy's products: sums of sums stay the same to the last bit.
    return rows[once][::-1], sums[once][::-1]


def looked_up(line: Line, rows: Rows, n: int) -> Scores:
    """float32, as many as `rows`: the line's numbers of these, 0 for others; `n` is more than the highest."""
    known, scores = line
    total = _zeros(n)
    total[known] = scores
    found = total[rows]
    total[known] = 0.0
    return found


def _zeros(size: int) -> Scores:
    """A thread's array of zeros, which whoever takes it leaves as such: making one costs what it is long."""
    if not hasattr(_scratch, "arrays"):
        _scratch.arrays = {}
    if size not in _scratch.arrays:
        _scratch.arrays[size] = np.zeros(size, np.float32)
    found: Scores = _scratch.arrays[size]
    return found


def strongest(table: sp.csr_matrix, keep: int) -> sp.csr_matrix:
    """The same with the `keep` largest numbers of each row, equal ones by column."""
    long = np.flatnonzero(np.diff(table.indptr) > keep)
    if not len(long):
        return table
    kept = np.ones(table.nnz, np.bool_)
    for row in long:
        begin, end = table.indptr[row], table.indptr[row + 1]
        order = np.lexsort((table.indices[begin:end], -table.data[begin:end]))
        kept[begin + order[keep:]] = False
    starts = np.concatenate([[0], np.cumsum(np.minimum(np.diff(table.indptr), keep))])
    return sp.csr_matrix((table.data[kept], table.indices[kept], starts), shape=table.shape)
