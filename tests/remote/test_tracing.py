"""rerank_plugins.remote.tracing: the span of a remote call, and the trace it carries on."""

import pytest
from opentelemetry import context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from rerank_plugins import Reranker, Stage, semconv
from rerank_plugins.errors import ModelError
from rerank_plugins.remote.tracing import remote_call
from rerank_plugins.rules.residency import Destination
from rerank_plugins.scoring.lexical import LexicalScorer


class Calling(LexicalScorer):
    """A scorer that makes one remote call, or fails in it."""

    name = "calling"

    def __init__(self, error=None):
        self.error, self.sent = error, {}

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Open the call's span around the answer."""
        there = Destination("https://api.example:443", ("eu",), "attested")
        with remote_call("cohere", "rerank-v4.0", there, candidates=len(passages)) as call:
            self.sent = call.headers()
            if self.error is not None:
                raise self.error
            call.answered(200, {"x-total-time": "12", "x-secret": "no"})
            return await super().score(query, passages, state=state, deadline_s=deadline_s)


@pytest.fixture
def exporter():
    """Collect spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter):
    """Return a provider that exports to `exporter`."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def spans(exporter):
    """Return finished spans by name."""
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_call_is_a_client_span_under_its_request(exporter, tracer_provider):
    """Its attributes are the table's; the other side's timing headers are recorded."""
    with Reranker(stages=[Stage(Calling())], tracer_provider=tracer_provider) as reranker:
        reranker.rerank("red fox", ["a red fox", "a blue hen"])
    call, root = spans(exporter)["rerank.remote"], spans(exporter)["rerank calling"]
    assert call.kind is SpanKind.CLIENT
    assert call.parent.span_id == root.context.span_id
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "cohere",
        "gen_ai.request.model": "rerank-v4.0",
        "server.address": "api.example",
        "server.port": 443,
        "rerank.destination": "https://api.example:443",
        "rerank.destination.regions": ("eu",),
        "rerank.destination.proof": "attested",
        "rerank.candidates": 2,
        "http.response.status_code": 200,
        "rerank.remote.timing.x-total-time": "12",
    }
    documented = {one.name for one in semconv.ATTRIBUTES}
    indexed = {name.split(".x-")[0] for name in call.attributes}
    assert indexed <= documented


def test_the_calls_headers_carry_its_own_span(exporter, tracer_provider):
    """The traceparent names the call's span, so that the other side nests under it."""
    scorer = Calling()
    with Reranker(stages=[Stage(scorer)], tracer_provider=tracer_provider) as reranker:
        reranker.rerank("red fox", ["a red fox"])
    context = spans(exporter)["rerank.remote"].context
    assert scorer.sent["traceparent"].startswith(
        f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    )


def test_a_failed_call_is_marked_by_the_errors_class_alone(exporter, tracer_provider):
    """Status and error.type, no message: it may quote what was sent."""
    scorer = Calling(error=TimeoutError("secret"))
    with (
        Reranker(stages=[Stage(scorer)], tracer_provider=tracer_provider, strict=True) as reranker,
        pytest.raises(ModelError),
    ):
        reranker.rerank("red fox", ["a red fox"])
    call = spans(exporter)["rerank.remote"]
    assert call.status.status_code is StatusCode.ERROR
    assert call.attributes["error.type"] == "TimeoutError"
    assert "secret" not in call.to_json()


def test_without_an_sdk_a_call_costs_and_sends_nothing():
    """No provider: no headers, and the caller's context is left as it was."""
    with remote_call("tei", "model", Destination("http://[::1]:8080"), candidates=1) as call:
        assert call.headers() == {}
        call.answered(503, {})
    assert not get_current_span().get_span_context().is_valid


def test_the_state_of_a_trace_stays_here(tracer_provider):
    """`tracestate` is what other vendors noted of the request: it is nobody else's."""
    state = TraceState([("vendor", "customer-jane")])
    parent = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    scorer = Calling()
    token = context.attach(set_span_in_context(NonRecordingSpan(parent)))
    with Reranker(stages=[Stage(scorer)], tracer_provider=tracer_provider) as reranker:
        reranker.rerank("red fox", ["a red fox"])
    context.detach(token)
    assert set(scorer.sent) == {"traceparent"}
