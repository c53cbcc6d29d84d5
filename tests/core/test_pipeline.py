"""The data path: what becomes of every candidate, and what happens when stages fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker, Stage
from rerank_plugins.errors import ConfigError, DeadlineExceeded, InvalidRequest, ModelError
from rerank_plugins.records import Candidate, Code
from rerank_plugins.scoring import Scored
from rerank_plugins.scoring.lexical import LexicalScorer


class Scripted:
    """A scorer of the tests' own: gives the numbers it was made with, or the error."""

    name = "scripted"
    score_kind = "logit"

    def __init__(self, answer):
        self.answer = answer

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Answer for as many passages as the script has numbers."""
        if isinstance(self.answer, Exception):
            raise self.answer
        scores = np.array(self.answer, dtype=np.float32)
        return Scored(
            scores, np.ones(len(scores), dtype=np.bool_), np.zeros(len(scores), dtype=np.int64)
        )

    def warm_up(self):
        """Need none."""

    def close(self):
        """Hold nothing."""


def codes(result):
    """Give the decisions of a result as {code: count}."""
    return {decision.code: decision.count for decision in result.decisions}


ANSWERS = st.lists(st.sampled_from(["red fox", "blue hen", "a fox", "", None, "plum"]), max_size=10)


@pytest.fixture(scope="module")
def lexical():
    """Give a reranker that costs nothing."""
    with Reranker("lexical") as reranker:
        yield reranker


@given(texts=ANSWERS)
def test_the_order_is_a_permutation(texts, lexical):
    """Whatever the passages, every one of them appears once."""
    result = lexical.rerank("red fox", texts)
    assert sorted(result.order) == list(range(len(texts)))
    assert [hit.index for hit in result] == list(result.order)


def test_no_candidates_give_an_empty_result(lexical):
    """Nothing in, nothing out, and nothing is degraded."""
    result = lexical.rerank("red fox", [])
    assert (result.order, result.hits, result.degraded) == ((), (), False)


def test_blank_passages_stay_in_place_at_the_bottom(lexical):
    """Empty, blank and missing passages are not scored, not lost, and counted."""
    texts = ["", "a hen", None, " \n", "a fox", float("nan"), "\u200b", np.float32("nan")]
    result = lexical.rerank("fox", texts)
    assert result.order == (4, 1, 0, 2, 3, 5, 6, 7)
    assert codes(result) == {Code.BLANK: 6}
    assert all(hit.score is None for hit in result.hits[2:])
    assert not result.degraded


def test_only_blank_passages_keep_their_order(lexical):
    """Where nothing can be scored the first-stage order stands."""
    assert lexical.rerank("fox", ["", None, " "]).order == (0, 1, 2)


def test_duplicates_are_scored_once_and_share_their_score(lexical):
    """The same text costs once; its copies keep first-stage order."""
    result = lexical.rerank("fox", ["a hen", "a fox", "a hen", "a fox"])
    assert result.order == (1, 3, 0, 2)
    assert result.usage.pairs == 2
    assert codes(result) == {Code.DUPLICATE: 2}
    assert result.hits[0].score == result.hits[1].score


@pytest.mark.parametrize("bad", [[float("nan"), 1.0], [1.0, float("inf")], [1.0], [1.0, 2.0, 3.0]])
def test_an_answer_that_cannot_be_ordered_is_a_failed_stage(bad):
    """Scores that are not finite, or not one a passage, leave the first-stage order, degraded."""
    with Reranker(stages=[Stage(Scripted(bad))]) as reranker:
        result = reranker.rerank("q", ["a", "b"])
        assert result.order == (0, 1)
        assert result.degraded
        assert codes(result) == {Code.STAGE_FAILED: 2, Code.PASS_THROUGH: 2}
        assert all(hit.score is None for hit in result)
        with pytest.raises(ModelError, match="scripted gave"):
            reranker.rerank("q", ["a", "b"], strict=True)


def test_a_failed_stage_leaves_the_order_of_the_one_before():
    """A broken second stage costs its refinement, not the first stage's."""
    stages = [Stage(LexicalScorer()), Stage(Scripted(ModelError("it is broken")))]
    with Reranker(stages=stages) as reranker:
        result = reranker.rerank("fox", ["a hen", "a fox"])
        assert result.order == (1, 0)
        assert result.degraded
        assert Code.STAGE_FAILED in codes(result)


def test_a_fallback_stage_serves_where_the_first_fails():
    """A fallback runs only then, and says so."""
    broken = Scripted(ModelError("it is broken"))
    with Reranker(stages=[Stage(broken), Stage(LexicalScorer(), when="fallback")]) as reranker:
        result = reranker.rerank("fox", ["a hen", "a fox"])
        assert result.order == (1, 0)
        assert codes(result)[Code.FALLBACK] == 2
    with Reranker(
        stages=[Stage(LexicalScorer()), Stage(broken, when="fallback")], strict=True
    ) as reranker:
        assert not reranker.rerank("fox", ["a hen", "a fox"]).degraded


