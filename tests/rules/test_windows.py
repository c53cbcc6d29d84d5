"""Windows of long candidates and the folding of their scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.rules.windows import FOLDS, fold, led, reaching, windows

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


@st.composite
def sentences(draw):
    """A passage's length, a window's size, an overlap, and the places behind sentences."""
    length = draw(st.integers(1, 3000))
    ends = draw(st.lists(st.integers(1, length), unique=True, max_size=200))
    return length, draw(st.integers(1, 300)), draw(OVERLAP), sorted(ends)


@given(sentences())
def test_sentences_move_windows_and_leave_no_gap(passage):
    """Windows behind sentences move on, skip nothing, and are no more than without sentences."""
    length, size, overlap, ends = passage
    spans = windows(length, size, overlap=overlap, limit=10**6, ends=ends)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 < stop - start <= size for start, stop in spans)
    assert all(one[0] < two[0] <= one[1] < two[1] for one, two in itertools.pairwise(spans))
    assert len(spans) <= len(windows(length, size, overlap=overlap, limit=10**6))


@given(sentences())
def test_windows_start_behind_sentences_or_where_none_ends_near(passage):
    """A window starts behind a sentence, or at its own place, or ends with the passage."""
    length, size, overlap, ends = passage
    places = {start for start, _ in windows(10**4, size, overlap=overlap, limit=10**6)}
    spans = windows(length, size, overlap=overlap, limit=10**6, ends=ends)
    assert all(
        start in ends or start in places or stop - start == size == length - start
        for start, stop in spans
    )


@given(sentences())
def test_no_window_but_a_whole_passage_is_less_than_half_of_one(passage):
    """Each window is worth a model run, the last one included."""
    length, size, overlap, ends = passage
    spans = windows(length, size, overlap=overlap, limit=10**6, ends=ends)
    assert all(2 * (stop - start) >= min(size, length) for start, stop in spans)


def test_an_answer_behind_a_sentence_is_a_window_of_its_own():
    """The window that would start amid the second sentence starts with the third."""
    assert windows(40, 20, ends=[8, 14, 40]) == ((0, 20), (8, 28), (20, 40))


@given(sentences(), st.integers(1, 100), st.integers(2, 10**6))
def test_small_windows_follow_a_large_one(passage, more, limit):
    """The first window is as large as it may be, no token is skipped, and the end is reached."""
    length, size, overlap, ends = passage
    first = size + more
    spans = led(first + length, size, first_tokens=first, overlap=overlap, limit=limit, ends=ends)
    assert spans[0] == (0, first)
    assert 2 <= len(spans) <= limit
    assert all(size >= stop - start >= size / 2 for start, stop in spans[1:])
    assert all(later[0] <= earlier[1] for earlier, later in itertools.pairwise(spans))
    assert all(later[1] > earlier[1] for earlier, later in itertools.pairwise(spans))
    assert spans[-1][1] == first + length or len(spans) == limit


@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 10), OVERLAP)
def test_small_windows_reach_as_far_as_a_few_large_ones(size, more, count, overlap):
    """As many small windows are allowed as it takes to leave no more out, and not one more."""
    full = size + more
    stop = windows(10**6, full, overlap=overlap, limit=count)[-1][1]
    limit = reaching(size, full, count=count, overlap=overlap)
    cut = {"first_tokens": full, "overlap": overlap}
    assert led(10**6, size, **cut, limit=limit)[-1][1] >= stop
    assert limit == 2 or led(10**6, size, **cut, limit=limit - 1)[-1][1] < stop


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
