"""Intervals of paired differences."""

import numpy as np
import pytest

from rerank_plugins.evaluation.significance import Interval, bootstrap, holm, permutation


def test_the_same_seed_gives_the_same_interval():
    """Resampling is seeded."""
    values = [0.1, -0.2, 0.3, 0.05]
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_constant_differences_have_no_width():
    """Where every query gains the same, nothing is uncertain; nor where there is no query."""
    assert bootstrap([0.25] * 7) == Interval(0.25, 0.25, 0.25)
    assert bootstrap([]) == Interval(0.0, 0.0, 0.0)


def test_the_interval_agrees_with_the_normal_one_on_many_queries():
    """On 400 draws of N(0.1, 1) the ends are mean -+ 1.96 standard errors, within a tenth."""
    values = np.random.default_rng(0).normal(0.1, 1.0, 400)
    found = bootstrap(values.tolist())
    error = 1.96 * values.std() / 20.0
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=error / 10)
    assert found.high == pytest.approx(values.mean() + error, abs=error / 10)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 200 intervals at 95 % on 50 queries each, 180 to 199 hold the true mean."""
    draw = np.random.default_rng(1)
    found = [bootstrap(draw.normal(0.0, 1.0, 50).tolist(), resamples=500) for _ in range(200)]
    assert 180 <= sum(one.low <= 0.0 <= one.high for one in found) <= 199


def test_the_permutation_test_agrees_with_all_sign_flips():
    """With five queries that all gain, 2 of 32 sign patterns reach the sum: p is 1/16."""
    found = permutation([0.1, 0.2, 0.3, 0.4, 0.5], rounds=20_000)
    assert found == pytest.approx(1 / 16, abs=0.005)


def test_under_no_difference_p_values_are_uniform():
    """Of 200 tests on symmetric noise, 2 to 20 fall below .05."""
    draw = np.random.default_rng(2)
    found = [permutation(draw.normal(0.0, 1.0, 30).tolist(), rounds=500) for _ in range(200)]
    assert 2 <= sum(p < 0.05 for p in found) <= 20


def test_holm_keeps_the_order_and_never_lowers_a_p_value():
    """Adjusted values are at least the raw ones, at most 1, and as ordered."""
    raw = [0.2, 0.001, 0.04, 0.9, 0.04]
    adjusted = holm(raw)
    assert all(after >= before for before, after in zip(raw, adjusted, strict=True))
    assert adjusted == pytest.approx([0.4, 0.005, 0.16, 0.9, 0.16])
    assert holm([]) == []
