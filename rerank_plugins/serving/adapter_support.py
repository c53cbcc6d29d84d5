"""What every framework adapter says of a result: scores, priors, and facts as plain data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsFloat

from opentelemetry import context, trace

from .. import semconv
from ..records import Hit, Result


def prior(score: object) -> float | None:
    """Give a retriever's score as a prior; None where it is no finite number.

    >>> prior(0.5), prior(float("nan")), prior(None), prior("high")
    (0.5, None, None, None)
    """
    if isinstance(score, SupportsFloat) and math.isfinite(number := float(score)):
        return number
    return None


def shown(hit: Hit, *, scale: bool = False) -> float | None:
    """Give the score to show beside a document: what orders, or with `scale` a probability.

    `scale` gives the calibrated probability, or the logistic function of the score where the model
    is not calibrated. None: not scored.
    """
    if hit.score is None:
        return None
    if not scale:
        return hit.score if hit.fused is None else hit.fused
    if hit.probability is not None:
        return hit.probability
    # Half of a tanh: the logistic function without overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * hit.score)


def facts(result: Result) -> dict[str, object]:
    """Give what a result says about the request, as JSON-ready data; times in milliseconds."""
    return {
        "request_id": result.request_id,
        "model": result.model,
        "degraded": result.degraded,
        "decisions": [
            {"step": one.step, "code": one.code.code, "count": one.count, "detail": one.detail}
            for one in result.decisions
        ],
        "timings_ms": [
            {"step": one.step, "stage": one.stage, "ms": round(one.seconds * 1e3, 3)}
            for one in result.timings
        ],
        "usage": {name: getattr(result.usage, name) for name in result.usage.__slots__},
    }


def hit_facts(hit: Hit) -> dict[str, object]:
    """Give what a result says about one candidate, as JSON-ready data."""
    names = ("score", "probability", "fused", "prior", "stage", "depth", "truncated_tokens")
    return {name: getattr(hit, name) for name in names}


@contextmanager
def counted(component: str) -> Iterator[None]:
    """Count a reranking once where an OpenInference instrumentor's span around it is a RERANKER.

    `component` begins that span's name; the engine's span inside then is a CHAIN.
    """
    span = trace.get_current_span()
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    name = getattr(span, "name", "")
    if not (scope.startswith("openinference.") and name.startswith(component)):
        yield
        return
    token = context.attach(context.set_value(semconv.COUNTED, True))
    try:
        yield
    finally:
        context.detach(token)
