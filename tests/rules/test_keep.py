"""Keep rules between stages."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules import keep
from rerank_plugins.rules.keep import (
    MarginKeep,
    ProbabilityKeep,
    ShareKeep,
)

SCORES = st.lists(st.floats(-20, 20), max_size=40)
CHANCE = st.floats(0, 1)
RULES = st.one_of(
    st.none(),
    st.integers(1, 50),
    st.builds(ShareKeep, CHANCE),
    st.builds(MarginKeep, st.floats(0, 40), st.integers(1, 12)),
    st.builds(ProbabilityKeep, CHANCE, st.integers(0, 5), st.integers(5, 50)),
)


@given(RULES, SCORES)
def test_survivors_are_the_best(rule, scores):
    """Who goes on is sorted, distinct, and beats everybody who is dropped."""
    chances = (1.0 / (1.0 + np.exp(-np.array(scores)))).tolist()
    kept = keep.apply(rule, scores, chances)
    assert len(set(kept)) == len(kept)
    values = [scores[i] for i in kept]
    assert values == sorted(values, reverse=True)
    dropped = [scores[i] for i in range(len(scores)) if i not in set(kept)]
    if values and dropped:
        assert min(values) >= max(dropped)


@given(RULES, SCORES)
def test_the_limits_of_a_rule_bound_its_survivors(rule, scores):
    """Min and max hold, as far as there are candidates."""
    kept = keep.apply(rule, scores, [0.5] * len(scores))
    if rule is None or isinstance(rule, int):
        assert len(kept) == min(rule or len(scores), len(scores))
        return
    assert len(kept) >= min(rule.min, len(scores))
    assert rule.max is None or len(kept) <= rule.max


@given(SCORES, st.integers(1, 12), st.floats(0, 10), st.floats(0, 10))
def test_a_wider_margin_never_drops_more(scores, top_k, margin, more):
    """Survivors grow with the margin: risk control relies on it."""
    few = keep.apply(MarginKeep(margin, top_k), scores, None)
    many = keep.apply(MarginKeep(margin + more, top_k), scores, None)
    assert set(few) <= set(many)


def test_a_margin_keeps_the_head_whole():
    """The top_k themselves always go on, ties with the last of them included."""
    assert keep.apply(MarginKeep(0.0, top_k=2), [1.0, 3.0, 2.0, 2.0], None) == (1, 2, 3)


def test_ties_keep_first_stage_order():
    """Equal scores are cut in the given order."""
    assert keep.apply(2, [1.0, 1.0, 1.0], None) == (0, 1)


def test_without_probabilities_nobody_is_dropped():
    """A rule that cannot judge keeps all."""
    assert keep.apply(ProbabilityKeep(0.9), [1.0, 2.0], None) == (1, 0)


def test_a_share_is_rounded_up():
    """Half of three candidates are two."""
    assert keep.apply(ShareKeep(0.5), [1.0, 3.0, 2.0], None) == (1, 2)


def test_limits_bound_the_survivors():
    """Min and max hold whatever the rule wants."""
    chances = [0.1, 0.2, 0.3]
    assert len(keep.apply(ProbabilityKeep(0.9, min=2), [1.0, 2.0, 3.0], chances)) == 2
    assert len(keep.apply(ProbabilityKeep(0.0, max=1), [1.0, 2.0, 3.0], chances)) == 1
