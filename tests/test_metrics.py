"""Metrics against fractions worked out by hand, and what a constant scorer may not gain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recgraph.train.metrics import Places, auc, mrr, ndcg, places, places_in_lists, recall, summary


def at(better: int, equal: int = 0) -> Places:
    return Places(np.array([better]), np.array([equal]))


def test_a_target_at_rank_three_is_worth_these_fractions() -> None:
    third = at(2)
    assert recall(third, 2).tolist() == [0.0]
    assert recall(third, 3).tolist() == [1.0]
    assert ndcg(third, 3) == pytest.approx([1 / math.log2(4)])
    assert mrr(third) == pytest.approx([1 / 3])


def test_ties_share_the_ranks_they_span() -> None:
    """One better, two equal: rank 2, 3 or 4, a third each."""
    tied = at(1, 2)
    assert recall(tied, 3) == pytest.approx([2 / 3])
    assert ndcg(tied, 3) == pytest.approx([(1 / math.log2(3) + 1 / math.log2(4)) / 3])
    assert mrr(tied) == pytest.approx([(1 / 2 + 1 / 3 + 1 / 4) / 3])


def test_a_constant_scorer_gets_what_chance_gets_wherever_the_target_stands() -> None:
    scores = np.zeros((3, 20))
    found = places(scores, np.array([0, 7, 19]))
    assert recall(found, 3) == pytest.approx([3 / 20] * 3)
    assert mrr(found) == pytest.approx([sum(1 / rank for rank in range(1, 21)) / 20] * 3)


def test_only_allowed_candidates_count() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.7]])
    allowed = np.array([[False, True, True, True]])
    found = places(scores, np.array([2]), allowed)
    assert (found.better.tolist(), found.equal.tolist()) == ([1], [1])


def test_a_target_that_is_no_candidate_is_a_miss() -> None:
    found = places(np.array([[1.0, 0.0]]), np.array([0]), np.array([[False, True]]))
    assert recall(found, 2).tolist() == [0.0]
    assert mrr(found).tolist() == [0.0]
    assert ndcg(found, 1000).tolist() == [0.0]


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        places(np.array([[float("nan"), 0.0]]), np.array([1]))


def test_lists_give_the_rank_of_the_target_or_a_miss() -> None:
    found = places_in_lists([["a", "b"], ["b", "c"], []], ["b", "a", "a"])
    assert recall(found, 2).tolist() == [1.0, 0.0, 0.0]
    assert mrr(found).tolist() == [0.5, 0.0, 0.0]


def test_the_summary_is_the_mean_over_cases() -> None:
    found = Places(np.array([0, 9]), np.array([0, 0]))
    assert summary(found, (5, 10)) == {
        "recall@5": 1 / 2,
        "ndcg@5": 1 / 2,
        "recall@10": 1.0,
        "ndcg@10": round((1 + 1 / math.log2(11)) / 2, 5),
        "mrr": round((1 + 1 / 10) / 2, 5),
    }
    assert summary(found.of(np.array([False, False])))["mrr"] == 0.0


def test_a_large_random_table_agrees_with_sorting_it() -> None:
    rng = np.random.default_rng(0)
    scores = rng.permutation(200 * 50).reshape(200, 50).astype(float)
    target = rng.integers(0, 50, 200)
    ranks = [
        sorted(row, reverse=True).index(row[column])
        for row, column in zip(scores.tolist(), target.tolist(), strict=True)
    ]
    assert places(scores, target).better.tolist() == ranks


def test_auc_counts_pairs_and_a_tie_counts_half() -> None:
    assert auc([3.0, 1.0], [2.0, 1.0]) == (1 + 1 + 0 + 1 / 2) / 4
    assert auc([1.0, 1.0], [1.0]) == 1 / 2
    assert math.isnan(auc([], [1.0]))
