"""What is refused before anything is done for it."""

import copy
import json
import pickle
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from rerank_plugins import Reranker
from rerank_plugins.core.request import check_request
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation.report import plain
from rerank_plugins.records import Budget, Candidate, Request
from rerank_plugins.rules.residency import Policy
from rerank_plugins.serving.adapter_support import facts, hit_facts


@pytest.fixture(scope="module")
def lexical():
    """Give a reranker that costs nothing."""
    with Reranker("lexical") as reranker:
        yield reranker


@pytest.mark.parametrize("query", ["", " ", "\n\t ", "\u3000", None, 7, b"red fox", ["red"]])
def test_a_query_without_text_is_refused(lexical, query):
    """Empty, blank and non-text queries are the caller's mistake."""
    with pytest.raises(InvalidRequest, match="expected text that is not blank"):
        lexical.rerank(query, ["a red fox"])


def test_an_error_shows_little_of_a_bad_query(lexical):
    """No more than 40 characters of the caller's input get into a message."""
    with pytest.raises(InvalidRequest) as caught:
        lexical.rerank(["a very secret text " * 100], ["a"])
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("top_k", [0, -1, 2.5, "3", float("nan")])
def test_a_top_k_that_counts_nothing_is_refused(lexical, top_k):
    """top_k is a whole number of at least 1."""
    with pytest.raises(InvalidRequest, match="top_k"):
        lexical.rerank("fox", ["a red fox"], top_k=top_k)


def test_a_top_k_beyond_the_candidates_gives_them_all(lexical):
    """top_k > n is n; numpy's integers count too."""
    assert len(lexical.rerank("fox", ["a", "b"], top_k=5)) == 2
    assert len(lexical.rerank("fox", ["a", "b"], top_k=np.int64(1))) == 1


@pytest.mark.parametrize("budget_ms", [0, -5, float("nan")])
def test_a_budget_without_time_is_refused(lexical, budget_ms):
    """A budget is more than nothing."""
    with pytest.raises(InvalidRequest, match="budget"):
        lexical.rerank("fox", ["a"], budget_ms=budget_ms)


@pytest.mark.parametrize("prior", [float("nan"), float("inf"), -np.inf, "0.5", 1j])
def test_a_prior_that_orders_nothing_is_refused(prior):
    """Priors are finite numbers, and the error names the candidate."""
    request = Request("q", (Candidate("a", 1.0), Candidate("b", prior)))
    with pytest.raises(InvalidRequest, match="candidate 1 has prior"):
        check_request(request)


@pytest.mark.parametrize("prior", [0, -3, 2.5, np.float32(0.5), np.int64(4), Fraction(1, 3), None])
def test_any_finite_number_is_a_prior(prior):
    """Integers, numpy's numbers and None are fine."""
    check_request(Request("q", (Candidate("a", prior),), budget=Budget(0.1), top_k=1))


def test_numbers_of_numpy_end_as_numbers_of_json(lexical):
    """Whatever numbers a request brings, its facts, hits and record become JSON."""
    priors = [np.float32(0.5), np.int64(0), np.float64(0.25)]
    passages = [Candidate(text, prior=prior) for text, prior in zip("abc", priors, strict=True)]
    result = lexical.rerank("a", passages, top_k=np.int64(2), budget_ms=np.float32(60_000.0))
    found = json.loads(json.dumps([facts(result), [hit_facts(hit) for hit in result]]))
    assert [hit["prior"] for hit in found[1]] == [0.5, 0.0]
    assert plain({"value": np.float32(0.5), "n": np.int64(2)}) == {"value": 0.5, "n": 2}


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_reranker_stays_in_its_process(lexical, copied):
    """A pool that pickles one is told to make one per process; a policy travels."""
    with pytest.raises(TypeError, match="make one per process"):
        copied(lexical)
    policy = Policy(regions=("eu",), inside={"acme": "de"}, per="candidate")
    assert pickle.loads(pickle.dumps(policy)) == copy.deepcopy(policy) == policy


@pytest.mark.parametrize("passages", ["one text", b"bytes", None, 5, {"d1": "a text"}])
def test_passages_that_are_no_list_are_refused(lexical, passages):
    """One text instead of a list of them is a mistake, not a list of letters."""
    with pytest.raises(InvalidRequest, match="expected a list of texts"):
        lexical.rerank("fox", passages)


def test_passages_may_be_any_iterable(lexical):
    """A generator of passages is read once."""
    result = lexical.rerank("fox", (text for text in ["a hen", "a fox"]))
    assert result.order == (1, 0)


@dataclass
class Page:
    """A document as LangChain has it."""

    page_content: str


@pytest.mark.parametrize(
    ("passage", "advice"),
    [
        ({"text": "a fox"}, r'passage\["text"\]'),
        (("a fox", 0.7), r"Candidate\(text, score\)"),
        (b"a fox", "decode it"),
        (Page("a fox"), r"\.page_content"),
        (7, "give a string"),
        (["a", "fox"], "Candidate"),
    ],
)
def test_a_passage_that_is_no_text_is_refused_and_the_right_form_named(lexical, passage, advice):
    """Neither dropped nor answered in first-stage order in silence, bare or in a candidate."""
    for given in (passage, Candidate(passage)):
        with pytest.raises(InvalidRequest, match=advice):
            lexical.rerank("fox", ["a hen", given], strict=False)
