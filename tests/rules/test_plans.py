"""Cost models, meters and plans."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules import cost_model, plans
from rerank_plugins.rules.cost_model import CostModel, Meter
from rerank_plugins.rules.plans import Plan

SIZES = [(n, length) for length in (16, 64, 128, 256) for n in (1, max(1, 512 // length))]
PART = st.floats(0.0, 1.0)


@given(st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-4), st.floats(0.0, 1e-7))
def test_a_fit_finds_the_model_that_made_the_times(fixed, token, square):
    """Times without noise give their own model back, within 1 %."""
    true = CostModel(fixed, token, square)
    fitted = cost_model.fit(SIZES, [true.seconds(*size) for size in SIZES])
    for size in (*SIZES, (3, 100)):
        assert fitted.seconds(*size) == pytest.approx(true.seconds(*size), rel=0.01)


@given(st.lists(st.floats(1e-4, 1.0), min_size=len(SIZES), max_size=len(SIZES)))
def test_no_coefficient_is_negative(times):
    """Whatever the noise, more work never costs less."""
    model = cost_model.fit(SIZES, times)
    assert min(model.fixed_s, model.per_token_s, model.per_square_s) >= 0.0


def test_a_meter_follows_a_machine_that_slows_down():
    """After the machine becomes 1.5 times slower, predictions are within 10 % again."""
    meter = Meter()
    true = CostModel(1e-3, 2e-5, 0.0)
    meter.calibrate(SIZES, [true.seconds(*size) for size in SIZES])
    for _ in range(60):
        for size in SIZES:
            meter.observe(*size, 1.5 * true.seconds(*size))
    for size in SIZES:
        assert meter.seconds(*size) == pytest.approx(1.5 * true.seconds(*size), rel=0.1)


def test_what_is_never_tried_is_learnt_anew():
    """After a stall refusals lead back to the fitted model, and no further than a batch that fits.

    Where even the fitted model says that there is no time, nothing is doubted.
    """
    meter = Meter()
    meter.calibrate([(1, 100), (2, 100)], [0.01, 0.02])
    for _ in range(64):
        meter.observe(1, 100, 0.2)
    stalled = meter.seconds(1, 100, sure=True)
    assert stalled > 0.1
    meter.doubt(1, 100, 0.009)
    assert meter.seconds(1, 100, sure=True) == stalled
    refused = 0
    while meter.seconds(1, 100, sure=True) > 0.02:
        meter.doubt(1, 100, 0.02)
        refused += 1
    assert 1 < refused < 60


def test_a_sure_prediction_covers_the_noise():
    """With noise of 20 %, at least 93 of 100 batches end within the sure prediction."""
    random = np.random.default_rng(2)
    meter = Meter()
    true = CostModel(1e-3, 2e-5, 0.0)
    meter.calibrate(SIZES, [true.seconds(*size) for size in SIZES])
    times = [true.seconds(4, 64) * noise for noise in random.lognormal(0.0, 0.2, 600)]
    for taken in times[:300]:
        meter.observe(4, 64, taken)
    bound = meter.seconds(4, 64, sure=True)
    assert np.mean(np.array(times[300:]) <= bound) >= 0.9
    assert bound < 2.0 * true.seconds(4, 64)


def test_an_unknown_meter_predicts_nothing_and_learns_from_one_batch():
    """Before anything ran a batch costs 0; after the first it costs what that one did per token."""
    meter = Meter()
    assert not meter.ready
    assert meter.seconds(4, 64) == 0.0
    meter.observe(4, 64, 0.256)
    assert meter.seconds(2, 64) == pytest.approx(0.128)


def test_a_batch_holds_what_ends_in_time_and_one_pair_at_least():
    """`affordable_tokens` grows with the time; it never falls below one pair."""
    meter = Meter()
    meter.calibrate(SIZES, [1e-3 + 1e-5 * n * length for n, length in SIZES])
    assert meter.affordable_tokens(1e-6, 100) == 100
    tokens = meter.affordable_tokens(0.011, 100)
    assert meter.seconds(tokens // 100, 100) <= 0.011 < meter.seconds(tokens // 100 + 1, 100)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=3))
def test_plans_are_a_front(costs):
    """Plans come best first, each cheaper than the one before, later stages never deeper."""
    front = plans.plans(costs)
    assert 1 <= len(front) <= 30
    work = [plans.seconds(plan, costs, 1000) for plan in front]
    assert work == sorted(work, reverse=True)
    assert [plan.quality for plan in front] == sorted((p.quality for p in front), reverse=True)
    for plan in front:
        assert list(plan.counts) == sorted(plan.counts, reverse=True)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=3), st.integers(1, 300), PART, PART)
def test_more_time_never_buys_a_worse_plan(costs, candidates, one, other):
    """The chosen plan fits, and gets no worse with more time."""
    front = plans.plans(costs)
    whole = plans.seconds(front[0], costs, candidates)
    less, more = sorted((one * whole, other * whole))
    few, many = (plans.afford(front, {None: costs}, candidates, time) for time in (less, more))
    if few is not None:
        assert many is not None
        assert few[1] <= less
        assert many[0].quality >= few[0].quality


def test_nothing_is_planned_where_nothing_fits():
    """None tells the caller to try, pair by pair, what the deadline admits."""
    assert plans.afford(plans.plans([1.0]), {None: [1.0]}, 10, 0.5) is None


def test_keep_rules_make_plans_cheaper():
    """A stage after keep = 10 scores at most ten."""
    plan = Plan((100, 100), 1.0)
    assert plans.seconds(plan, [1.0, 2.0], 50) == 150.0
    assert plans.seconds(plan, [1.0, 2.0], 50, [None, 10]) == 70.0


def test_measured_plans_keep_the_front_of_what_was_measured():
    """A plan that costs more and gives less than another one is left out."""
    results = {(10, 0): 0.8, (100, 0): 0.7, (100, 20): 0.95}
    front = plans.measured({None: results}, {None: [1.0, 3.0]})
    assert [plan.counts for plan in front] == [(100, 20), (10, 0)]


def test_plans_that_cut_pairs_are_on_the_front_where_they_pay():
    """Many candidates read in part may beat few read whole; a plan that only loses is left out."""
    results = {None: {(100,): 1.0, (30,): 0.8}, 64: {(100,): 0.9, (30,): 0.75}, 32: {(100,): 0.6}}
    costs = {None: [1.0], 64: [0.4], 32: [0.2]}
    front = plans.measured(results, costs)
    assert [(plan.counts, plan.short_tokens) for plan in front] == [
        ((100,), None),
        ((100,), 64),
        ((30,), None),
        ((30,), 64),
    ]
    chosen = plans.afford(front, costs, 100, 50.0)
    assert chosen is not None
    assert (chosen[0].short_tokens, chosen[1]) == (64, 40.0)
