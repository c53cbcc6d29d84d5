"""rerank_plugins.telemetry.metrics: what is counted, by what, and under which names."""

import pytest

from rerank_plugins import Reranker, RerankError, Stage, semconv
from rerank_plugins.errors import ModelError
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.scoring.lexical import LexicalScorer

PASSAGES = ["a blue hen", "a red fox", "", "a red fox", "the red fox and the blue hen"]


class Broken(LexicalScorer):
    """A scorer that cannot serve."""

    name = "broken"

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Fail."""
        raise ModelError("no weights")


def values(points):
    """Give data points as {attributes: count or number of records}."""
    return {
        tuple(sorted(one.attributes.items())): one.count if hasattr(one, "count") else one.value
        for one in points
    }


def test_a_request_enters_every_instrument_it_has_something_for(make, observed):
    """Durations, steps, queue, batches, pairs, tokens and decisions of one embedded request."""
    result = make("embedded").rerank("red fox", PASSAGES, top_k=2)
    points = observed.points()
    (duration,) = points["rerank.request.duration"]
    assert dict(duration.attributes) == {
        "gen_ai.request.model": "embedded",
        "rerank.outcome": "ok",
        "rerank.candidates.bucket": "0-10",
        "rerank.tokens.bucket": "0-1000",
    }
    assert duration.explicit_bounds == semconv.SECONDS
    steps = {dict(key)["rerank.step"] for key in values(points["rerank.step.duration"])}
    assert steps == {"select", "tokenise", "score", "fold", "fuse"}
    embedded = (("rerank.stage", "embedded"),)
    assert values(points["rerank.pairs"]) == {embedded: result.usage.pairs}
    assert values(points["rerank.tokens"]) == {embedded: result.usage.tokens}
    assert values(points["rerank.batch.tokens"]) == {embedded: 1}
    assert values(points["rerank.batch.padding"]) == {embedded: 1}
    assert values(points["rerank.queue.wait"]) == {(("gen_ai.request.model", "embedded"),): 1}
    codes = {
        dict(key)["rerank.decision"]: n for key, n in values(points["rerank.decisions"]).items()
    }
    assert codes | {"cut": 3, "blank": 1, "duplicate": 1} == codes


def test_only_documented_metrics_with_documented_attributes_are_recorded(make, observed):
    """Names, units and attribute keys are the table's, whatever a request meets."""
    make("embedded").rerank("red fox", PASSAGES, budget_ms=0.001)
    make(stages=[Stage(Broken()), Stage(LexicalScorer())]).rerank("red fox", PASSAGES)
    with pytest.raises(RerankError):
        make(stages=[Stage(Broken())], strict=True).rerank("red fox", PASSAGES)
    table = {one.name: one for one in semconv.METRICS}
    for name, points in observed.points().items():
        for point in points:
            assert set(point.attributes) <= set(table[name].attributes)
    counted = values(observed.points()["rerank.stage.failures"])
    assert counted == {(("error.type", "ModelError"), ("rerank.stage", "broken")): 1}


def test_outcomes_are_told_apart(make, observed):
    """A failed request counts as an error of its class, a degraded one as degraded."""
    reranker = make(stages=[Stage(Broken()), Stage(LexicalScorer(), when="fallback")])
    reranker.rerank("red fox", PASSAGES)
    with pytest.raises(RerankError):
        make(stages=[Stage(Broken())], strict=True).rerank("red fox", PASSAGES)
    found = {
        (one.attributes["rerank.outcome"], one.attributes.get("error.type"))
        for one in observed.points()["rerank.request.duration"]
    }
    assert found == {("degraded", None), ("error", "ModelError")}


def test_a_missed_budget_is_counted(make, observed):
    """A budget too small for anything counts as missed, a generous one does not."""
    reranker = make("embedded")
    reranker.rerank("red fox", PASSAGES, budget_ms=60_000)
    assert "rerank.budget.misses" not in observed.points()
    reranker.rerank("red fox", PASSAGES, budget_ms=0.001)
    assert list(values(observed.points()["rerank.budget.misses"]).values()) == [1]


def test_exits_are_counted_per_stage(make, observed):
    """Those a stage scored and did not pass on have left there; the last stage keeps the rest."""
    first, last = LexicalScorer(), LexicalScorer()
    last.name = "last"
    make(stages=[Stage(first, keep=1), Stage(last)]).rerank("red fox", PASSAGES)
    exits = {one.attributes["rerank.stage"]: one.value for one in observed.points()["rerank.exits"]}
    assert exits == {"lexical": 2, "last": 1}


def test_a_cache_hit_is_counted(make, observed):
    """Passages seen before are found in the token cache and counted there."""
    reranker = make("embedded")
    for _ in range(2):
        reranker.rerank("red fox", PASSAGES)
    key = (("rerank.cache", "tokens"), ("rerank.stage", "embedded"))
    assert values(observed.points()["rerank.cache.hits"])[key] == 3


def test_an_exemplar_of_a_slow_bucket_leads_to_its_trace(make, observed):
    """Durations are recorded inside the sampled span, so that exemplars carry its trace id."""
    make("lexical").rerank("red fox", PASSAGES)
    (duration,) = observed.points()["rerank.request.duration"]
    assert [one.trace_id for one in duration.exemplars] == [observed.root().context.trace_id]


def test_two_rerankers_of_one_process_share_their_instruments(make, observed, caplog):
    """A second reranker adds to the same series and nobody complains."""
    for _ in range(2):
        make("lexical").rerank("red fox", PASSAGES)
    assert list(values(observed.points()["rerank.request.duration"]).values()) == [2]
    assert caplog.records == []


def test_series_stay_few_over_many_different_requests(make, observed):
    """Four hundred requests of every size leave at most 50 duration series per model."""
    reranker = make("lexical")
    for n in range(0, 800, 2):
        reranker.rerank(f"query {n}", [f"passage {i}" for i in range(n)], top_k=1 + n)
    assert len(observed.points()["rerank.request.duration"]) <= 50


def test_without_an_sdk_nothing_is_recorded_and_nothing_breaks():
    """The API alone, as installed by default, is enough to serve."""
    with Reranker("lexical") as reranker:
        assert len(reranker.rerank("red fox", PASSAGES)) == 5


def test_signals_of_drift_are_recorded_per_request(make, observed):
    """Agreement with the first stage where there are more than ten; the first hit's probability."""
    make("lexical").rerank("fox 15", [f"fox {i}" for i in range(20)])
    points = observed.points()
    (agreement,) = points["rerank.first_stage.agreement"]
    assert agreement.sum == pytest.approx(0.9)
    assert "rerank.top.probability" not in points
    calibrated = Stage(LexicalScorer(), calibration=Calibration(1.0, 0.0))
    result = make(stages=[calibrated]).rerank("fox 15", [f"fox {i}" for i in range(20)])
    (probability,) = observed.points()["rerank.top.probability"]
    assert probability.sum == pytest.approx(result[0].probability)


def test_what_a_plan_predicted_is_put_beside_what_happened(make, observed):
    """With a budget and a known cost the ratio is recorded, and the prediction is on the span."""
    reranker = make("embedded")
    reranker.warm_up()
    result = reranker.rerank("red fox", PASSAGES * 5, budget_ms=60_000)
    assert result.predicted_s is not None
    (ratio,) = observed.points()["rerank.budget.prediction_ratio"]
    took = sum(one.seconds for one in result.timings if one.step == "stage")
    assert ratio.sum == pytest.approx(result.predicted_s / took)
    assert observed.attributes()["rerank.predicted_s"] == result.predicted_s
