"""Two-sample statistics and their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rerank_plugins.quality.drift import two_sample_tests

SAMPLES = arrays(
    np.float64, st.integers(8, 60), elements=st.floats(-1e6, 1e6, allow_nan=False, width=32)
)


@given(SAMPLES, SAMPLES)
def test_distances_are_bounded_and_zero_for_the_same_sample(left, right):
    """KS lies in [0, 1], PSI is not negative, and a sample is at no distance from itself."""
    inner = two_sample_tests.edges(left, right.size)
    assert 0.0 <= two_sample_tests.ks(left, right) <= 1.0
    assert two_sample_tests.psi(left, right, inner) >= 0.0
    assert two_sample_tests.ks(left, left) == 0.0
    assert two_sample_tests.psi(left, left, inner) == 0.0


@pytest.mark.parametrize(("n", "m"), [(100, 50), (200, 200), (1000, 100)])
def test_chance_passes_the_critical_values_as_often_as_they_say(n, m):
    """Without drift KS and PSI pass their 2 % limits in about 2 % of windows, at each size."""
    source = np.random.default_rng(n + m)
    passed = np.zeros(2)
    rounds = 1500
    for _ in range(rounds):
        old, new = source.normal(size=n), source.normal(size=m)
        inner = two_sample_tests.edges(old, m)
        passed += [
            two_sample_tests.ks(old, new) > two_sample_tests.ks_critical(0.02, n, m),
            two_sample_tests.psi(old, new, inner)
            > two_sample_tests.psi_critical(0.02, inner.size + 1, n, m),
        ]
    assert (passed / rounds < 0.033).all()
    assert (passed / rounds > 0.005).all()


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 9])
def test_the_chi_squared_law_matches_a_simulation(degrees):
    """The closed form agrees with sums of squared normal draws."""
    draws = (np.random.default_rng(degrees).normal(size=(40_000, degrees)) ** 2).sum(axis=1)
    for value in (0.5, 2.0, 5.0, 12.0):
        assert two_sample_tests.chi_squared_sf(value, degrees) == pytest.approx(
            (draws > value).mean(), abs=0.012
        )


def test_p_values_and_critical_values_are_each_others_inverse():
    """At the critical value the p-value is alpha."""
    for alpha in (0.05, 0.01, 0.001):
        d = two_sample_tests.ks_critical(alpha, 300, 100)
        assert two_sample_tests.ks_p(d, 300, 100) == pytest.approx(alpha, rel=0.02)
        index = two_sample_tests.psi_critical(alpha, 10, 300, 100)
        assert two_sample_tests.psi_p(index, 10, 300, 100) == pytest.approx(alpha, rel=1e-6)
