"""The span of one remote call: live, so that HTTP client spans nest and trace context travels on.

A scorer wraps each attempt and sends `call.headers()` along with its own:

    with remote_call(Attempt("cohere", "rerank-v4.0", host="api.cohere.com")) as call:
        answer = await client.post(url, headers={**keys, **call.headers()}, ...)
        call.answered(answer.status_code, answer.headers)
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import semconv
from ..rules.residency import Destination

_TRACER = otel_context.create_key("rerank-tracer")
_ERRORS = 400


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a call, in words that are fit for spans: no path, no query, no key."""

    provider: str
    model: str
    host: str
    port: int | None = None
    candidates: int = 0
    destination: Destination | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One remote call under way."""

    span: Span

    def headers(self) -> dict[str, str]:
        """Give the headers that carry the trace on, none where there is no trace."""
        carrier: dict[str, str] = {}
        # Not the global propagator: baggage may hold what must not leave.
        TraceContextTextMapPropagator().inject(carrier)
        return carrier

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Record the answer's status and what it says about its own time."""
        if not self.span.is_recording():
            return
        self.span.set_attribute(semconv.HTTP_STATUS, status)
        for name in semconv.TIMING_HEADERS:
            value = headers.get(name)
            if value is not None:
                self.span.set_attribute(f"{semconv.REMOTE_TIMING}.{name}", value[:200])
        if status >= _ERRORS:
            self.span.set_attribute(semconv.ERROR_TYPE, str(status))
            self.span.set_status(Status(StatusCode.ERROR, str(status)))


@contextmanager
def remote_call(attempt: Attempt) -> Iterator[Call]:
    """Start a call's CLIENT span under the request's, current inside; an error marks it."""
    span = _start(attempt)
    token = otel_context.attach(set_span_in_context(span))
    try:
        yield Call(span)
    except BaseException as error:
        # The name alone: a message may quote what was sent.
        span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        otel_context.detach(token)
        _end(span)


def with_tracer(tracer: Tracer, context: Context) -> Context:
    """Give a context under which remote calls are traced by `tracer`."""
    return otel_context.set_value(_TRACER, tracer, context)


def _start(attempt: Attempt) -> Span:
    tracer = otel_context.get_value(_TRACER)
    if not isinstance(tracer, Tracer):
        tracer = get_tracer(semconv.SCOPE)
    try:
        return tracer.start_span(
            semconv.REMOTE_SPAN,
            kind=SpanKind.CLIENT,
            attributes={
                semconv.OPERATION_NAME: semconv.OPERATION,
                semconv.PROVIDER_NAME: attempt.provider,
                semconv.REQUEST_MODEL: attempt.model,
                semconv.SERVER_ADDRESS: attempt.host,
                semconv.CANDIDATES: attempt.candidates,
                **({} if attempt.port is None else {semconv.SERVER_PORT: attempt.port}),
                **_where(attempt.destination),
            },
        )
    except Exception:  # noqa: BLE001 - a broken tracer must not break a call
        return INVALID_SPAN


def _where(there: Destination | None) -> dict[str, str | tuple[str, ...]]:
    """Say what the audit record says of a destination."""
    if there is None:
        return {}
    return {
        semconv.DESTINATION: there.origin,
        semconv.DESTINATION_REGIONS: there.regions,
        semconv.DESTINATION_PROOF: there.proof,
    }


def _end(span: Span) -> None:
    with contextlib.suppress(Exception):  # as above; the request's own span reports it
        span.end()
