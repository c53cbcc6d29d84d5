"""The only sort: merging stages, fusing with the prior."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import load
from rerank_plugins.records import Code
from rerank_plugins.rules.fusion import fuse, merge, reciprocal_ranks

FINITE = st.floats(allow_nan=False, allow_infinity=False)
STANDING = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1.0, 0.0, 0.5, 2.0]) | FINITE))


@given(STANDING)
def test_the_order_is_a_permutation(standing):
    """Every candidate appears once."""
    order = merge([depth for depth, _ in standing], [key for _, key in standing])
    assert sorted(order) == list(range(len(standing)))


@given(STANDING)
def test_deeper_comes_first_then_the_higher_key_then_the_first_stage(standing):
    """Neighbours are ordered by depth, key and first-stage place, in this order."""
    depths, keys = [depth for depth, _ in standing], [key for _, key in standing]
    order = merge(depths, keys)
    for one, two in itertools.pairwise(order):
        if depths[one] != depths[two]:
            assert depths[one] > depths[two]
        elif depths[one] > 0 and keys[one] != keys[two]:
            assert keys[one] > keys[two]
        else:
            assert one < two


@given(st.integers(0, 30), FINITE)
def test_ties_keep_the_first_stage_order(count, key):
    """Equal keys change nothing."""
    assert merge([1] * count, [key] * count) == tuple(range(count))


@given(STANDING)
def test_the_unscored_stay_at_the_bottom_in_place(standing):
    """A candidate no stage scored keeps its place among its like, behind all scored ones."""
    keys = [None if depth == 0 else key for depth, key in standing]
    order = merge([depth for depth, _ in standing], keys)
    unscored = [i for i in order if keys[i] is None]
    assert unscored == sorted(unscored)
    assert list(order)[len(order) - len(unscored) :] == unscored


def test_a_tie_of_zeros_ignores_the_sign():
    """Minus zero is zero."""
    assert merge([1, 1], [-0.0, 0.0]) == (0, 1)


COLUMN = st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20)


@given(COLUMN, st.floats(0.0, 1.0))
def test_fused_values_are_finite(rows, weight):
    """Whatever the scales of score and prior, their fusion is a finite number."""
    scores, priors = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    assert np.isfinite(fuse(scores, priors, weight)).all()


@given(st.lists(st.tuples(st.integers(-999, 999), st.integers(-999, 999)), min_size=1))
def test_a_weight_at_either_end_gives_that_column_alone(rows):
    """Weight 0 orders by score, weight 1 by prior."""
    scores, priors = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    depths = [1] * len(rows)
    assert merge(depths, fuse(scores, priors, 0.0).tolist()) == merge(depths, scores.tolist())
    assert merge(depths, fuse(scores, priors, 1.0).tolist()) == merge(depths, priors.tolist())


@given(
    st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=2, unique=True),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_fusion_ignores_shift_and_scale(rows, weight):
    """A first stage that counts in other units changes nothing."""
    scores, priors = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    moved = fuse(scores * 8.0 + 16.0, priors * 0.5 - 4.0, weight)
    np.testing.assert_allclose(fuse(scores, priors, weight), moved, atol=1e-9)


def test_a_weight_out_of_range_is_refused():
    """The weight is a share."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        fuse(np.zeros(1), np.zeros(1), 1.5)


SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(SCORES)
def test_reciprocal_ranks_know_only_the_order(scores):
    """Any rising map of the scores leaves the keys alone: here to places, which round nothing."""
    values = np.array(scores)
    places = np.unique(values, return_inverse=True)[1].astype(np.float64)
    assert reciprocal_ranks(values).tolist() == reciprocal_ranks(places).tolist()


@given(st.integers(1, 30))
def test_witnesses_that_agree_keep_the_order(n):
    """Where the scores fall as the first stage has it, so do the fused keys."""
    keys = reciprocal_ranks(-np.arange(float(n)))
    assert (np.diff(keys) < 0.0).all()


def test_reciprocal_ranks_order_a_request_without_priors():
    """Ranks 3 and 1 lose to ranks 1 and 2 of the other; no prior is needed, and it is recorded."""
    reranker = load({"stages": [{"scorer": "lexical"}], "fusion": {"method": "reciprocal_ranks"}})
    passages = ["blue hen", "red fox, a fox", "red hen"]
    result = reranker.rerank("red fox", passages)
    assert result.order == (1, 0, 2)
    assert result[0].fused == pytest.approx(1 / 61 + 1 / 62)
    assert [one.count for one in result.decisions if one.code is Code.FUSED] == [3]
