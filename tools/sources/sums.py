"""Sums of sparse tables' rows, and tables cut to what matters, at a cost that does not grow with their columns."""

from __future__ import annotations

import threading

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

_FEW_COLUMNS = 100_000  # below, scipy's product, which clears a cell a column, is faster
LARGE = 200_000  # items from which on tables are cut

_scratch = threading.local()


def weighted(weights: sp.csr_matrix, table: sp.csr_matrix, most: NDArray[np.int64] | None = None) -> sp.csr_matrix:
    """weights @ table, csr float32[n, columns], of tables without negative numbers. For each number of `weights`,
    `most` says how many of its row's are read, the first; None: all."""
    if most is None and table.shape[1] < _FEW_COLUMNS:
        return weights @ table
    first = table.indptr[weights.indices].astype(np.int64)
    last = table.indptr[weights.indices + 1] if most is None else first + most
    lines = [
        _sum_of_rows(first[begin:end], last[begin:end], weights.data[begin:end], table)
        for begin, end in zip(weights.indptr[:-1], weights.indptr[1:], strict=True)
    ]
    starts = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in lines])]).astype(np.int64)
    columns = np.concatenate([columns for columns, _ in lines]) if lines else np.zeros(0, np.int32)
    values = np.concatenate([value for _, value in lines]) if lines else np.zeros(0, np.float32)
    return sp.csr_matrix((values, columns, starts), shape=(weights.shape[0], table.shape[1]))


def _sum_of_rows(
    first: NDArray[np.int64], last: NDArray[np.int64], weights: NDArray[np.float32], table: sp.csr_matrix
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The columns in which some row, from `first` to `last`, has a number, and the weighted sums there."""
    total, touched = _zeros(table.shape[1]), [np.zeros(0, table.indices.dtype)]
    try:
        for begin, end, weight in zip(first, last, weights, strict=True):
            columns = table.indices[begin:end]
            before = total[columns]
            touched.append(columns[before == 0])
            total[columns] = before + weight * table.data[begin:end]
        columns = np.concatenate(touched)
        values = total[columns]
        return columns[values > 0], values[values > 0]
    finally:
        for columns in touched:
            total[columns] = 0.0


def _zeros(size: int) -> NDArray[np.float32]:
    """A thread's array of zeros, which whoever takes it leaves as such: making one costs what it is long."""
    if not hasattr(_scratch, "arrays"):
        _scratch.arrays = {}
    if size not in _scratch.arrays:
        _scratch.arrays[size] = np.zeros(size, np.float32)
    found: NDArray[np.float32] = _scratch.arrays[size]
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
