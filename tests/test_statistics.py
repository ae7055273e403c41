"""Intervals and tests against values worked out by hand, against scipy, and against what they promise: coverage and
false alarms."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from scipy import stats

from recgraph.evaluation.statistics import Interval, holm, intervals, resampled, sign_flips


def interval(values: Any, clusters: Any = None, **asked: Any) -> Interval:
    """Of a single column."""
    [found] = intervals(values, clusters, **asked)
    return found


def sign_flip(differences: Any, clusters: Any = None, **asked: Any) -> float:
    """The p-value of a single column."""
    [p] = sign_flips(differences, clusters, **asked)
    return float(p)


def test_a_constant_has_an_interval_of_no_width() -> None:
    found = interval(np.full(50, 0.25))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_two_cases_give_three_means_with_known_chances() -> None:
    """Of 0 and 1 two draws have the mean 0, 1/2, 1/2 or 1, each a quarter."""
    means = resampled([0.0, 1.0], resamples=20_000)[:, 0]
    assert sorted(set(means.tolist())) == [0.0, 0.5, 1.0]
    assert [(means == mean).mean() for mean in (0.0, 0.5, 1.0)] == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.01)


@pytest.mark.slow
def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=300)
    found = interval(values, resamples=20_000)
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.005)


def test_columns_share_their_draws() -> None:
    """The interval of a difference of columns is that of their differences case by case: the bootstrap is paired."""
    rng = np.random.default_rng(3)
    one, users = rng.random(500), rng.integers(0, 90, 500)
    other = one - 0.01
    means = resampled(np.stack([one, other], axis=1), users)
    assert means[:, 0] - means[:, 1] == pytest.approx(0.01)
    assert means[:, :1] == pytest.approx(resampled(one, users))


def test_users_are_drawn_with_all_their_cases() -> None:
    """Two users, one with three cases of 1, one with one of 0: the mean is 1, 3/4 or 0, not 2/4."""
    means = resampled([1.0, 1.0, 1.0, 0.0], np.array([5, 5, 5, 9]), resamples=4000)[:, 0]
    assert sorted(set(means.tolist())) == [0.0, 0.75, 1.0]


def test_cases_of_one_user_that_repeat_each_other_make_the_interval_no_narrower() -> None:
    values = np.random.default_rng(4).random(100)
    alone = interval(values, resamples=4000)
    repeated = interval(np.repeat(values, 10), np.repeat(np.arange(100), 10), resamples=4000)
    taken_apart = interval(np.repeat(values, 10), resamples=4000)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert taken_apart.high - taken_apart.low < 0.5 * (alone.high - alone.low)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """400 samples of 200 users with one to four cases each."""
    rng, hits = np.random.default_rng(5), 0
    for trial in range(400):
        users = np.repeat(np.arange(200), rng.integers(1, 5, 200))
        # a user's own chance and luck: 0.4 / 2 in the mean
        values = rng.random(200)[users] < rng.random(len(users)) * 0.4
        found = interval(values, users, resamples=300, seed=trial)
        hits += found.low <= 0.2 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_the_seed_decides() -> None:
    values = np.random.default_rng(6).random(50)
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_the_randomisation_test_counts_sign_choices() -> None:
    """Of the 8 sign choices of 1, 2 and 3 two sum to 6 or -6."""
    assert sign_flip([1.0, 2.0, 3.0], resamples=40_000) == pytest.approx(2 / 8, abs=0.01)
    assert sign_flip([3.0, -1.0, -1.0], resamples=999) == 1.0  # the sums are 5, 3, 3, 1 and their opposites; 1 was seen


def test_a_user_flips_with_all_their_cases() -> None:
    """Four cases of two users who both gain: 2 of 4 sign choices are as far from 0; taken apart 2 of 16."""
    gains = np.array([0.5, 0.5, 0.5, 0.5])
    assert sign_flip(gains, np.array([1, 1, 2, 2]), resamples=40_000) == pytest.approx(2 / 4, abs=0.01)
    assert sign_flip(gains, resamples=40_000) == pytest.approx(2 / 16, abs=0.01)


def test_the_randomisation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(7)
    one, other = rng.random(12) + 0.15, rng.random(12)
    exact = stats.permutation_test(
        (one, other), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    by_hand = [
        abs(np.dot(signs, one - other)) >= abs((one - other).sum()) - 1e-12
        for signs in itertools.product((-1, 1), repeat=12)
    ]
    assert exact == pytest.approx(np.mean(by_hand))
    assert sign_flip(one - other, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_no_difference_has_p_one_and_a_clear_one_never_p_zero() -> None:
    assert sign_flip(np.zeros(20)) == 1.0
    assert sign_flip(np.ones(200), resamples=999) == 1 / 1000


def test_columns_are_tested_together() -> None:
    table = np.random.default_rng(8).normal(0.1, 1, (60, 3))
    together = sign_flips(table, resamples=5000)
    assert together == pytest.approx([sign_flip(column, resamples=5000) for column in table.T], abs=1e-12)


def test_false_alarms_are_as_frequent_as_the_level() -> None:
    table = np.random.default_rng(9).normal(size=(80, 500))
    assert 0.02 <= (sign_flips(table, resamples=999) <= 0.05).mean() <= 0.08


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03, 4 * 0.005])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_what_is_no_number_is_refused_and_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="not a number"):
        interval([0.5, float("nan")])
    with pytest.raises(ValueError, match="3 values, but 2 cluster numbers"):
        interval([1.0, 2.0, 3.0], np.array([1, 2]))
    assert np.isnan(interval([]).mean)
    assert np.isnan(sign_flip([]))


@pytest.mark.slow
def test_beauty_s_size_takes_less_than_two_seconds_of_processor_time() -> None:
    """22,363 cases and 2,000 resamples, of ten metrics at once."""
    values = np.random.default_rng(10).random((22_363, 10))
    before = time.process_time()
    assert len(intervals(values)) == 10
    assert time.process_time() - before < 2 * 2  # a busy machine counts double
