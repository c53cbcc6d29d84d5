"""One request under observation: its root span from submission to answer, then all it left behind.

Nothing here may fail or change a request: whatever goes wrong in a tracer, a span processor, an
exporter or a user's hook is caught, said once, and forgotten.
"""

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
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
from ..quality.guard import Guard
from ..records import Request, Result
from ..remote.tracing import with_tracer
from ..scoring import Breakable, Scorer, Sends
from . import slow_log, spans
from .metrics import Instruments
from .options import Redact, TelemetryOptions, content

_LOG = logging.getLogger(semconv.SCOPE)


class Telemetry:
    """What a reranker tells about its requests, through OpenTelemetry's API.

    Without an SDK all of it is next to free. `redact` rewrites every text before it is written,
    where content is written at all. Reads the environment once, here.
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
        # A caller of nothing but remote models is their client; anything else happens in here.
        remote_only = all(isinstance(stage, Sends) for stage in stages)
        self._kind = SpanKind.CLIENT if remote_only else SpanKind.INTERNAL
        self._said = False
        self._guard = guard
        self._told = 0

    @contextmanager
    def request(
        self, request: Request, *, top_k: int | None, budget_s: float | None
    ) -> Iterator["Trace"]:
        """Start a request's span, current inside; an error that is raised ends it."""
        started_ns = time.time_ns()
        span: Span = INVALID_SPAN
        try:
            attributes = {
                **self._fixed,
                **spans.at_start(request, top_k=top_k, budget_s=budget_s),
            }
            if otel_context.get_value(semconv.COUNTED):
                attributes[semconv.OI_KIND] = "CHAIN"
            span = self.tracer.start_span(
                f"{semconv.OPERATION} {self.model}",
                kind=self._kind,
                attributes=attributes,
                start_time=started_ns,
            )
        except Exception as error:  # noqa: BLE001 - a broken tracer must not break a request
            self.say(error)
        context = otel_context.get_current()
        if span is not INVALID_SPAN:
            context = with_tracer(self.tracer, set_span_in_context(span, context))
        trace = Trace(self, request, span, context, budget_s=budget_s, started_ns=started_ns)
        token = otel_context.attach(context)
        try:
            yield trace
        except Exception as error:
            trace.end(error=error)
            raise
        finally:
            otel_context.detach(token)

    def audited(self, loss: float, care: float) -> None:
        """Record an audit of the exits."""
        try:
            self.instruments.audited(loss, care, self.model)
        except Exception as error:  # noqa: BLE001 - what telemetry breaks stays in telemetry
            self.say(error)

    def feedback(self, score: float) -> None:
        """Enter what an evaluator downstream said about an answer."""
        try:
            model = {semconv.REQUEST_MODEL: self.model}
            self.instruments.feedback(score, model, otel_context.get_current())
        except Exception as error:  # noqa: BLE001 - what telemetry breaks stays in telemetry
            self.say(error)

    def watched(self, context: Context) -> None:
        """Tell where the guard stands, once for each time it changed."""
        if self._guard is None or self._guard.state.version == self._told:
            return
        state = self._guard.state
        self._told = state.version
        self.instruments.guard(state, {semconv.REQUEST_MODEL: self.model}, context)

    def say(self, error: Exception) -> None:
        """Report what broke: the first time for all to see, then only for those who look."""
        level = logging.DEBUG if self._said else logging.WARNING
        self._said = True
        _LOG.log(level, "telemetry failed with %s; requests go on", type(error).__name__)


class Trace:
    """The span of one request and what is recorded when it ends; it ends once."""

    def __init__(
        self,
        telemetry: Telemetry,
        request: Request,
        span: Span,
        context: Context,
        *,
        budget_s: float | None,
        started_ns: int,
    ) -> None:
        self._telemetry = telemetry
        self._request = request
        self._span = span
        self._context = context
        self._budget_s = budget_s
        self._started_ns = started_ns
        self._started_s = telemetry.clock()
        self._lock = threading.Lock()
        self._ended = False

    async def observe(self, answer: Callable[[], Awaitable[Result]]) -> Result:
        """Await an answer and end the span with it, before anyone can see the result."""
        try:
            result = await answer()
        except Exception as error:
            self.end(error=error)
            raise
        self.end(result)
        return result

    def watch(self, future: Future[Result]) -> Future[Result]:
        """End the span with the future, for requests that end without running to their end."""
        future.add_done_callback(self._on_done)
        return future

    def end(self, result: Result | None = None, *, error: BaseException | None = None) -> None:
        """Record everything and end the span; later calls do nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        seconds = self._telemetry.clock() - self._started_s
        for record in (self._describe, self._measure, self._log_slow):
            try:
                record(result, error, seconds)
            except Exception as failure:  # noqa: BLE001 - what telemetry breaks stays in telemetry
                self._telemetry.say(failure)
        try:
            self._span.end()
        except Exception as failure:  # noqa: BLE001 - as above
            self._telemetry.say(failure)

    def _on_done(self, future: Future[Result]) -> None:
        if future.cancelled():
            self.end(error=CancelledError())
            return
        error = future.exception()
        self.end(None if error is not None else future.result(), error=error)

    def _describe(
        self, result: Result | None, error: BaseException | None, _seconds: float
    ) -> None:
        span = self._span
        if not span.is_recording():
            return
        if result is None:
            span.set_attribute(semconv.OUTCOME, _outcome(error))
            span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
            # The name alone: a message may quote the caller's text.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            return
        span.set_attributes(spans.at_end(result))
        if self._telemetry.content is not None:
            content = spans.of_content(self._telemetry.content, self._request, result.hits)
            span.set_attributes(content)
        for child in spans.children(result):
            self._draw(child)

    def _draw(self, child: spans.Child) -> None:
        span = self._telemetry.tracer.start_span(
            child.name,
            context=self._context,
            attributes=child.attributes,
            start_time=self._started_ns + int(child.start_s * 1e9),
        )
        if child.error is not None:
            span.set_status(Status(StatusCode.ERROR, child.error))
        span.end(self._started_ns + int(child.end_s * 1e9))

    def _measure(self, result: Result | None, error: BaseException | None, seconds: float) -> None:
        attributes = {semconv.REQUEST_MODEL: self._telemetry.model}
        if result is None:
            attributes |= {semconv.OUTCOME: _outcome(error)}
            attributes |= {semconv.ERROR_TYPE: type(error).__name__}
        else:
            attributes |= {semconv.OUTCOME: "degraded" if result.degraded else "ok"}
        instruments = self._telemetry.instruments
        instruments.request(
            seconds,
            attributes,
            candidates=len(self._request.candidates),
            tokens=0 if result is None else result.usage.tokens,
            context=self._context,
        )
        instruments.breakers(self._telemetry.breakable, self._context)
        self._telemetry.watched(self._context)
        if result is not None:
            instruments.result(result, budget_s=self._budget_s, context=self._context)

    def _log_slow(
        self, result: Result | None, _error: BaseException | None, seconds: float
    ) -> None:
        threshold_s = self._telemetry.options.slow_s
        if result is not None and threshold_s is not None and seconds >= threshold_s:
            slow_log.log(
                result,
                seconds=seconds,
                candidates=len(self._request.candidates),
                threshold_s=threshold_s,
            )


def _release() -> str:
    """Give the installed version, "" where the package runs from a bare folder."""
    try:
        return version("rerank-plugins")
    except PackageNotFoundError:
        return ""


def _outcome(error: BaseException | None) -> str:
    return "cancelled" if isinstance(error, CancelledError) else "error"
