"""rerank_plugins.telemetry: one connected trace per request, and the attributes it carries."""

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from rerank_plugins import Candidate, Reranker, RerankError, Stage, load, semconv
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ClosedError, InvalidRequest, ModelError, Overloaded
from rerank_plugins.records import Budget, Request
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.scoring.runtime.jobs import Job, run_jobs

PASSAGES = ["a blue hen", "a red fox", "", "a red fox", "the red fox and the blue hen"]
STEPS = ["rerank.select", "rerank.tokenise", "rerank.score", "rerank.fold", "rerank.fuse"]


class Broken(LexicalScorer):
    """A scorer that cannot serve."""

    name = "broken"

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Fail, quoting the query."""
        raise ModelError(f"no weights for {query!r}")


class Watching(LexicalScorer):
    """A scorer that notes which span is current while it runs, in its step and in its jobs."""

    name = "watching"

    def __init__(self):
        self.seen = []

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score, noting the span before and inside a job."""
        self._note()
        await run_jobs([Job(self._note, tokens=1)])
        return await super().score(query, passages, state=state, deadline_s=deadline_s)

    def _note(self):
        self.seen.append((threading.current_thread().name, get_current_span()))


class Blocked(LexicalScorer):
    """A scorer whose job waits for a signal."""

    name = "blocked"

    def __init__(self):
        self.started, self.go = threading.Event(), threading.Event()

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score once the signal is there."""
        await run_jobs([Job(self._block, tokens=1)])
        return await super().score(query, passages, state=state, deadline_s=deadline_s)

    def _block(self):
        self.started.set()
        self.go.wait(30)


def request_attributes():
    """Give the table's attributes that every local request's span carries."""
    absent = {
        *(semconv.BUDGET, semconv.REGIONS, semconv.DESTINATIONS, semconv.ERROR_TYPE),
        *(semconv.REMOTE_CALLS, semconv.BILLED, semconv.PREDICTED),
    }
    return {
        one.name
        for one in semconv.ATTRIBUTES
        if one.spans.startswith("root") and one.when != "content"
    } - absent


def test_the_request_span_carries_the_attribute_table(make, observed):
    """A local request's span has exactly the documented attributes, with the documented types."""
    result = make("embedded").rerank("red fox", PASSAGES, top_k=2)
    attributes = observed.attributes()
    assert set(attributes) == request_attributes()
    assert attributes | {} == attributes | {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "rerank_plugins",
        "gen_ai.request.model": "embedded",
        "gen_ai.rerank.candidate.count": 5,
        "gen_ai.rerank.top_n": 2,
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": "embedded",
        "reranker.top_k": 2,
        "rerank.candidates": 5,
        "rerank.depth": 3,
        "rerank.returned": 2,
        "rerank.outcome": "ok",
        "rerank.degraded": False,
        "rerank.stages": ("embedded",),
        "rerank.request_id": result.request_id,
        "rerank.pairs": result.usage.pairs,
        "rerank.tokens": result.usage.tokens,
        "rerank.decisions": tuple(
            f"{one.step}:{one.code.code}:{one.count}" for one in result.decisions
        ),
    }
    kinds = {"string": str, "int": int, "double": float, "boolean": bool, "string[]": tuple}
    types = {one.name: kinds[one.type] for one in semconv.ATTRIBUTES if one.type in kinds}
    assert {name: type(value) for name, value in attributes.items()} == {
        name: types[name] for name in attributes
    }
    assert observed.root().kind is SpanKind.INTERNAL
    assert observed.root().status.status_code is StatusCode.UNSET


def test_every_span_of_a_request_is_its_child_and_lies_within_it(make, observed):
    """Steps are children of the request's span, in order, and end before it does."""
    make("embedded").rerank("red fox", PASSAGES)
    root, children = observed.root(), [s for s in observed.spans() if s.parent is not None]
    assert [one.name for one in children] == STEPS
    assert {one.parent.span_id for one in children} == {root.context.span_id}
    assert all(root.start_time <= one.start_time <= one.end_time for one in children)
    assert all(one.end_time <= root.end_time for one in children)


def test_every_span_and_attribute_is_in_the_table(make, observed):
    """No span, and no attribute of a step, is missing from the documented table."""
    stages = [Stage(Broken()), Stage(LexicalScorer(), keep=2), Stage(LexicalScorer())]
    make(stages=stages).rerank("red fox", PASSAGES, budget_ms=10_000)
    make("embedded").rerank("red fox", PASSAGES)
    documented = {one.name for one in semconv.ATTRIBUTES}
    names = {one.name for one in semconv.SPANS}
    for span in observed.spans():
        assert set(span.attributes) <= documented
        assert span.name in names or span.name.startswith("rerank ")


