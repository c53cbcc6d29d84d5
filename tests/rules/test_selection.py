"""Adaptive depth and cuts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules import selection
from rerank_plugins.rules.selection import Certain, GapCut, MassDepth, ProbabilityCut

NUMBERS = st.floats(-50, 50)
MAYBE = st.lists(st.one_of(st.none(), NUMBERS), max_size=40)
LIMITS = st.tuples(st.integers(1, 20), st.one_of(st.none(), st.integers(20, 60)))
DEPTHS = st.one_of(
    st.none(),
    st.integers(1, 60),
    st.builds(
        lambda mass, t, limits: MassDepth(mass, t, *limits),
        st.floats(0.01, 0.99),
        st.floats(0.05, 5),
        LIMITS,
    ),
)
CUTS = st.one_of(
    st.none(),
    st.integers(1, 60),
    st.builds(lambda t, limits: ProbabilityCut(t, *limits), st.floats(0, 1), LIMITS),
    st.builds(lambda limits, b: GapCut(*limits, buffer=b), LIMITS, st.integers(0, 5)),
)


@given(DEPTHS, MAYBE)
def test_a_depth_lies_within_its_limits(rule, priors):
    """Whatever the priors, ties and gaps included, the depth obeys min, max and the list."""
    chosen = selection.depth(rule, priors)
    assert 0 <= chosen <= len(priors)
    if isinstance(rule, MassDepth):
        assert chosen >= min(rule.min, len(priors))
        assert chosen <= (rule.max or len(priors))


@given(CUTS, MAYBE, st.booleans())
def test_a_cut_lies_within_its_limits(rule, scores, calibrated):
    """Whatever the scores, the cut obeys min, max and the list."""
    chances = [None if s is None or not calibrated else 1 / (1 + math.exp(-s)) for s in scores]
    count = selection.cut(rule, scores, chances)
    assert 0 <= count <= len(scores)
    if rule is not None and not isinstance(rule, int):
        assert count >= min(rule.min, len(scores))
        assert count <= (rule.max or len(scores))


@given(st.lists(NUMBERS, min_size=1, max_size=30), st.floats(0.1, 0.8), st.floats(0.01, 0.19))
def test_more_mass_never_scores_fewer(priors, mass, more):
    """The depth grows with the mass: conformal risk control relies on it."""
    assert selection.depth(MassDepth(mass), priors) <= selection.depth(
        MassDepth(mass + more), priors
    )


def test_a_missing_prior_scores_everything_up_to_max():
    """An adaptive depth that cannot judge scores all candidates, or its maximum."""
    assert selection.depth(MassDepth(0.5), [3.0, None, 1.0]) == 3
    assert selection.depth(MassDepth(0.5, max=2), [3.0, None, 1.0]) == 2


def test_equal_priors_hold_equal_mass():
    """Nine tenths of ten equal candidates are nine."""
    assert selection.depth(MassDepth(0.9), [1.0] * 10) == 9


def test_scoring_is_skipped_only_where_one_candidate_stands_out():
    """A lone high prior is certain; a flat list, an unknown prior or no rule is not."""
    lone = [40.0] + [1.0] * 9
    assert selection.certain(Certain(0.9, 0.3), lone)
    assert not selection.certain(Certain(0.9, 0.3), [1.0] * 10)
    assert not selection.certain(Certain(0.9, 0.3), [40.0, None])
    assert not selection.certain(None, lone)
    assert not selection.certain(Certain(0.9), [])


def test_a_probability_cut_may_return_nothing():
    """Below the threshold nothing is returned, unless min says so."""
    assert selection.cut(ProbabilityCut(0.5), [1.0, 0.0], [0.4, 0.2]) == 0
    assert selection.cut(ProbabilityCut(0.5, min=1), [1.0, 0.0], [0.4, 0.2]) == 1


def test_a_cut_without_what_it_reads_returns_its_max():
    """Uncalibrated or unscored hits leave the rule blind; only max holds then."""
    assert selection.cut(ProbabilityCut(0.5, max=2), [1.0, 0.5, 0.0], [None] * 3) == 2
    assert selection.cut(GapCut(), [None] * 3, [None] * 3) == 3


def test_unscored_hits_never_pass_an_adaptive_cut():
    """The head ends before the first hit without a score."""
    assert selection.cut(ProbabilityCut(0.1), [1.0, None, 0.9], [0.9, None, 0.8]) == 1


def test_the_gap_cut_returns_what_lies_before_the_drop():
    """The drop is looked for on probabilities, between min and max, and buffered."""
    chances = [0.95, 0.9, 0.85, 0.2, 0.1]
    scores = [5.0, 4.0, 3.9, -1.0, -9.0]
    assert selection.cut(GapCut(), scores, chances) == 3
    assert selection.cut(GapCut(buffer=1), scores, chances) == 4
    assert selection.cut(GapCut(), scores, [None] * 5) == 4
    assert selection.cut(GapCut(max=2), scores, chances) == 2


@pytest.mark.parametrize("rule", [None, 3])
def test_counts_and_none_are_rules_too(rule):
    """A number is that many; None is all."""
    assert selection.depth(rule, [None] * 5) == (rule or 5)
    assert selection.cut(rule, [None] * 5, [None] * 5) == (rule or 5)
