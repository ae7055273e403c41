"""Ranking metrics in closed form: Recall@k, NDCG@k and MRR of one right answer a case, in expectation over a random
order of ties.

A scorer that says the same of everything must not profit from where the target stands in the list (T's released code
puts it first, and a constant scorer gets Recall@3 = 1). So a target that `better` candidates beat and `equal` others
tie with has rank better + 1 … better + 1 + equal with equal probability, and each metric is its mean over these ranks.
Nothing here knows models, shops or files.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Counts = NDArray[np.int64]
Values = NDArray[np.float64]

MISS = np.int64(2**40)  # `better` of a target that was not ranked at all: no k reaches it


@dataclass(frozen=True)
class Places:
    """Where the targets of n cases stand: how many candidates are `better`, how many others are `equal`; int64[n]
    each."""

    better: Counts
    equal: Counts

    def __len__(self) -> int:
        return len(self.better)

    def of(self, rows: NDArray[np.bool_] | Counts) -> Places:
        """Those of some cases."""
        return Places(self.better[rows], self.equal[rows])


def places(scores: NDArray[np.floating], target: Counts, allowed: NDArray[np.bool_] | None = None) -> Places:
    """From scores float[n, items], the higher the better, and the target's column int[n].

    `allowed` bool[n, items] (or [items]) are the candidates; a target that is none of them is a miss. Raises ValueError
    for a score that is not a number: it would beat nothing and be beaten by nothing.
    """
    if np.isnan(scores).any():
        raise ValueError("A score is not a number.")
    wanted = np.take_along_axis(scores, target[:, None], axis=1)
    above, same = scores > wanted, scores == wanted
    if allowed is not None:
        mask = np.broadcast_to(allowed, scores.shape)
        above, same = above & mask, same & mask
    better = above.sum(axis=1, dtype=np.int64)
    equal = same.sum(axis=1, dtype=np.int64) - 1
    if allowed is not None:
        missed = ~np.take_along_axis(mask, target[:, None], axis=1)[:, 0]
        better[missed], equal[missed] = MISS, 0
    return Places(better, equal)


def places_in_lists(lists: Sequence[Sequence[Hashable]], target: Sequence[Hashable]) -> Places:
    """From ranked lists without ties, best first; a target that is not in its list is a miss."""
    found = [
        list(ranked).index(wanted) if wanted in ranked else MISS for ranked, wanted in zip(lists, target, strict=True)
    ]
    return Places(np.array(found, np.int64), np.zeros(len(found), np.int64))


def _mean_over_ties(at: Places, k: int, gain: Values) -> Values:
    """float64[n]: the mean over the ranks of a target of gain[rank - 1], which is 0 after k."""
    total = np.concatenate([[0.0], np.cumsum(gain[:k])])
    first, end = np.minimum(at.better, k), np.minimum(at.better + at.equal + 1, k)
    return np.asarray((total[end] - total[first]) / (at.equal + 1), dtype=np.float64)


def recall(at: Places, k: int) -> Values:
    """Recall@k, float64[n]: the chance that the target is among the first k. With one right answer a case this is also
    the hit rate."""
    return _mean_over_ties(at, k, np.ones(k))


def ndcg(at: Places, k: int) -> Values:
    """NDCG@k, float64[n]: 1 / log2(rank + 1) within the first k, else 0; the best possible is 1."""
    return _mean_over_ties(at, k, np.asarray(1.0 / np.log2(np.arange(k) + 2.0), dtype=np.float64))


def mrr(at: Places, k: int = 100) -> Values:
    """Reciprocal rank, float64[n], 0 after k, so that systems that hand out a list compare with those that score
    everything."""
    return _mean_over_ties(at, k, np.asarray(1.0 / (np.arange(k) + 1.0), dtype=np.float64))


def summary(at: Places, ks: Sequence[int] = (10,)) -> dict[str, float]:
    """The means over all cases, rounded to 5 digits: recall@k and ndcg@k for each k, mrr. 0 without any case."""

    def mean(values: Values) -> float:
        return round(float(values.mean()), 5) if len(values) else 0.0

    found = {f"{name}@{k}": mean(metric(at, k)) for k in ks for name, metric in (("recall", recall), ("ndcg", ndcg))}
    return {**found, "mrr": mean(mrr(at))}


def auc(positive: Sequence[float] | Values, negative: Sequence[float] | Values) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN where either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = rankdata(
        np.concatenate([np.asarray(positive, float), np.asarray(negative, float)])
    )  # equal scores share their mean rank
    least = len(positive) * (len(positive) + 1) / 2
    return float((ranks[: len(positive)].sum() - least) / (len(positive) * len(negative)))
