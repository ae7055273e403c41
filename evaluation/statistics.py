"""How sure a comparison is: bootstrap intervals, a paired randomisation test, and Holm's correction for many
comparisons.

Values are one number a case and column, columns being metrics or systems over the same cases in the same order. What is
drawn is the user, with all their cases, because cases of one user resemble each other: taken for independent, 1,000
users with ten cases each would look like 10,000. Every function draws with its own seed, so equal values give equal
numbers, and columns of one call share their draws, so that differences between them are paired. Nothing here knows what
the values measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Clusters = NDArray[np.int64]

_PIECE = 2**21  # weights held at once: 16 MB
_SAME = 1e-9  # relative: two sums of the same numbers in another order count as equal


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its interval; all three are NaN without any case."""

    mean: float
    low: float
    high: float


def _by_cluster(values: Values, clusters: Clusters | None) -> tuple[Values, Values]:
    """float64[c, m] sums and float64[c] cases of each cluster, from float64[n, m] values."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values, but {len(clusters)} cluster numbers.")
    _, place = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(place).astype(np.float64)
    if len(sizes) == len(values):
        return values, np.ones(len(values))  # one case each: nothing to add up, and the order of the cases stays
    sums: Values = np.stack([np.bincount(place, column, len(sizes)) for column in values.T], axis=1).astype(np.float64)
    return sums, sizes


def resampled(values: ArrayLike, clusters: Clusters | None = None, *, resamples: int = 2000, seed: int = 7) -> Values:
    """float64[resamples, m]: the mean of each of m columns of values[n, m] (or [n]) in each resample of the clusters
    with replacement.

    `clusters` int64[n] says whose a case is; None: each its own. The means of all columns come from the same draws, so
    their differences are those of a paired bootstrap. ValueError for a value that is not a number or for no case at
    all.
    """
    table = _table(values)
    if not len(table):
        raise ValueError("There is no case to resample.")
    sums, sizes = _by_cluster(table, clusters)
    rng, count = np.random.default_rng(seed), len(sizes)
    found = np.empty((resamples, table.shape[1]))
    rows = max(1, _PIECE // count)
    for start in range(0, resamples, rows):
        here = min(rows, resamples - start)
        drawn = (
            rng.integers(0, count, (here, count), dtype=np.int32) + (np.arange(here, dtype=np.int32) * count)[:, None]
        )
        weights = np.bincount(drawn.ravel(), minlength=here * count).reshape(here, count).astype(np.float64)
        found[start : start + here] = (weights @ sums) / (weights @ sizes)[:, None]
    return found


def intervals(
    values: ArrayLike, clusters: Clusters | None = None, *, level: float = 0.95, resamples: int = 2000, seed: int = 7
) -> list[Interval]:
    """The mean of each column of values[n, m] (or [n]) with its percentile interval. For a paired difference of two
    systems give the differences of their values."""
    table = _table(values)
    if not len(table):
        return [Interval(float("nan"), float("nan"), float("nan"))] * table.shape[1]
    bounds = _bounds(resampled(table, clusters, resamples=resamples, seed=seed), level)
    return [
        Interval(float(mean), float(low), float(high))
        for mean, low, high in zip(table.mean(axis=0), *bounds, strict=True)
    ]


def _bounds(means: Values, level: float) -> tuple[Values, Values]:
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval is {level}; it must lie between 0 and 1.")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flips(
    differences: ArrayLike, clusters: Clusters | None = None, *, resamples: int = 10_000, seed: int = 7
) -> Values:
    """float64[m]: two-sided p-values of a paired randomisation test, that each column of differences[n, m] (or [n]) has
    mean 0.

    If two systems were the same, a user's differences could as well have the other sign. p is the share of random sign
    choices whose mean is at least as far from 0 as the one seen, which counts as one of them, so p is never 0: (hits +
    1) / (resamples + 1).
    """
    table = _table(differences)
    if not len(table):
        return np.full(table.shape[1], np.nan)
    sums, _ = _by_cluster(table, clusters)
    sums = sums[(sums != 0).any(axis=1)]  # a flipped 0 changes nothing, and most cases are missed by both
    seen = np.abs(sums.sum(axis=0))
    least = seen - _SAME * np.abs(sums).sum(axis=0)
    rng, count, hits = np.random.default_rng(seed), len(sums), np.zeros(table.shape[1], np.int64)
    rows = max(1, _PIECE // max(count, 1))
    for start in range(0, resamples, rows):
        here = min(rows, resamples - start)
        bits = np.unpackbits(
            np.frombuffer(rng.bytes(here * -(-count // 8)), np.uint8).reshape(here, -1), axis=1, count=count
        )
        # A sum with flipped signs is the whole sum less twice what was flipped.
        flipped = sums.sum(axis=0) - 2 * (bits.astype(np.float64) @ sums)
        hits += (np.abs(flipped) >= least).sum(axis=0)
    return np.asarray((hits + 1) / (resamples + 1), np.float64)


def holm(p_values: Sequence[float] | Values) -> Values:
    """float64[m]: p-values that keep the chance of any false alarm among m comparisons below the level they are read at
    (Holm 1979)."""
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    adjusted = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    found = np.empty(len(given))
    found[order] = np.minimum(adjusted, 1.0)
    return found


def _table(values: ArrayLike) -> Values:
    """float64[n, m] of [n, m] or [n]. ValueError for what is not a number."""
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if np.isnan(table).any():
        raise ValueError("A value is not a number.")
    return table
