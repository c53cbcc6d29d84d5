"""Windows of long candidates and the folding of their scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.passages import FOLDS, fold, windows

OVERLAP = st.floats(0.0, 0.95)


@given(st.integers(0, 5000), st.integers(1, 600), OVERLAP, st.integers(1, 12))
def test_windows_lie_inside_the_passage_and_move_on(length, size, overlap, limit):
    """Windows start at 0, never exceed their size, never leave the passage, and always advance."""
    spans = windows(length, size, overlap=overlap, limit=limit)
    assert 1 <= len(spans) <= limit
    assert spans[0][0] == 0
    assert all(0 <= stop - start <= size and stop <= length for start, stop in spans)
    stops = [stop for _, stop in spans]
    assert all(one < two for one, two in itertools.pairwise(stops))


@given(st.integers(0, 5000), st.integers(1, 600), OVERLAP)
def test_windows_cover_the_passage_without_a_gap(length, size, overlap):
    """Each window begins inside or right after the one before; the last ends with the passage."""
    spans = windows(length, size, overlap=overlap, limit=10**6)
    assert spans[-1][1] == length
    assert all(two[0] <= one[1] for one, two in itertools.pairwise(spans))


@given(st.integers(1, 5000), st.integers(1, 600), OVERLAP, st.integers(1, 6))
def test_what_the_limit_leaves_out_is_the_tail(length, size, overlap, limit):
    """Under a limit the windows read a head of the passage as long as the limit allows."""
    few = windows(length, size, overlap=overlap, limit=limit)
    many = windows(length, size, overlap=overlap, limit=10**6)
    assert [stop for _, stop in few] == [stop for _, stop in many][: len(few)]


@pytest.mark.parametrize(
    ("size", "limit", "overlap"), [(0, 1, 0.5), (4, 0, 0.5), (4, 1, 1.0), (4, 1, -0.1)]
)
def test_impossible_windows_are_refused(size, limit, overlap):
    """Sizes are positive and windows move."""
    with pytest.raises(ValueError, match="expected"):
        windows(10, size, overlap=overlap, limit=limit)


COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=10)


@given(COUNTS, st.integers(0, 2**32 - 1), st.sampled_from(FOLDS))
def test_a_fold_lies_between_the_least_and_the_greatest_window(counts, seed, how):
    """No fold invents a score beyond its windows' own."""
    owners = np.repeat(np.arange(len(counts)), counts)
    scores = np.random.default_rng(seed).normal(0, 5, len(owners)).astype(np.float32)
    folded = fold(scores, owners, len(counts), how)
    for candidate, value in enumerate(folded):
        mine = scores[owners == candidate]
        assert mine.min() - 1e-5 <= value <= mine.max() + 1e-5


@given(COUNTS, st.integers(0, 2**32 - 1))
def test_max_takes_the_best_and_first_the_first(counts, seed):
    """MaxP is the best window, FirstP the first one."""
    owners = np.repeat(np.arange(len(counts)), counts)
    scores = np.random.default_rng(seed).normal(0, 5, len(owners)).astype(np.float32)
    best, first = (fold(scores, owners, len(counts), how) for how in ("max", "first"))
    for candidate in range(len(counts)):
        mine = scores[owners == candidate]
        assert best[candidate] == mine.max()
        assert first[candidate] == mine[0]


@given(st.integers(1, 6), st.floats(-50, 50, width=32), st.sampled_from(FOLDS))
def test_equal_windows_fold_to_themselves(count, score, how):
    """Folding is idempotent on equal scores: one window or many make no difference."""
    scores = np.full(count, score, dtype=np.float32)
    folded = fold(scores, np.zeros(count, dtype=np.intp), 1, how)
    np.testing.assert_allclose(folded, [score], rtol=1e-6)


def test_log_mean_exp_by_hand():
    """log((e^0 + e^log3) / 2) = log 2."""
    scores = np.array([0.0, np.log(3.0)], dtype=np.float32)
    folded = fold(scores, np.zeros(2, dtype=np.intp), 1, "log_mean_exp")
    np.testing.assert_allclose(folded, [np.log(2.0)], rtol=1e-6)


def test_log_mean_exp_does_not_overflow():
    """Scores far beyond exp's range fold all the same."""
    scores = np.array([1e4, -1e4, 1e4], dtype=np.float32)
    folded = fold(scores, np.array([0, 0, 1]), 2, "log_mean_exp")
    np.testing.assert_allclose(folded, [1e4 - np.log(2.0), 1e4], rtol=1e-6)