def test_a_score_span_carries_its_stages_own_counts(make, observed):
    """Micro-batches, pairs and tokens are counts on the stage's span, not spans."""
    result = make("embedded").rerank("red fox", PASSAGES)
    (score,) = observed.spans("rerank.score")
    assert score.attributes["rerank.stage"] == "embedded"
    assert score.attributes["rerank.batches"] == result.usage.batches
    assert score.attributes["rerank.pairs"] == result.usage.pairs == 3
    assert score.attributes["rerank.stage.candidates"] == 3
    assert score.attributes["rerank.stage.scored"] == 3


class Tiered(LexicalScorer):
    """A scorer that reports the steps of two tiers."""

    name = "tiered"

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score, with each step twice."""
        scored = await super().score(query, passages, state=state, deadline_s=deadline_s)
        return replace(scored, timings=scored.timings * 2)


def test_a_stage_scored_in_tiers_is_one_span_and_one_measurement(make, observed):
    """However many tiers: one score span with the stage's counts, one entry a step."""
    make(stages=[Stage(Tiered())]).rerank("red fox", PASSAGES)
    (score,) = observed.spans("rerank.score")
    assert score.attributes["rerank.stage.scored"] == 3
    counts = {
        one.attributes["rerank.step"]: one.count
        for one in observed.points()["rerank.step.duration"]
    }
    assert counts == {"select": 1, "score": 1, "fuse": 1}


def test_what_a_sampler_needs_is_there_when_the_span_starts(observed):
    """A sampler sees model, candidates, top_k and budget."""
    seen = {}

    class Curious(Sampler):
        def should_sample(self, parent_context, trace_id, name, *args, **kwargs):
            attributes = kwargs.get("attributes") or next(
                (one for one in args if isinstance(one, dict)), {}
            )
            seen.update({name: dict(attributes)})
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self):
            return "curious"

    with Reranker("lexical", tracer_provider=TracerProvider(sampler=Curious())) as reranker:
        reranker.rerank("red fox", PASSAGES, top_k=3, budget_ms=500)
    start = {
        one.name
        for one in semconv.ATTRIBUTES
        if one.when == "start" and one.spans.startswith("root")
    }
    assert set(seen["rerank lexical"]) == start - {semconv.REGIONS, semconv.DESTINATIONS}
    assert seen["rerank lexical"]["rerank.budget_s"] == 0.5


def test_the_span_is_current_in_steps_and_jobs_and_is_a_child_of_the_callers(make, observed):
    """Whatever a scorer traces nests under the request, and the request under its caller."""
    scorer = Watching()
    tracer = observed.tracer_provider.get_tracer("caller")
    with tracer.start_as_current_span("caller") as caller:
        make(stages=[Stage(scorer)]).rerank("red fox", PASSAGES)
        assert get_current_span() is caller
    root = observed.root()
    assert root.parent.span_id == caller.get_span_context().span_id
    assert [span.get_span_context() for _, span in scorer.seen] == [root.context] * 2
    assert all(thread.startswith("rerank-worker") for thread, _ in scorer.seen)


def test_asyncio_threads_and_executors_give_no_orphan_roots(make, observed):
    """Each request lands under the caller's span, whichever way it was called."""
    reranker = make("lexical")
    tracer = observed.tracer_provider.get_tracer("caller")

    async def main():
        with tracer.start_as_current_span("asyncio"):
            await asyncio.gather(
                *(reranker.arerank("red fox", PASSAGES) for _ in range(5)),
                asyncio.to_thread(reranker.rerank, "red fox", PASSAGES),
            )

    asyncio.run(main())

    def work(i):
        with tracer.start_as_current_span(f"thread {i}"):
            return reranker.rerank("red fox", PASSAGES)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    parents = {span.context.span_id: span for span in observed.spans() if span.parent is None}
    roots = [span for span in observed.spans() if span.name == "rerank lexical"]
    assert len(roots) == 14
    assert all(one.parent is not None and one.parent.span_id in parents for one in roots)
    assert len(parents) == 9


def test_the_span_ends_before_the_caller_sees_the_result(make, observed):
    """When `rerank` returns, its spans are already with the exporter."""
    reranker = make("lexical")
    for _ in range(50):
        observed.exporter.clear()
        reranker.rerank("red fox", PASSAGES)
        assert observed.root().end_time is not None


def test_a_failed_stage_is_marked_and_its_fallback_explained(make, observed):
    """The broken stage's span has status and error class; the answer of the next counts."""
    stages = [Stage(Broken()), Stage(LexicalScorer(), when="fallback")]
    make(stages=stages).rerank("red fox", PASSAGES)
    broken, lexical = observed.spans("rerank.score")
    assert broken.status.status_code is StatusCode.ERROR
    assert broken.attributes["error.type"] == "ModelError"
    assert lexical.status.status_code is StatusCode.UNSET
    assert observed.attributes()["rerank.outcome"] == "degraded"
    assert "score:stage_failed:3" in observed.attributes()["rerank.decisions"]
    assert lexical.start_time >= broken.end_time


