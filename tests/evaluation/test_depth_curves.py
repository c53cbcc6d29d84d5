"""Depth and recall curves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Candidate, Reranker
from rerank_plugins.evaluation import Dataset, Topic, depth_curves
from rerank_plugins.evaluation.rankings import first_stage, rerank_all

DOCIDS = tuple(f"d{i}" for i in range(12))
TEXTS = tuple(f"note {i} about {'foxes' if i in {3, 11} else 'weather'}" for i in range(12))
NOTES = Dataset(
    "notes",
    (Topic("q", "foxes", DOCIDS, tuple(Candidate(text) for text in TEXTS)),),
    {"q": {"d3": 1, "d11": 1}},
)


def test_recall_grows_with_depth_and_recommends_enough():
    """Half of what is relevant is found at 5, all only at 12: so 12 is recommended."""
    found = depth_curves.recall(first_stage(NOTES, "first stage"), NOTES.qrels)
    assert found.by_depth == {5: 0.5, 10: 0.5, 12: 1.0}
    assert found.recommended == 12


def test_the_least_depth_that_suffices_is_recommended():
    """Where depth 5 finds all there is to find, no more is recommended."""
    found = depth_curves.recall(first_stage(NOTES, "first stage"), {"q": {"d3": 1}})
    assert found.recommended == 5


def test_the_curve_equals_reranking_that_many_candidates():
    """For a model that scores each pair alone, the curve from one run is that of many runs."""
    whole = rerank_all("embedded", Reranker(), NOTES)
    curve = depth_curves.by_depth(whole, NOTES.qrels, "nDCG@10")
    for depth in (5, 10, 12):
        again = rerank_all("embedded", Reranker(depth=depth), NOTES)
        expected = depth_curves.by_depth(again, NOTES.qrels, "nDCG@10")[12]
        assert curve[depth] == pytest.approx(expected)


@given(st.permutations(range(9)), st.integers(0, 12))
def test_restricting_gives_a_permutation_that_leaves_the_rest_in_place(order, depth):
    """Every candidate stays; those from `depth` on stay where they were."""
    found = depth_curves.restrict(order, min(depth, 9))
    assert sorted(found) == list(range(9))
    assert found[depth:] == list(range(9))[depth:]
