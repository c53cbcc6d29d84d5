"""What telemetry may cost: 0.3 ms a request with an SDK, next to nothing without."""

import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from rerank_plugins import Candidate, Request, Reranker
from rerank_plugins.telemetry import Telemetry, TelemetryOptions


class Nowhere(SpanExporter):
    """Drops spans."""

    def export(self, spans):
        """Drop them."""
        return SpanExportResult.SUCCESS


def least(telemetry, request, result, *, limit_s):
    """Give the least processor seconds of observing a request; stop at the first within."""
    least_s = float("inf")
    for _ in range(3000):
        started = time.thread_time()
        with telemetry.request(request, top_k=10, budget_s=None) as trace:
            trace.end(result)
        least_s = min(least_s, time.thread_time() - started)
        if least_s < limit_s:
            break
    return least_s


def test_observing_a_request_of_forty_stays_within_its_cost():
    """Spans and metrics with an SDK take <= 0.3 ms of the request's thread, <= 0.05 ms without."""
    request = Request("red fox", tuple(Candidate(f"fox {i}", prior=0.0) for i in range(40)))
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000))
    meters = MeterProvider([InMemoryMetricReader()])
    with Reranker() as reranker:
        result = reranker.submit(request).result()
        stages = [stage.scorer for stage in reranker.setup.stages]
        full = Telemetry(
            TelemetryOptions(), stages=stages, tracer_provider=tracers, meter_provider=meters
        )
        bare = Telemetry(TelemetryOptions(), stages=stages)
        assert least(full, request, result, limit_s=0.3e-3) <= 0.3e-3
        assert least(bare, request, result, limit_s=0.05e-3) <= 0.05e-3
    tracers.shutdown()
    meters.shutdown()
