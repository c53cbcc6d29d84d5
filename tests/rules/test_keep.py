"""Keep rules between stages."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules import keep
from rerank_plugins.rules.keep import (
    AsymmetricKeep,
    MarginKeep,
    ProbabilityKeep,
    ScoreKeep,
    ShareKeep,
)

SCORES = st.lists(st.floats(-20, 20), max_size=40)
CHANCE = st.floats(0, 1)
RULES = st.one_of(
    st.none(),
    st.integers(1, 50),
    st.builds(ShareKeep, CHANCE),
    st.builds(ScoreKeep, st.floats(-20, 20)),
    st.builds(MarginKeep, st.floats(0, 40), st.integers(1, 12)),
    st.builds(ProbabilityKeep, CHANCE, st.integers(0, 5), st.integers(5, 50)),
    st.builds(AsymmetricKeep, CHANCE, CHANCE),
)


@given(RULES, SCORES)
def test_survivors_are_the_best_of_what_is_not_settled(rule, scores):
    """Who goes on is sorted, distinct, and beats everyone dropped; settled ones beat them all."""
    chances = (1.0 / (1.0 + np.exp(-np.array(scores)))).tolist()
    kept = keep.apply(rule, scores, chances)
    assert len({*kept.on, *kept.settled}) == len(kept.on) + len(kept.settled)
    values = [scores[i] for i in kept.on]
    assert values == sorted(values, reverse=True)
    dropped = [scores[i] for i in range(len(scores)) if i not in {*kept.on, *kept.settled}]
    if values and dropped:
        assert min(values) >= max(dropped)
    if kept.settled and values:
        assert min(scores[i] for i in kept.settled) >= max(values)


@given(SCORES, st.integers(1, 12), st.floats(0, 10), st.floats(0, 10))
def test_a_wider_margin_never_drops_more(scores, top_k, margin, more):
    """Survivors grow with the margin: risk control relies on it."""
    few = keep.apply(MarginKeep(margin, top_k), scores, None).on
    many = keep.apply(MarginKeep(margin + more, top_k), scores, None).on
    assert set(few) <= set(many)


def test_a_margin_keeps_the_head_whole():
    """The top_k themselves always go on, ties with the last of them included."""
    assert keep.apply(MarginKeep(0.0, top_k=2), [1.0, 3.0, 2.0, 2.0], None).on == (1, 2, 3)


def test_ties_keep_first_stage_order():
    """Equal scores are cut in the given order."""
    assert keep.apply(2, [1.0, 1.0, 1.0], None).on == (0, 1)


def test_without_probabilities_nobody_is_dropped():
    """A rule that cannot judge keeps all."""
    assert keep.apply(ProbabilityKeep(0.9), [1.0, 2.0], None).on == (1, 0)


def test_limits_bound_the_survivors():
    """Min and max hold whatever the rule wants."""
    assert len(keep.apply(ScoreKeep(9.0, min=2), [1.0, 2.0, 3.0], None).on) == 2
    assert len(keep.apply(ScoreKeep(0.0, max=1), [1.0, 2.0, 3.0], None).on) == 1
