"""The two ends of a request."""

import base64
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker, load
from rerank_plugins.core.hits import cut
from rerank_plugins.core.shortlist import choose, without_long
from rerank_plugins.records import Candidate, Code, Hit, Result

TEXT = st.none() | st.sampled_from(["", " ", "\n", "a", "b", "c", "d"]) | st.text(max_size=3)
DEPTH = st.none() | st.integers(1, 6)


@given(st.lists(TEXT, max_size=12), DEPTH)
def test_what_is_chosen_accounts_for_every_candidate(texts, depth):
    """Each candidate is scored, blank, a duplicate, or beyond the depth; nothing else happens."""
    chosen = choose([Candidate(text) for text in texts], depth)
    assert len(chosen.slot_of) == len(texts)
    counts = {decision.code: decision.count for decision in chosen.decisions}
    assert set(counts) <= {Code.BLANK, Code.DUPLICATE, Code.DEPTH}
    assert len(chosen.texts) + sum(counts.values()) == len(texts)


@given(st.lists(TEXT, max_size=12), DEPTH)
def test_chosen_texts_are_distinct_and_not_blank(texts, depth):
    """No text is scored twice, none is blank, and no more than the depth are scored."""
    chosen = choose([Candidate(text) for text in texts], depth)
    assert len(set(chosen.texts)) == len(chosen.texts) <= (depth or len(texts))
    assert all(text.strip() for text in chosen.texts)
    for text, place in zip(texts, chosen.slot_of, strict=True):
        if place is not None:
            assert chosen.texts[place] == text


@given(st.lists(TEXT, max_size=12))
def test_the_first_of_the_first_stage_are_chosen(texts):
    """Texts keep first-stage order, so that a depth leaves out the last ones."""
    every = choose([Candidate(text) for text in texts], None).texts
    assert choose([Candidate(text) for text in texts], 3).texts == every[:3]


@given(st.integers(0, 8), st.none() | st.integers(1, 10))
def test_a_cut_leaves_the_order_whole(count, top_k):
    """The hits are cut, the order is not, and the cut is a decision."""
    hits = tuple(Hit(i, 1.0) for i in range(count))
    result = cut(Result(hits, tuple(range(count)), request_id="r", model="m"), top_k)
    assert len(result.hits) == min(count, top_k or count)
    assert result.order == tuple(range(count))
    left = count - len(result.hits)
    counts = {decision.code: decision.count for decision in result.decisions}
    assert counts == ({Code.CUT: left} if left else {})


@pytest.mark.parametrize(
    ("priors", "used"),
    [
        ([0.9, 0.8, 0.5, 0.4, 0.1, 0.1], True),
        ([0.1, 0.2, 0.5, 0.5, 0.8, 0.9], False),
        ([0.1, None, 0.2, 0.4, 0.8, 0.9], False),
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], True),
        ([0.1, 0.2, 0.5, 0.4, 0.8, 0.9], True),
        ([0.5] * 6, True),
        ([], True),
    ],
)
def test_first_stage_scores_that_only_rise_are_not_used(priors, used):
    """Candidates come best first: rising numbers are distances, and a decision says so."""
    candidates = [Candidate(f"text {i}", prior) for i, prior in enumerate(priors)]
    chosen = choose(candidates, None)
    assert chosen.has_priors is used
    assert (Code.PRIORS_RISE in {one.code for one in chosen.decisions}) is not used
    assert used or set(chosen.priors) == {None}


def test_distances_do_not_turn_an_order_round():
    """With distances as priors, the order is the model's alone."""
    texts = [f"a fox {'and a hen ' * i}" for i in range(6)]
    with load({"stages": [{"scorer": "lexical"}], "fusion": {"prior_weight": 0.9}}) as reranker:
        plain = reranker.rerank("fox", texts)
        wrong = reranker.rerank("fox", [Candidate(text, 0.1 * i) for i, text in enumerate(texts)])
        right = reranker.rerank("fox", [Candidate(text, -0.1 * i) for i, text in enumerate(texts)])
    assert wrong.order == plain.order
    assert all(hit.fused is None and hit.prior is not None for hit in wrong)
    assert all(hit.fused is not None for hit in right)


def test_texts_of_extreme_length_can_be_left_out():
    """They become candidates that are not scored, and the others close up."""
    candidates = [Candidate("a" * 50_000, 3.0), Candidate("b", 2.0), Candidate("c", 1.0)]
    chosen = choose(candidates, None)
    rest = without_long(chosen)
    assert rest.texts == ["b", "c"]
    assert rest.slot_of == [None, 0, 1]
    assert rest.priors == [2.0, 1.0]
    assert rest.decisions[-1].code is Code.DEADLINE
    even = choose([Candidate(letter * 50_000) for letter in "abc"], None)
    assert without_long(even) is even


def test_one_text_of_extreme_length_does_not_take_the_others_time():
    """Base64 of two million characters, best first: the others are scored within the budget."""
    blob = base64.b64encode(random.Random(1).randbytes(1_500_000)).decode()
    texts = [blob, *(f"a red fox number {number} jumps" for number in range(8))]
    with Reranker() as reranker:
        reranker.warm_up()
        started = time.monotonic()
        result = reranker.rerank("red fox", texts, budget_ms=300)
        seconds = time.monotonic() - started
    assert seconds < 1.0
    scored = {hit.index for hit in result if hit.score is not None}
    assert 0 not in scored
    assert len(scored) >= 4
    assert sorted(result.order) == list(range(9))
