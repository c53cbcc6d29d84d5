"""BM25 over the candidates of one request."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.scoring.lexical import bm25

TEXTS = st.lists(st.text("abc \u0130ß", max_size=12), max_size=8)


@given(TEXTS, st.text("abc ", max_size=8))
def test_scores_are_finite_and_not_negative(texts, query):
    """Any texts give a finite score of at least 0 each."""
    scores = bm25(query, texts)
    assert len(scores) == len(texts)
    assert all(math.isfinite(score) and score >= 0.0 for score in scores)


def test_a_passage_without_a_query_word_scores_nothing():
    """No overlap, no score."""
    assert bm25("red fox", ["blue hen", "", "foxes"]) == [0.0, 0.0, 0.0]


def test_rare_words_and_short_passages_count_more():
    """A rare query word beats a common one, a short passage a long one."""
    rare, common, _ = bm25("fox the", ["fox hen", "the hen", "the cow"])
    assert rare > common
    short, long = bm25("fox", ["fox", "fox and many other words besides"])
    assert short > long


def test_case_is_ignored():
    """Words match whatever their case."""
    assert bm25("FOX", ["a fox"]) == bm25("fox", ["A FOX"])


def test_a_score_by_hand():
    """One matching word in two texts of two words: idf ln(1 + 1.5 / 1.5), length at its mean."""
    (score, _) = bm25("fox", ["red fox", "red hen"])
    assert score == pytest.approx(math.log(2.0) * 1.9 / 1.9)
