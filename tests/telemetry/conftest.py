"""A reranker whose spans and metrics can be read back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rerank_plugins import Reranker


@dataclass
class Observed:
    """Providers with an SDK behind them, and what arrived there."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Give the spans that ended, or those of one name."""
        spans = self.exporter.get_finished_spans()
        return [span for span in spans if name is None or span.name == name]

    def root(self) -> ReadableSpan:
        """Give the one request span."""
        (root,) = [span for span in self.spans() if span.name.startswith("rerank ")]
        return root

    def attributes(self) -> dict[str, object]:
        """Give the request span's attributes."""
        return dict(self.root().attributes or {})

    def points(self) -> dict[str, list[object]]:
        """Give every metric's data points."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def observed() -> Iterator[Observed]:
    """Collect spans and metrics in memory."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider([reader])
    yield Observed(tracer_provider, meter_provider, exporter, reader)
    tracer_provider.shutdown()
    meter_provider.shutdown()


@pytest.fixture
def make(observed: Observed) -> Iterator[Callable[..., Reranker]]:
    """Build rerankers that report to `observed`, closed at the end."""
    made: list[Reranker] = []

    def build(model: object = None, **options: object) -> Reranker:
        given = () if model is None and "stages" in options else (model or "lexical",)
        reranker = Reranker(
            *given,
            tracer_provider=observed.tracer_provider,
            meter_provider=observed.meter_provider,
            **options,
        )
        made.append(reranker)
        return reranker

    yield build
    for reranker in made:
        reranker.close()
