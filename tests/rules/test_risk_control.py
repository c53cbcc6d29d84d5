"""Risk control: bounds, choices, losses, and their promises over many calibrations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules import risk_control

LOSSES = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


@pytest.fixture(scope="module")
def cached():
    """Cached losses [600 queries, 30 settings]: self-nDCG regret of margins on a noisy probe.

    Scores of a full model, a probe that follows them at correlation .9, and what each margin
    around the probe's tenth best loses of the full model's nDCG@10.
    """
    random = np.random.default_rng(11)
    margins = np.linspace(3.0, 0.0, 30)
    losses = np.zeros((600, len(margins)))
    for row in losses:
        scores = random.normal(size=100) + 3.0 * (random.random(100) < 0.05)
        probe = scores + 0.5 * random.normal(size=100)
        gains = 1.0 / (1.0 + np.exp(-2.0 * (scores - 2.0)))
        bar = np.sort(probe)[-10]
        for column, margin in enumerate(margins):
            kept = probe >= bar - margin
            order = np.lexsort((-np.where(kept, scores, probe), ~kept))
            row[column] = risk_control.regret(order.tolist(), gains, 10)
    return losses


def splits(losses, times=100, calibrate=300):
    """Give random halves of the queries to calibrate on and to test on."""
    random = np.random.default_rng(12)
    for _ in range(times):
        order = random.permutation(len(losses))
        yield losses[order[:calibrate]], losses[order[calibrate:]]


@pytest.mark.parametrize("method", ["ucb", "ltt"])
def test_the_realised_risk_keeps_its_promise_in_nine_of_ten_calibrations(cached, method):
    """Over 100 random splits the held-out loss is within alpha in at least 90."""
    alpha, held, bold = 0.02, 0, 0
    for calibration, test in splits(cached):
        choice = risk_control.choose(calibration, alpha, method=method, delta=0.1)
        assert choice.place is not None
        bold += choice.place > 0
        held += test[:, choice.place].mean() <= alpha
    assert held >= 90
    assert bold >= 90


def test_the_mean_risk_of_conformal_control_is_within_alpha(cached):
    """Over 100 random splits the held-out loss averages to at most alpha."""
    alpha = 0.02
    realised = []
    for calibration, test in splits(cached):
        choice = risk_control.choose(calibration, alpha, method="crc")
        realised.append(test[:, choice.place].mean())
    assert np.mean(realised) <= alpha
    assert np.mean(realised) > alpha / 3


def test_an_unreachable_promise_says_what_could_be_promised():
    """Too few queries or too much loss: no setting, and the least bound instead."""
    choice = risk_control.choose(np.zeros((20, 3)), 0.01, method="crc")
    assert choice.place is None
    assert choice.bound == pytest.approx(1 / 21)
    assert choice.queries == 20


def test_a_bold_setting_behind_a_bad_one_is_not_taken():
    """Settings are walked from the careful end; the first that fails ends the walk."""
    losses = np.tile([0.0, 0.5, 0.0], (500, 1))
    for method in ("crc", "ucb", "ltt"):
        assert risk_control.choose(losses, 0.05, method=method).place == 0


@given(LOSSES, st.floats(0.01, 0.5))
def test_bounds_are_above_the_mean_and_at_most_one(losses, delta):
    """Every bound lies between the mean loss and 1."""
    assert losses.mean() - 1e-9 <= risk_control.crc_bound(losses) <= 1.0 + 1e-12
    assert losses.mean() - 0.5 <= risk_control.ucb_bound(losses, delta) <= 1.0


@given(st.floats(0.0, 1.0), st.integers(1, 400), st.floats(0.01, 0.9))
def test_p_values_are_probabilities(loss, n, alpha):
    """A p-value lies in [0, 1], and is no evidence where the loss is above alpha."""
    p = risk_control.hb_p_value(loss, n, alpha)
    assert 0.0 <= p <= 1.0
    if loss > alpha:
        assert p > 0.3


def test_the_binomial_tail_matches_a_count():
    """P(Binomial(3, 1/2) <= 1) is 1/2."""
    assert risk_control._binomial_cdf(1, 3, 0.5) == pytest.approx(0.5)


@given(st.permutations(range(12)), st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_regret_lies_in_the_unit_interval(order, gains):
    """No order beats the best one, none loses more than everything."""
    values = np.array(gains)
    assert 0.0 <= risk_control.regret(order, values, 5) <= 1.0
    best = np.argsort(-values, kind="stable").tolist()
    assert risk_control.regret(best, values, 5) == pytest.approx(0.0, abs=1e-12)


def test_regret_without_any_gain_is_zero():
    """Where nothing is relevant, no order loses anything."""
    assert risk_control.regret([1, 0], np.zeros(2), 10) == 0.0
