"""Warm-up: once, whoever asks; and what requests do until then."""

import threading
import time

import pytest

from rerank_plugins import Reranker, Stage
from rerank_plugins.core.warm_up import Readiness
from rerank_plugins.errors import ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.lexical import LexicalScorer


class Slow(LexicalScorer):
    """A scorer whose warm-up lasts until it is let go."""

    def __init__(self, failures=0):
        self.go = threading.Event()
        self.calls = 0
        self.failures = failures

    def warm_up(self):
        """Wait, and fail as often as told."""
        self.calls += 1
        assert self.go.wait(timeout=30)
        if self.calls <= self.failures:
            raise ModelError("it does not warm up")


def warm_up_threads():
    """Count the threads that warm something up."""
    return sum(thread.name == "rerank-warm-up" for thread in threading.enumerate())


def until(condition):
    """Wait until a condition holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_ready_only_after_real_shapes_ran(tiny_model):
    """A reranker is not ready when built, and ready once its warm-up returns."""
    with Reranker(tiny_model) as reranker:
        assert not reranker.ready
        reranker.warm_up()
        assert reranker.ready
        reranker.warm_up()
        assert reranker.ready


def test_one_warm_up_serves_all_who_ask():
    """Threads that ask at once run one warm-up and all return after it."""
    scorer = Slow()
    readiness = Readiness([scorer])
    threads = [threading.Thread(target=readiness.warm_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: scorer.calls == 1)
    assert not readiness.ready
    assert all(thread.is_alive() for thread in threads)
    scorer.go.set()
    for thread in threads:
        thread.join(timeout=30)
    assert scorer.calls == 1
    assert readiness.ready


def test_a_failed_warm_up_is_raised_and_can_be_tried_again():
    """A failure reaches who asked and leaves nothing ready; the next call starts anew."""
    scorer = Slow(failures=1)
    scorer.go.set()
    readiness = Readiness([scorer])
    with pytest.raises(ModelError, match="does not warm up"):
        readiness.warm_up()
    assert not readiness.ready
    readiness.warm_up()
    assert readiness.ready


def test_cold_requests_pass_through_and_start_one_warm_up():
    """With pass_through, many cold requests start a single warm-up and get first-stage order."""
    scorer = Slow()
    with Reranker(stages=[Stage(scorer)], when_cold="pass_through") as reranker:
        for _ in range(20):
            result = reranker.rerank("fox", ["a hen", "a fox"])
            assert result.order == (0, 1)
            assert result.degraded
            assert result.decisions[0].code is Code.NOT_WARM
        assert warm_up_threads() == 1
        until(lambda: scorer.calls == 1)
        scorer.go.set()
        until(lambda: reranker.ready)
        result = reranker.rerank("fox", ["a hen", "a fox"])
        assert result.order == (1, 0)
        assert not result.degraded
        assert scorer.calls == 1


def test_strict_requests_are_scored_cold():
    """A strict request is not passed through."""
    with Reranker(stages=[Stage(Slow())], when_cold="pass_through") as reranker:
        assert reranker.rerank("fox", ["a hen", "a fox"], strict=True).order == (1, 0)


def test_after_a_failed_warm_up_requests_are_served():
    """A warm-up that fails in the background is not repeated, and no request waits for it."""
    scorer = Slow(failures=1)
    scorer.go.set()
    with Reranker(stages=[Stage(scorer)], when_cold="pass_through") as reranker:
        reranker.rerank("fox", ["a hen", "a fox"])
        until(lambda: warm_up_threads() == 0)
        assert reranker.rerank("fox", ["a hen", "a fox"]).order == (1, 0)
        assert scorer.calls == 1
        assert not reranker.ready


def test_a_request_waits_for_the_warm_up_under_way():
    """By default a request without a budget is scored when the warm-up is done."""
    scorer = Slow()
    with Reranker(stages=[Stage(scorer)]) as reranker:
        warming = threading.Thread(target=reranker.warm_up)
        warming.start()
        until(lambda: scorer.calls == 1)
        waiting = reranker.submit(_request())
        hurried = reranker.rerank("fox", ["a hen", "a fox"], budget_ms=10_000)
        assert hurried.order == (1, 0)
        assert not waiting.done()
        scorer.go.set()
        assert waiting.result(timeout=30).order == (1, 0)
        warming.join(timeout=30)


def test_a_request_runs_cold_where_nobody_warms_up():
    """A script that never warms up is not made to."""
    with Reranker(stages=[Stage(Slow())]) as reranker:
        assert reranker.rerank("fox", ["a hen", "a fox"]).order == (1, 0)
        assert not reranker.ready


def test_waiting_for_a_warm_up_that_fails_is_no_error():
    """A request that waited is scored even if the warm-up failed."""
    scorer = Slow(failures=1)
    with Reranker(stages=[Stage(scorer)]) as reranker:
        failures = []

        def warm():
            try:
                reranker.warm_up()
            except ModelError as error:
                failures.append(error)

        warming = threading.Thread(target=warm)
        warming.start()
        until(lambda: scorer.calls == 1)
        waiting = reranker.submit(_request())
        scorer.go.set()
        assert waiting.result(timeout=30).order == (1, 0)
        warming.join(timeout=30)
        assert len(failures) == 1


def _request():
    from rerank_plugins import Candidate, Request

    return Request("fox", (Candidate("a hen"), Candidate("a fox")))
