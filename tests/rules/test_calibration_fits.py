"""Probabilities fitted to labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules.calibration import (
    Calibration,
    apply,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)

FITS = (fit_platt, fit_temperature, fit_isotonic)


def drawn(truth: Calibration, pairs: int, *, seed: int = 0):
    """Draw scores, and labels that are relevant with the probability that `truth` says."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(0.0, 3.0, pairs)
    return scores, draw.random(pairs) < apply(truth, scores)


def test_platt_recovers_the_parameters_it_was_drawn_from():
    """From 20,000 pairs drawn with a = 0.8 and b = -1.5 both come back within .05."""
    found = fit_platt(*drawn(Calibration(0.8, -1.5), 20_000))
    assert found.a == pytest.approx(0.8, abs=0.05)
    assert found.b == pytest.approx(-1.5, abs=0.05)


def test_platt_does_not_mind_the_scale_of_the_scores():
    """Scores a million times as large give a millionth of the slope and the same probabilities."""
    scores, relevant = drawn(Calibration(0.8, -1.5), 500)
    small, large = fit_platt(scores, relevant), fit_platt(scores * 1e6 + 5e6, relevant)
    assert large.a * 1e6 == pytest.approx(small.a)
    np.testing.assert_allclose(apply(small, scores), apply(large, scores * 1e6 + 5e6), atol=1e-6)


def test_temperature_recovers_an_overconfident_logit():
    """Logits twice too large get a = 1/2, b stays 0."""
    scores, relevant = drawn(Calibration(0.5, 0.0), 20_000)
    found = fit_temperature(scores, relevant)
    assert found.a == pytest.approx(0.5, abs=0.03)
    assert found.b == 0.0


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_separable_scores_keep_finite_probabilities(fit):
    """Where every relevant pair scores higher, parameters stay finite and the order holds."""
    scores = np.arange(20.0)
    found = apply(fit(scores, scores >= 10), scores)
    assert np.isfinite(found).all()
    assert found[:10].max() < 0.5 < found[10:].min()


@pytest.mark.parametrize("fit", FITS)
def test_labels_of_one_kind_teach_nothing(fit):
    """All relevant, or none, is refused, and so is a label too few."""
    scores = np.arange(4.0)
    for labels in (np.ones(4, bool), np.zeros(4, bool), np.array([True, False])):
        with pytest.raises(ValueError, match="both relevant and other pairs"):
            fit(scores, labels)


PAIRS = st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({kind for _, kind in rows}) == 2
)


@given(PAIRS)
def test_isotonic_rises_and_keeps_the_mean(rows):
    """Levels never fall, lie in [0, 1], and average to the share of relevant pairs."""
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    relevant = np.array([kind for _, kind in rows])
    found = fit_isotonic(scores, relevant)
    assert (np.diff(found.probabilities) >= 0.0).all()
    assert ((found.probabilities >= 0.0) & (found.probabilities <= 1.0)).all()
    assert apply(found, scores).mean() == pytest.approx(relevant.mean())


@given(PAIRS)
def test_no_small_move_of_the_parameters_fits_better(rows):
    """The temperature found is a minimum of the cross-entropy."""
    scores = np.array([score for score, _ in rows], dtype=np.float64)
    relevant = np.array([kind for _, kind in rows])
    found = fit_temperature(scores, relevant)

    def loss(a: float) -> float:
        logits = a * scores
        return float((np.logaddexp(0.0, logits) - relevant * logits).sum())

    least = loss(found.a)
    for step in (-1e-3, 1e-3):
        assert least <= loss(found.a * (1.0 + step)) + 1e-6
