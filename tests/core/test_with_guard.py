"""Requests under guard: served as configured until reranking hurts, and then not."""

import json

import pytest

from rerank_plugins import Candidate, Stage
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.records import Code
from rerank_plugins.scoring.lexical import LexicalScorer
from tests.quality.guard.serving import Tied, ask, guarded, reference


def codes(result):
    """Give the decisions' codes."""
    return {one.code for one in result.decisions}


@pytest.fixture(scope="module")
def before():
    """Give a snapshot of a healthy service."""
    return reference(Tied())


def test_without_drift_requests_are_served_as_configured(before):
    """Healthy windows change nothing and leave no decision of the guard's."""
    reranker, guard = guarded(Tied(), before)
    with reranker:
        results = ask(reranker, guard, 130)
    assert guard.state.verdict == "ok"
    assert guard.state.report is not None
    assert all(codes(one).isdisjoint({Code.GUARD, Code.DRIFT}) for one in results)
    assert not any(one.degraded for one in results)


def test_shuffled_scores_are_answered_in_first_stage_order_after_two_windows(before):
    """Once two windows in a row are harmful the first stage's order is the answer, unscored."""
    scorer = Tied(agreement=0.0)
    reranker, guard = guarded(scorer, before)
    with reranker:
        results = ask(reranker, guard, 81)
        calls = scorer.calls
        later = ask(reranker, guard, 20)
    assert codes(results[-1]) == {Code.GUARD}
    assert results[-1].order == tuple(range(15))
    assert results[-1].degraded
    assert all(hit.score is None and hit.probability is None for hit in results[-1])
    assert guard.state.verdict == "harmful"
    assert "agreement" in results[-1].decisions[0].detail
    assert all(one.order == tuple(range(15)) for one in later)
    # One request in ten is still scored, unseen, to know when to stop.
    assert scorer.calls - calls == 2


def test_the_guard_stops_acting_when_windows_are_clean_again(before):
    """Three windows that are not harmful end it; probes supply them."""
    scorer = Tied(agreement=0.0)
    reranker, guard = guarded(scorer, before, probe_every=1)
    with reranker:
        ask(reranker, guard, 80)
        assert guard.state.acting
        scorer.agreement = 0.8
        ask(reranker, guard, 120, seed=3)
        assert not guard.state.acting
        last = ask(reranker, guard, 1, seed=4)[-1]
    assert codes(last).isdisjoint({Code.GUARD})
    assert last[0].score is not None


def test_a_guard_that_may_not_act_only_tells(before):
    """With do_no_harm off the order stays the model's, and a decision says what moved."""
    reranker, guard = guarded(Tied(agreement=0.0), before, do_no_harm=False)
    with reranker:
        last = ask(reranker, guard, 81)[-1]
    assert codes(last) == {Code.DRIFT}
    assert not last.degraded
    assert last[0].score is not None


def test_raising_the_prior_moves_the_order_towards_the_first_stage(before):
    """With raise_prior and full weight the order is the priors', and hits keep their scores."""
    reranker, guard = guarded(Tied(agreement=0.0), before, action="raise_prior", prior_weight=1.0)
    with reranker:
        last = ask(reranker, guard, 81)[-1]
    assert codes(last) == {Code.GUARD, Code.FUSED}
    assert last[0].fused is not None


def test_raising_the_prior_without_priors_fuses_ranks(before):
    """Where a candidate has no prior, its place in the first stage's order counts instead."""
    reranker, guard = guarded(Tied(agreement=0.0), before, action="raise_prior")
    with reranker:
        ask(reranker, guard, 80)
        result = reranker.rerank("a query", ["a 1.0", "b 0.5", "c 0.1"])
    assert {Code.GUARD, Code.FUSED} <= codes(result)


def test_fallback_stages_serve_where_the_guard_says_so(before):
    """With the action fallback the harmful model is passed over for the stage behind it."""
    scorer = Tied(agreement=0.0)
    stages = (Stage(scorer), Stage(LexicalScorer(), when="fallback"))
    reranker, guard = guarded(scorer, before, stages=stages, action="fallback")
    with reranker:
        last = ask(reranker, guard, 81)[-1]
    assert {Code.GUARD, Code.FALLBACK} <= codes(last)
    assert last.model == "lexical"


def test_feedback_that_favours_the_first_stage_moves_the_guard(before):
    """With a control share, worse feedback for reranked answers has the first stage serve."""
    reranker, guard = guarded(Tied(), before, control_share=0.5, window=50)
    with reranker:
        for number, result in enumerate(ask(reranker, guard, 400)):
            control = Code.CONTROL in codes(result)
            reranker.feedback(result.request_id, 0.7 + 0.1 * (number % 3) if control else 0.3)
        guard.settle()
        assert guard.state.acting
        last = [ask(reranker, guard, 1)[-1] for _ in range(2)]
    assert any("feedback" in one.decisions[0].detail for one in last if one.decisions)


def test_feedback_without_a_control_arm_is_compared_with_what_came_first(before):
    """A drop of the mean against the first window of feedback is harm."""
    reranker, guard = guarded(Tied(), before, window=50)
    with reranker:
        for number, result in enumerate(ask(reranker, guard, 150)):
            good = 0.8 if number < 50 else 0.3
            reranker.feedback(result.request_id, good + 0.05 * (number % 2))
        guard.settle()
    assert guard.state.acting


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_feedback_is_a_number_from_zero_to_one(before, score):
    """Anything else is the caller's mistake."""
    reranker, _ = guarded(Tied(), before)
    with reranker, pytest.raises(InvalidRequest, match="from 0"):
        reranker.feedback("id", score)


def test_feedback_for_an_unknown_request_is_passed_over(before):
    """An id nobody gave, or that came twice, changes nothing and raises nothing."""
    reranker, guard = guarded(Tied(), before)
    with reranker:
        reranker.feedback("nobody", 0.0)
        guard.settle()
    assert guard.state.version == 0


def test_the_log_holds_numbers_and_never_text(before, tmp_path):
    """Every request and every verdict is one JSON line; no query or passage is in it."""
    path = tmp_path / "logs" / "guard.jsonl"
    reranker, guard = guarded(Tied(), before, log=path)
    with reranker:
        ask(reranker, guard, 40)
        reranker.rerank("very secret", [Candidate("hidden 1.0", 1.0), Candidate("x 0.5", 0.5)])
        guard.settle()
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(one) for one in text.splitlines()]
    assert [one["kind"] for one in lines].count("request") == 41
    assert [one["kind"] for one in lines].count("window") == 1
    assert "secret" not in text
    assert "hidden" not in text


def test_top_k_still_bounds_what_is_returned(before):
    """The guard sees every hit; the caller gets as many as were asked for."""
    reranker, guard = guarded(Tied(), before)
    with reranker:
        result = reranker.rerank("q", ["a 1.0", "b 0.5", "c 0.1"], top_k=2)
        guard.settle()
    assert (len(result), len(result.order)) == (2, 3)
    assert Code.CUT in codes(result)


def test_without_a_snapshot_the_first_requests_make_one():
    """A guard without a reference learns it, then judges."""
    scorer = Tied()
    reranker, guard = guarded(scorer, None, learn=100)
    with reranker:
        ask(reranker, guard, 100)
        assert guard.reference is not None
        scorer.agreement, scorer.shift = 0.0, -5.0
        ask(reranker, guard, 80, seed=5)
    assert guard.state.verdict == "harmful"
