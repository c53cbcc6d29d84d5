"""The root span of a request, and what is recorded when the request ends.

Nothing here may fail or change a request: an error of a tracer, a span processor, an exporter or a
user's hook is caught and logged.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider, get_meter
from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_tracer,
    set_span_in_context,
)

from .. import semconv
from ..errors import FailureLog
from ..quality.guard.guard import Guard
from ..records import Request, Result
from ..remote.tracing import with_tracer
from ..scoring import Breakable, Scorer, Sends
from . import slow_log, spans
from .metrics import Instruments
from .options import Redact, TelemetryOptions, content


class Telemetry:
    """What a reranker records about its requests, through OpenTelemetry's API.

    Without an SDK this costs almost nothing. `redact` rewrites every text before it is written to a
    span. The environment is read once, here.
    """

    def __init__(
        self,
        options: TelemetryOptions,
        *,
        stages: Sequence[Scorer],
        regions: Sequence[str] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        redact: Redact | None = None,
        guard: Guard | None = None,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.content = content(options, environment, redact)
        self.clock = clock
        self.model = " > ".join(stage.name for stage in stages)
        if not options.enabled:
            tracer_provider, meter_provider = NoOpTracerProvider(), NoOpMeterProvider()
        release = _release()
        self.tracer = get_tracer(semconv.SCOPE, release, tracer_provider=tracer_provider)
        meter = get_meter(semconv.SCOPE, release, meter_provider=meter_provider)
        self.instruments = Instruments(meter)
        self.breakable = [stage for stage in stages if isinstance(stage, Breakable)]
        self._fixed = spans.fixed(stages, regions)
        # With remote stages alone, this process is only their client.
        remote_only = all(isinstance(stage, Sends) for stage in stages)
        self._kind = SpanKind.CLIENT if remote_only else SpanKind.INTERNAL
        self.failures = FailureLog(
            logging.getLogger(semconv.SCOPE), "telemetry failed with %s; requests go on"
        )
        self._guard = guard
        self._guard_version = 0

    @contextmanager
    def request(
        self, request: Request, *, top_k: int | None, budget_s: float | None
    ) -> Iterator["Trace"]:
        """Start a request's span and make it the current one; an error in the block ends it."""
        started_ns = time.time_ns()
        span: Span = INVALID_SPAN
        with self.failures:
            attributes = self._fixed | spans.at_start(request, top_k=top_k, budget_s=budget_s)
            if otel_context.get_value(semconv.COUNTED):
                attributes[semconv.OI_KIND] = "CHAIN"
            span = self.tracer.start_span(
                f"{semconv.OPERATION} {self.model}",
                kind=self._kind,
                attributes=attributes,
                start_time=started_ns,
            )
        context = otel_context.get_current()
        if span is not INVALID_SPAN:
            context = with_tracer(self.tracer, set_span_in_context(span, context))
        trace = Trace(self, request, span, context, budget_s, started_ns, self.clock())
        token = otel_context.attach(context)
        try:
            yield trace
        except Exception as error:
            trace.end(error=error)
            raise
        finally:
            otel_context.detach(token)

    def on_audit(self, loss: float, margin_factor: float) -> None:
        """Record what an audit of the exits found, and the factor on the margins it led to."""
        with self.failures:
            self.instruments.audit(loss, margin_factor, self.model)

    def feedback(self, score: float) -> None:
        """Record the score in [0, 1] of an answer, given by an evaluator downstream."""
        with self.failures:
            model = {semconv.REQUEST_MODEL: self.model}
            self.instruments.feedback(score, model, otel_context.get_current())

    def record_guard(self, context: Context) -> None:
        """Record the guard's state, if it changed since the last call."""
        if self._guard is None or self._guard.state.version == self._guard_version:
            return
        state = self._guard.state
        self._guard_version = state.version
        self.instruments.guard(state, {semconv.REQUEST_MODEL: self.model}, context)


@dataclass(slots=True, eq=False)
class Trace:
    """The span of one request. It ends once, and everything is recorded at its end.

    started_ns: since the epoch, as spans have it
    started_s: by the telemetry's clock, which measures durations
    """

    telemetry: Telemetry
    request: Request
    span: Span
    context: Context
    budget_s: float | None
    started_ns: int
    started_s: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False

    def end_with(self, future: Future[Result]) -> Future[Result]:
        """End the span with the future, in case the request is cancelled or never starts."""
        future.add_done_callback(self._on_done)
        return future

    def end(self, result: Result | None = None, *, error: BaseException | None = None) -> None:
        """Record everything and end the span; later calls do nothing."""
        with self.lock:
            if self.ended:
                return
            self.ended = True
        seconds = self.telemetry.clock() - self.started_s
        failures = self.telemetry.failures
        for record in (self._describe, self._measure, self._log_slow):
            with failures:
                record(result, error, seconds)
        with failures:
            self.span.end()

    def _on_done(self, future: Future[Result]) -> None:
        if future.cancelled():
            self.end(error=CancelledError())
            return
        error = future.exception()
        self.end(None if error is not None else future.result(), error=error)

    def _describe(
        self, result: Result | None, error: BaseException | None, _seconds: float
    ) -> None:
        span = self.span
        if not span.is_recording():
            return
        if result is None:
            span.set_attributes(spans.outcome(result, error))
            # Only the name: a message may quote the caller's text.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            return
        span.set_attributes(spans.at_end(result))
        if self.telemetry.content is not None:
            content = spans.of_content(self.telemetry.content, self.request, result.hits)
            span.set_attributes(content)
        for child in spans.children(result):
            self._draw(child)

    def _draw(self, child: spans.Child) -> None:
        span = self.telemetry.tracer.start_span(
            child.name,
            context=self.context,
            attributes=child.attributes,
            start_time=self.started_ns + int(child.start_s * 1e9),
        )
        if child.error is not None:
            span.set_status(Status(StatusCode.ERROR, child.error))
        span.end(self.started_ns + int(child.end_s * 1e9))

    def _measure(self, result: Result | None, error: BaseException | None, seconds: float) -> None:
        attributes = {semconv.REQUEST_MODEL: self.telemetry.model, **spans.outcome(result, error)}
        instruments = self.telemetry.instruments
        instruments.request(
            seconds,
            attributes,
            candidates=len(self.request.candidates),
            tokens=0 if result is None else result.usage.tokens,
            context=self.context,
        )
        instruments.breakers(self.telemetry.breakable, self.context)
        self.telemetry.record_guard(self.context)
        if result is not None:
            instruments.result(result, budget_s=self.budget_s, context=self.context)

    def _log_slow(
        self, result: Result | None, _error: BaseException | None, seconds: float
    ) -> None:
        threshold_s = self.telemetry.options.slow_s
        if result is not None and threshold_s is not None and seconds >= threshold_s:
            slow_log.log(
                result,
                seconds=seconds,
                candidates=len(self.request.candidates),
                threshold_s=threshold_s,
            )


def _release() -> str:
    """Return the installed version, or "" where the package is not installed."""
    try:
        return version("rerank-plugins")
    except PackageNotFoundError:
        return ""
