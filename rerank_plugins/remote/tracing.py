"""The span of one attempt of a remote call; HTTP client spans nest in it.

with remote_call("cohere", "rerank-v4.0", destination, candidates=3) as call:
    response = await client.post(url, headers={**keys, **call.headers()}, ...)
    call.answered(response.status_code, response.headers)
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

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
from opentelemetry.util.types import AttributeValue

from .. import semconv
from ..rules.residency import Destination

_TRACER = otel_context.create_key("rerank-tracer")
_ERRORS = 400
_READ_CHARS = 200
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_STEP = re.compile(r"([\w-]+);dur=(\d{1,12}(?:\.\d{1,9})?)(?![\w.])", re.ASCII)
_STEPS = frozenset(
    {"app", "cache", "compute", "edge", "inference", "origin", "queue", "tokenization", "total"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """A remote call under way."""

    span: Span

    def headers(self) -> dict[str, str]:
        """Return the headers that propagate the trace, none where there is no trace."""
        carrier: dict[str, str] = {}
        # Not the global propagator: baggage may hold data that must not leave, as may tracestate.
        TraceContextTextMapPropagator().inject(carrier)
        return {name: value for name, value in carrier.items() if name == "traceparent"}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Record the status of the response and its timing headers."""
        if not self.span.is_recording():
            return
        self.span.set_attribute(semconv.HTTP_STATUS, status)
        for name in semconv.TIMING_HEADERS:
            value = _times(headers.get(name, ""))
            if value:
                self.span.set_attribute(f"{semconv.REMOTE_TIMING}.{name}", value)
        if status >= _ERRORS:
            self.span.set_attribute(semconv.ERROR_TYPE, str(status))
            self.span.set_status(Status(StatusCode.ERROR, str(status)))


@contextmanager
def remote_call(
    provider: str, model: str, destination: Destination, *, candidates: int
) -> Iterator[Call]:
    """Start a CLIENT span under the request's and make it current; an error marks it.

    The span shows no path, no text and no key.
    """
    parts = urlsplit(destination.origin)
    attributes: dict[str, AttributeValue] = {
        semconv.OPERATION_NAME: semconv.OPERATION,
        semconv.PROVIDER_NAME: provider,
        semconv.REQUEST_MODEL: model,
        semconv.SERVER_ADDRESS: parts.hostname or "",
        semconv.SERVER_PORT: parts.port or 0,
        semconv.CANDIDATES: candidates,
        semconv.DESTINATION: destination.origin,
        semconv.DESTINATION_REGIONS: destination.regions,
        semconv.DESTINATION_PROOF: destination.proof,
    }
    span = _start(attributes)
    token = otel_context.attach(set_span_in_context(span))
    try:
        yield Call(span)
    except BaseException as error:
        # Only the class: a message may quote what was sent.
        span.set_attribute(semconv.ERROR_TYPE, type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        otel_context.detach(token)
        with suppress(Exception):  # a broken tracer must not break a call
            span.end()


def with_tracer(tracer: Tracer, context: Context) -> Context:
    """Return a context under which remote calls are traced by `tracer`."""
    return otel_context.set_value(_TRACER, tracer, context)


def _times(value: str) -> str:
    """Return the numbers of a timing header, with the names of the usual steps, and no other words.

    >>> _times("inference;dur=12.5, jane;dur=3"), _times("12"), _times("jane")
    ('inference;dur=12.5, other;dur=3', '12', '')
    """
    if _NUMBER.fullmatch(value.strip()):
        return value.strip()
    found = _STEP.findall(value[:_READ_CHARS])
    return ", ".join(
        f"{name if name in _STEPS else 'other'};dur={number}" for name, number in found
    )


def _start(attributes: Mapping[str, AttributeValue]) -> Span:
    tracer = otel_context.get_value(_TRACER)
    if not isinstance(tracer, Tracer):
        tracer = get_tracer(semconv.SCOPE)
    try:
        return tracer.start_span(
            semconv.REMOTE_SPAN, kind=SpanKind.CLIENT, attributes=dict(attributes)
        )
    except Exception:  # noqa: BLE001 - a broken tracer must not break a call
        return INVALID_SPAN
