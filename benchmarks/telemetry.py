"""What telemetry adds to a request of 40 candidates: `python benchmarks/telemetry.py`.

Times what is done around one real answer, for each way of being set up, and states it as a share
of the request. Needs the extra `otel`; export itself happens on the SDK's own thread.
"""

import statistics
import time
from collections.abc import Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from rerank_plugins import Candidate, Request, Reranker, Result
from rerank_plugins.telemetry import Telemetry, TelemetryOptions

CANDIDATES = 40
ROUNDS = 1000


class Nowhere(SpanExporter):
    """Takes spans and drops them: what is measured is the request, not the network."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Drop the spans."""
        del spans
        return SpanExportResult.SUCCESS


def around(telemetry: Telemetry, request: Request, result: Result) -> float:
    """Return the median seconds that observing one answered request takes."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with telemetry.request(request, top_k=10, budget_s=None) as trace:
            trace.end(result)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print one line per set-up."""
    text = "Foxes dig dens in dry soil at the edge of woods and line them with grass. " * 6
    request = Request(
        "where do foxes live",
        tuple(Candidate(f"{i}: {text}", prior=-float(i)) for i in range(CANDIDATES)),
        top_k=10,
    )
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=10 * ROUNDS))
    with Reranker() as reranker:
        reranker.warm_up()
        results = [reranker.submit(request).result() for _ in range(11)]
        stages = [stage.scorer for stage in reranker.setup.stages]
    totals = [next(one.seconds for one in r.timings if one.step == "total") for r in results]
    total_s = statistics.median(totals)
    print(f"one request of {CANDIDATES} candidates: {total_s * 1e3:.1f} ms")
    both = {"tracer_provider": tracers, "meter_provider": meters}
    cases = {
        "no SDK": Telemetry(TelemetryOptions(), stages=stages),
        "spans": Telemetry(TelemetryOptions(), stages=stages, tracer_provider=tracers),
        "metrics": Telemetry(TelemetryOptions(), stages=stages, meter_provider=meters),
        "spans and metrics": Telemetry(TelemetryOptions(), stages=stages, **both),
        "and content": Telemetry(TelemetryOptions(content=True), stages=stages, **both),
    }
    for name, telemetry in cases.items():
        seconds = around(telemetry, request, results[-1])
        print(f"{name:18} {seconds * 1e3:7.3f} ms {100 * seconds / total_s:6.2f} %")


if __name__ == "__main__":
    main()
