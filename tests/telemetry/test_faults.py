"""Broken telemetry never slows or fails a request."""

import logging
import threading
import time

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import TracerProvider as AbstractTracerProvider
from opentelemetry.trace import get_current_span

from rerank_plugins import Reranker, load

PASSAGES = ["a blue hen", "a red fox", "the red fox and the blue hen"]


class RaisingProcessor(SpanProcessor):
    """A span processor that raises wherever it can."""

    def on_start(self, span, parent_context=None):
        """Fail."""
        raise RuntimeError("on_start")

    def on_end(self, span):
        """Fail."""
        raise RuntimeError("on_end")


class RaisingOnEnd(RaisingProcessor):
    """A span processor that raises only when a span ends."""

    def on_start(self, span, parent_context=None):
        """Do nothing."""


class RaisingExporter(SpanExporter):
    """An exporter that raises."""

    def export(self, spans):
        """Fail."""
        raise RuntimeError("export")


class HangingExporter(SpanExporter):
    """An exporter that waits for a signal that does not come in time."""

    def __init__(self):
        self.called, self.go = threading.Event(), threading.Event()

    def export(self, spans):
        """Hang."""
        self.called.set()
        self.go.wait(60)
        return SpanExportResult.SUCCESS


class RaisingSampler(Sampler):
    """A sampler that raises."""

    def should_sample(self, *args, **kwargs):
        """Fail."""
        raise RuntimeError("should_sample")

    def get_description(self):
        """Name it."""
        return "raising"


class RaisingTracerProvider(AbstractTracerProvider):
    """A provider whose tracers raise."""

    def get_tracer(self, *args, **kwargs):
        """Give something that is no tracer at all."""
        return object()


def provider(processor=None, sampler=None):
    """Give a tracer provider with one processor."""
    made = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    if processor is not None:
        made.add_span_processor(processor)
    return made


@pytest.mark.parametrize(
    "make_provider",
    [
        pytest.param(lambda: provider(RaisingProcessor()), id="processor"),
        pytest.param(lambda: provider(RaisingOnEnd()), id="processor-on-end"),
        pytest.param(lambda: provider(SimpleSpanProcessor(RaisingExporter())), id="exporter"),
        pytest.param(lambda: provider(sampler=RaisingSampler()), id="sampler"),
        pytest.param(RaisingTracerProvider, id="tracer"),
    ],
)
def test_whatever_raises_in_tracing_stays_there(make_provider, caplog):
    """Requests answer as without telemetry, and the first failure is logged once as a warning."""
    with Reranker("lexical") as plain:
        expected = plain.rerank("red fox", PASSAGES)
    caplog.set_level(logging.WARNING, logger="rerank_plugins")
    with Reranker("lexical", tracer_provider=make_provider()) as reranker:
        for _ in range(3):
            result = reranker.rerank("red fox", PASSAGES)
            assert (result.order, result.degraded) == (expected.order, False)
    ours = [one for one in caplog.records if one.name == "rerank_plugins"]
    assert len(ours) <= 1
    assert not get_current_span().get_span_context().is_valid


def test_a_raising_meter_stays_there(caplog):
    """A meter provider that breaks at use costs the metrics and nothing else."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    with Reranker("lexical", meter_provider=meters) as reranker:
        reranker._telemetry.instruments._recorders.clear()
        caplog.set_level(logging.WARNING, logger="rerank_plugins")
        assert len(reranker.rerank("red fox", PASSAGES)) == 3
    assert [one.getMessage() for one in caplog.records] == [
        "telemetry failed with KeyError; requests go on"
    ]


def test_errors_of_the_request_itself_are_untouched_by_broken_telemetry():
    """The caller sees its own error, not telemetry's."""
    with (
        Reranker("lexical", tracer_provider=provider(RaisingProcessor())) as reranker,
        pytest.raises(ValueError, match="query"),
    ):
        reranker.rerank(" ", PASSAGES)


def test_a_hanging_exporter_and_a_full_queue_slow_nothing():
    """With export stuck and the span queue full, requests take as long as without telemetry."""
    exporter = HangingExporter()
    processor = BatchSpanProcessor(
        exporter, max_queue_size=8, max_export_batch_size=4, schedule_delay_millis=10
    )
    logging.getLogger("opentelemetry.sdk").setLevel(logging.CRITICAL)
    try:
        with Reranker("lexical", tracer_provider=provider(processor)) as reranker:
            for _ in range(5):
                reranker.rerank("red fox", PASSAGES)
            assert exporter.called.wait(10)
            started = time.monotonic()
            for _ in range(100):
                assert not reranker.rerank("red fox", PASSAGES).degraded
            assert time.monotonic() - started < 10.0
            assert not exporter.go.is_set()
    finally:
        exporter.go.set()
        processor.shutdown()
        logging.getLogger("opentelemetry.sdk").setLevel(logging.NOTSET)


def test_a_slow_log_handler_that_raises_stays_there(monkeypatch):
    """A logging handler of the user's that fails does not reach the caller."""

    class Raising(logging.Handler):
        def emit(self, record):
            raise RuntimeError("emit")

    handler = Raising()
    logger = logging.getLogger("rerank_plugins.slow")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    settings = {"stages": [{"scorer": "lexical"}], "telemetry": {"slow_ms": 0.0}}
    with load(settings) as reranker:
        assert len(reranker.rerank("red fox", PASSAGES)) == 3
