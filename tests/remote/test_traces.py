"""A remote call in a trace: its span, the trace carried on, the far side, the breaker."""

import asyncio
import json

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rerank_plugins import Policy, Reranker, Stage
from rerank_plugins.core.setup import Setup
from rerank_plugins.remote.audit_log import AuditLog
from rerank_plugins.remote.resilience import BreakerOptions
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.serving import PASSAGES, QUERY, SECRET, options


@pytest.fixture
def exporter():
    """Collect spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def observed(exporter):
    """Return a function that opens a reranker on a fake server, seen by `exporter`."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def build(server, provider_name="tei", *, fallback=False, **changes):
        stages = [Stage(RemoteScorer(options(server, provider_name, **changes)))]
        if fallback:
            stages.append(Stage(LexicalScorer(), when="fallback"))
        return Reranker(stages=stages, policy=Policy(("on-prem",)), tracer_provider=provider)

    yield build
    provider.shutdown()


def named(exporter, name):
    """Return the spans of one name, in the order they ended."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_remote_request_is_one_trace_that_goes_on_at_the_other_side(exporter, observed):
    """Request, call and the server's traceparent form one chain; its times are recorded."""
    with FakeRerankServer("tei") as server, observed(server) as reranker:
        reranker.rerank(QUERY, PASSAGES)
        sent = server.requests[0].headers
    (call,), (root,) = named(exporter, "rerank.remote"), named(exporter, "rerank tei/some-model")
    assert (root.kind, call.kind) == (SpanKind.CLIENT, SpanKind.CLIENT)
    assert call.parent.span_id == root.context.span_id
    trace_id, span_id = sent["traceparent"].split("-")[1:3]
    assert (int(trace_id, 16), int(span_id, 16)) == (call.context.trace_id, call.context.span_id)
    assert call.attributes["server.address"] == "127.0.0.1"
    assert call.attributes["rerank.remote.timing.x-inference-time"] == "8"
    assert call.attributes["rerank.candidates"] == len(PASSAGES)
    assert root.attributes["rerank.remote_calls"] == 1
    assert root.attributes["rerank.destinations"] == (server.url,)
    assert root.attributes["rerank.policy.regions"] == ("on-prem",)


def test_the_stage_is_one_score_span_that_holds_its_calls(exporter, observed):
    """What the far side timed itself is no step of ours: one score span covers the stage."""
    with FakeRerankServer("tei") as server, observed(server) as reranker:
        reranker.rerank(QUERY, PASSAGES)
    steps = [span.name for span in exporter.get_finished_spans() if span.parent is not None]
    assert sorted(steps) == ["rerank.fuse", "rerank.remote", "rerank.score", "rerank.select"]
    (score,), (root,) = named(exporter, "rerank.score"), named(exporter, "rerank tei/some-model")
    assert score.end_time <= root.end_time


def test_every_attempt_has_its_span_with_its_status(exporter, observed):
    """A refused call and its retry are two spans, the first marked with its status."""
    faults = [Fault.UNAVAILABLE]
    with FakeRerankServer("cohere", faults=faults) as server, observed(server, "cohere") as one:
        asyncio.run(one.arerank(QUERY, PASSAGES))
    first, second = named(exporter, "rerank.remote")
    assert first.attributes["error.type"] == "503"
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is StatusCode.UNSET
    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == 1


def test_neither_key_nor_text_nor_baggage_is_on_a_span_or_sent_along(exporter, observed):
    """Spans hold no secret; the caller's baggage stays at home."""
    token = context.attach(baggage.set_baggage("tenant", "secret-tenant"))
    try:
        with FakeRerankServer("cohere") as server, observed(server, "cohere") as reranker:
            reranker.rerank(QUERY, PASSAGES)
            assert "baggage" not in server.requests[0].headers
    finally:
        context.detach(token)
    exported = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert SECRET not in exported
    assert QUERY not in exported
    assert PASSAGES[1] not in exported


def test_the_breakers_state_is_a_gauge():
    """After failures enough the destination's gauge says open, and the fallback is counted."""
    reader = InMemoryMetricReader()
    changes = {"breaker": BreakerOptions(failures=1, rest_s=600.0), "retries": 0}
    with FakeRerankServer("cohere", faults=lambda _: Fault.SERVER_ERROR) as server:
        remote = RemoteScorer(options(server, "cohere", **changes))
        stages = [Stage(remote), Stage(LexicalScorer(), when="fallback")]
        meters = MeterProvider([reader])
        with Reranker(stages=stages, meter_provider=meters) as reranker:
            reranker.rerank(QUERY, PASSAGES)
    points = {
        metric.name: list(metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    (breaker,) = points["rerank.breaker.state"]
    assert (breaker.value, dict(breaker.attributes)) == (2, {"rerank.destination": server.url})
    codes = {one.attributes["rerank.decision"]: one.value for one in points["rerank.decisions"]}
    assert codes["fallback"] == len(PASSAGES)
    (fallback,) = points["rerank.fallback.state"]
    assert fallback.value == 1
    meters.shutdown()


def test_the_fallbacks_state_is_a_gauge():
    """0 while the regular stages answer, 1 while a fallback does, 2 while nothing scores."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    found = []
    faults = [None, Fault.FORBIDDEN, Fault.FORBIDDEN, None]
    with FakeRerankServer("cohere", faults=faults) as server:
        for fallback in ((True,), (True,), (), (True,)):
            stages = [Stage(RemoteScorer(options(server, "cohere")))]
            stages += [Stage(LexicalScorer(), when="fallback") for _ in fallback]
            with Reranker(stages=stages, meter_provider=meters) as reranker:
                reranker.rerank(QUERY, PASSAGES)
            found += [
                point.value
                for resource in reader.get_metrics_data().resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.name == "rerank.fallback.state"
                for point in metric.data.data_points
                if point.attributes["gen_ai.request.model"] == reranker.model
            ][-1:]
    assert found == [0, 1, 2, 0]
    meters.shutdown()


def test_spans_and_the_audit_say_the_same_of_where_text_went(exporter, tmp_path):
    """Region, proof, destination, policy and request: one story in the trace and in the file."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    policy = Policy(("on-prem", "fr"), audit=tmp_path / "audit.jsonl")
    with FakeRerankServer("cohere") as server:
        stages = (Stage(RemoteScorer(options(server, "cohere", region="fr"))),)
        setup = Setup(stages, policy=policy, audit=AuditLog(policy.audit))
        with Reranker(setup, tracer_provider=provider) as reranker:
            reranker.rerank(QUERY, PASSAGES, strict=True)
    provider.shutdown()
    (record,) = map(json.loads, policy.audit.read_text().splitlines())
    (call,), (root,) = named(exporter, "rerank.remote"), named(exporter, "rerank cohere/some-model")
    assert call.attributes["rerank.destination"] == record["destination"] == server.url
    assert list(call.attributes["rerank.destination.regions"]) == record["regions"]
    assert record["regions"] == ["on-prem", "fr"]
    assert call.attributes["rerank.destination.proof"] == record["proof"] == "attested"
    assert call.attributes["rerank.candidates"] == record["texts"] == len(PASSAGES)
    assert root.attributes["rerank.request_id"] == record["request_id"]
    assert list(root.attributes["rerank.policy.regions"]) == record["policy"]
    assert root.attributes["rerank.destinations"] == (record["destination"],)
    assert f"send:sent:{record['texts']}" in root.attributes["rerank.decisions"]
