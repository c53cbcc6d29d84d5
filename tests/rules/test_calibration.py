"""From scores to probabilities."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rerank_plugins.rules.calibration import Calibration, apply

SCORES = hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(-1e6, 1e6, width=32))
NUMBER = st.floats(-100, 100)


@given(SCORES, NUMBER, NUMBER)
def test_a_probability_is_one(scores, a, b):
    """Every probability is a finite number from 0 to 1, one for each score."""
    probabilities = apply(Calibration(a, b), scores)
    assert probabilities.shape == scores.shape
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0.0) & (probabilities <= 1.0)).all()


@given(SCORES, st.floats(0.001, 100), NUMBER)
def test_a_higher_score_is_never_less_probable(scores, a, b):
    """A positive slope keeps the order."""
    ordered = apply(Calibration(a, b), np.sort(scores))
    assert (np.diff(ordered) >= 0.0).all()


@given(st.floats(-30, 30, width=32), NUMBER)
def test_opposite_parameters_give_the_complement(score, b):
    """P(relevant) and P(irrelevant) add up to 1."""
    scores = np.array([score], dtype=np.float32)
    total = apply(Calibration(1.5, b), scores) + apply(Calibration(-1.5, -b), scores)
    np.testing.assert_allclose(total, [1.0], atol=1e-12)
