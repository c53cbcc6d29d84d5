"""What metrics tell of the guard."""

import numpy as np

from rerank_plugins import Stage, semconv
from rerank_plugins.core.setup import Setup
from rerank_plugins.quality.guard.guard import Guard
from rerank_plugins.quality.guard.stance import GuardOptions
from tests.quality.guard.serving import Tied, question, reference


def test_drift_gauges_tell_the_last_window_and_feedback_is_a_histogram(make, observed):
    """Verdict, action, each statistic over its critical value, and what evaluators said."""
    before = reference(Tied())
    guard = Guard(GuardOptions(window=40), before)
    reranker = make(Setup((Stage(Tied(agreement=0.0)),), guard=guard))
    source = np.random.default_rng(7)
    for _ in range(95):
        result = reranker.rerank("a query", question(source))
        guard.settle()
    reranker.feedback(result.request_id, 0.5)
    points = observed.points()
    assert [one.value for one in points["rerank.guard.state"]] == [2]
    assert [one.value for one in points["rerank.guard.acting"]] == [1]
    found = {
        (one.attributes["rerank.drift.feature"], one.attributes["rerank.drift.test"]): one.value
        for one in points["rerank.drift"]
    }
    assert found["agreement", "ks"] > 1.0
    assert found["query_length", "ks"] < 1.0
    (feedback,) = points["rerank.feedback"]
    assert (feedback.count, feedback.sum) == (1, 0.5)
    named = {one.name: set(one.attributes) for one in semconv.METRICS}
    for name in ("rerank.drift", "rerank.drift.shift", "rerank.guard.state"):
        assert all(set(one.attributes) == named[name] for one in points[name])