def test_a_query_that_one_stage_cannot_read_is_answered_by_another():
    """A query that is too long for a model fails that stage, as any other fault does."""
    broken = Scripted(InvalidRequest("the query is too long"))
    first, fallback = LexicalScorer(), LexicalScorer()
    cases = {
        "alone": [Stage(broken)],
        "behind a stage": [Stage(first), Stage(broken)],
        "before a fallback": [Stage(broken), Stage(fallback, when="fallback")],
    }
    for name, stages in cases.items():
        with Reranker(stages=stages) as reranker:
            result = reranker.rerank("fox", ["a hen", "a fox"])
            assert result.degraded, name
            assert result.order == ((0, 1) if name == "alone" else (1, 0)), name
            assert codes(result)[Code.STAGE_FAILED] == 2, name
            with pytest.raises(InvalidRequest, match="too long"):
                reranker.rerank("fox", ["a hen", "a fox"], strict=True)


def test_priors_order_with_the_scores_where_every_scored_candidate_has_one():
    """A prior weight fuses; one missing prior among the scored switches it off for the request."""
    with Reranker(stages=[Stage(Scripted([1.0, 2.0]))], prior_weight=1.0) as reranker:
        fused = reranker.rerank("q", [Candidate("a", 9.0), Candidate("b", 1.0), Candidate("")])
        assert fused.order == (0, 1, 2)
        assert codes(fused)[Code.FUSED] == 2
        plain = reranker.rerank("q", [Candidate("a", 9.0), Candidate("b")])
        assert plain.order == (1, 0)
        assert Code.FUSED not in codes(plain)


def test_the_prior_weighs_the_same_however_few_are_scored():
    """What is not scored still says how far the first stage's scores lie apart."""
    priors = [10.0, 9.9, 9.8, 0.0, 0.0, 0.0]
    candidates = [Candidate(f"passage {i}", prior) for i, prior in enumerate(priors)]
    orders = []
    for depth in (3, None):
        answer = [1.0, 2.0, 3.0, -3.0, -4.0, -5.0][:depth]
        with Reranker(stages=[Stage(Scripted(answer))], prior_weight=0.4, depth=depth) as reranker:
            orders.append(reranker.rerank("fox", candidates).order)
    assert orders[0] == orders[1] == (2, 1, 0, 3, 4, 5)


def test_a_stage_scores_no_more_than_may_enter():
    """Who does not enter stays behind, in the order of the first stage, and is counted."""
    passages = [f"passage {i}" for i in range(5)]
    stages = [Stage(Scripted([1.0, 2.0, 3.0]), enter=3)]
    with Reranker(stages=stages) as reranker:
        result = reranker.rerank("fox", passages)
    assert result.order == (2, 1, 0, 3, 4)
    assert [hit.depth for hit in result] == [1, 1, 1, 0, 0]
    assert codes(result)[Code.DEPTH] == 2


def test_strict_raises_where_a_deadline_cuts(tiny_model):
    """Strict, a budget that leaves candidates unscored is an error; else a visible degradation."""
    with Reranker(tiny_model, budget_ms=1e-3) as reranker:
        result = reranker.rerank("red fox", ["a red fox", "a hen"])
        assert result.order == (0, 1)
        assert result.degraded
        assert codes(result) == {Code.DEADLINE: 2, Code.PASS_THROUGH: 2}
        with pytest.raises(DeadlineExceeded, match="2 of 2 candidates"):
            reranker.rerank("red fox", ["a red fox", "a hen"], strict=True)


def test_too_long_passages_are_left_out_by_choice_and_visibly(tiny_model):
    """Under long="error" a passage over the limit is unscored: degraded, or raised when strict."""
    with Reranker(tiny_model, long="error") as reranker:
        result = reranker.rerank("red fox", ["fox " * 500, "a red fox"])
        assert result.order == (1, 0)
        assert result.hits[1].score is None
        assert result.degraded
        assert codes(result) == {Code.TOO_LONG: 1}
        with pytest.raises(InvalidRequest, match="over the token limit"):
            reranker.rerank("red fox", ["fox " * 500], strict=True)


def test_a_reranker_without_stages_is_refused():
    """A set-up names at least one stage and a depth that scores something."""
    with pytest.raises(ConfigError, match="no stages"):
        Reranker(stages=[])
    with pytest.raises(ConfigError):
        Reranker("lexical", depth=0)


def test_timings_and_identity_come_with_every_result(lexical):
    """A result says how long each step took, what scored it, and has an identity of its own."""
    one, two = (lexical.rerank("fox", ["a fox", "a hen"]) for _ in range(2))
    assert one.request_id != two.request_id
    assert one.model == "lexical"
    assert {"queue", "select", "stage", "fuse", "total"} <= {timing.step for timing in one.timings}
    assert all(timing.seconds >= 0.0 for timing in one.timings)
