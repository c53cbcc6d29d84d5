"""What exits lose in service, and margins that follow it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.adaptive.exit_audit import ExitAudit, MarginFactor, realised_loss
from rerank_plugins.errors import ConfigError
from rerank_plugins.records import Hit, Result
from rerank_plugins.rules.calibration import Calibration


def audit(adjust="tighten", *, loss="regret", alpha=0.02):
    """Make an audit of every request."""
    return ExitAudit(1.0, alpha, 2, loss, Calibration(1.0, 0.0), adjust)


def full(scores):
    """Make the full model's result: scores of its hits, best first, by index."""
    order = tuple(sorted(scores, key=lambda index: -scores[index]))
    hits = tuple(Hit(index, scores[index]) for index in order)
    return Result(hits, order, request_id="r", model="m")


def test_the_full_order_loses_nothing_and_another_one_what_its_head_lacks():
    """Regret is that of calibration: gains are the full model's probabilities."""
    result = full({0: 3.0, 1: -1.0, 2: 0.5})
    assert realised_loss(audit(), (0, 2, 1), result) == 0.0
    assert (
        0.0 < realised_loss(audit(), (2, 0, 1), result) < realised_loss(audit(), (1, 2, 0), result)
    )
    assert realised_loss(audit(loss="top-k miss"), (0, 1, 2), result) == 0.5


@given(st.lists(st.floats(0.0, 1.0), max_size=200))
def test_tightened_margins_are_never_narrower_than_certified(losses):
    """Whatever is found, the factor stays between one and its bound."""
    factor = MarginFactor(audit())
    for loss in losses:
        factor.update(loss)
        assert 1.0 <= factor.value <= 8.0


def test_an_audit_that_only_measures_changes_nothing():
    """Switched off, adjusting leaves the margins as certified."""
    factor = MarginFactor(audit("off"))
    factor.update(0.5)
    assert factor.value == 1.0


@pytest.mark.parametrize("drift", [1.0, 3.0])
def test_the_mean_loss_does_not_exceed_alpha_where_margins_follow(drift):
    """Queries three times as hard as those of the calibration lose no more than was promised."""
    random = np.random.default_rng(3)
    factor, lost = MarginFactor(audit()), []
    for _ in range(4000):
        chance = min(1.0, 0.1 * drift * np.exp(-2.0 * (factor.value - 1.0)))
        lost.append(float(random.random() < chance) * 0.2)
        factor.update(lost[-1])
    assert np.mean(lost[500:]) <= 0.02 * 1.15


def test_an_audit_without_sense_is_refused():
    """A share of nothing, or a loss of everything, is no audit."""
    with pytest.raises(ConfigError, match="share in"):
        ExitAudit(0.0, 0.01, 10, "regret", Calibration(1.0, 0.0))
    with pytest.raises(ConfigError, match="loss in"):
        ExitAudit(0.5, 1.0, 10, "regret", Calibration(1.0, 0.0))
