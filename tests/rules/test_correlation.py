"""Rank correlation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules.correlation import spearman


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=30))
def test_it_knows_order_alone(values):
    """Any rising function of the values leaves the correlation at one, a falling one at -1."""
    values = np.array(values, dtype=np.float64)
    if np.unique(values).size > 1:
        assert spearman(values, np.exp(values)) == pytest.approx(1.0)
        assert spearman(values, -values) == pytest.approx(-1.0)


def test_ties_share_their_mean_rank():
    """Of ranks 1.5, 1.5 and 3 against 1, 2 and 3 the correlation is the root of 3/4."""
    tied = spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    assert tied == pytest.approx(np.sqrt(0.75))


def test_without_ranks_it_is_not_a_number():
    """Two points, or a constant, have no rank correlation."""
    assert np.isnan(spearman(np.ones(2), np.arange(2.0)))
    assert np.isnan(spearman(np.ones(9), np.arange(9.0)))