def test_a_raised_error_ends_the_span_with_its_class_and_without_its_message(make, observed):
    """Strict failures mark the span; messages stay out, they may quote texts."""
    with pytest.raises(RerankError):
        make(stages=[Stage(Broken())], strict=True).rerank("secret query", PASSAGES)
    root = observed.root()
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes["error.type"] == "ModelError"
    assert root.attributes["rerank.outcome"] == "error"
    assert "secret" not in root.to_json()


def test_a_refused_request_ends_its_span(make, observed):
    """An invalid request is an error span of its own."""
    with pytest.raises(InvalidRequest):
        make("lexical").rerank("  ", PASSAGES)
    assert observed.attributes()["error.type"] == "InvalidRequest"


def test_a_cancelled_request_ends_its_span_as_cancelled(make, observed):
    """Cancelling before and while it runs ends each span once, with the outcome "cancelled"."""
    scorer = Blocked()
    reranker = make(stages=[Stage(scorer)], workers=1)
    request = Request("red fox", (Candidate("a red fox"),))
    running = reranker.submit(request)
    assert scorer.started.wait(10)
    waiting = reranker.submit(request)
    assert waiting.cancel()
    assert running.cancel()
    scorer.go.set()
    with pytest.raises(CancelledError):
        running.result(10)
    assert [one.attributes["rerank.outcome"] for one in observed.spans()] == ["cancelled"] * 2


def test_an_async_caller_that_gives_up_cancels_its_span(make, observed):
    """`asyncio.timeout` around `arerank` ends the span as cancelled, in the loop's own thread."""
    scorer = Blocked()
    reranker = make(stages=[Stage(scorer)], workers=1)

    async def impatient():
        async with asyncio.timeout(0.05):
            await reranker.arerank("red fox", PASSAGES)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    scorer.go.set()
    assert observed.attributes()["rerank.outcome"] == "cancelled"


def test_a_request_that_is_not_sampled_leaves_no_span_and_all_metrics(observed):
    """Sampled out: nothing is exported, children included; the duration is counted all the same."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(observed.exporter))
    with Reranker(
        "lexical", tracer_provider=provider, meter_provider=observed.meter_provider
    ) as reranker:
        reranker.rerank("red fox", PASSAGES)
    assert observed.spans() == []
    assert len(observed.points()["rerank.request.duration"]) == 1


def test_closing_ends_the_spans_of_requests_under_way(make, observed):
    """Requests that a closed reranker abandons end as errors."""
    scorer = Blocked()
    reranker = make(stages=[Stage(scorer)], workers=1)
    futures = [reranker.submit(Request("q", (Candidate("a"),))) for _ in range(2)]
    assert scorer.started.wait(10)
    threading.Timer(0.2, scorer.go.set).start()
    reranker.close()
    for future in futures:
        with pytest.raises(ClosedError):
            future.result(10)
    assert [one.attributes["error.type"] for one in observed.spans()] == ["ClosedError"] * 2


def test_an_overload_is_explained(make, observed):
    """A request that the full queue passes through has a degraded span; strict ones an error."""
    scorer = Blocked()
    full = make(Setup(stages=(Stage(scorer),), workers=1, max_requests=1))
    running = full.submit(Request("q", (Candidate("a"),)))
    full.rerank("q", ["a", "b"])
    assert "queue:overloaded:2" in observed.attributes()["rerank.decisions"]
    observed.exporter.clear()
    with pytest.raises(Overloaded):
        full.rerank("q", ["a", "b"], strict=True)
    assert observed.attributes()["error.type"] == "Overloaded"
    scorer.go.set()
    running.result(10)


def test_a_disabled_reranker_records_nothing(observed):
    """`enabled = false` leaves no span and no metric."""
    settings = {"stages": [{"scorer": "lexical"}], "telemetry": {"enabled": False}}
    providers = {
        "tracer_provider": observed.tracer_provider,
        "meter_provider": observed.meter_provider,
    }
    with load(settings, **providers) as reranker:
        reranker.rerank("red fox", PASSAGES)
    assert observed.spans() == []
    assert observed.points() == {}


def test_attributes_fit_the_sdks_limit_and_hold_no_numpy(make, observed):
    """Nothing is evicted at 100 candidates with a budget and three stages; values are plain."""
    stages = [Stage(LexicalScorer(), keep=50), Stage(LexicalScorer(), keep=20)]
    reranker = make(stages=[*stages, Stage(LexicalScorer())])
    request = Request(
        "red fox",
        tuple(Candidate(f"fox {i}", prior=float(-i)) for i in range(100)),
        budget=Budget(5.0),
    )
    reranker.submit(request).result()
    for span in observed.spans():
        assert span.dropped_attributes == 0
        assert len(span.attributes) <= 128
        assert not any(isinstance(value, np.generic) for value in span.attributes.values())
