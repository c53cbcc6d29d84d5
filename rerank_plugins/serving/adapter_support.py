"""For adapters: scores, priors, and what a result says about the request, as plain data.

The names here and in `shared_engine` are documented and stay: adapters of other frameworks may
import them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import SupportsFloat

from opentelemetry import context, trace

from .. import semconv
from ..records import Hit, Result
from ..rules.residency import merged, metadata_of

__all__ = ["copied", "counted", "facts", "hit_facts", "merged", "metadata_of", "prior"]


def prior(score: object) -> float | None:
    """Return a retriever's score as a prior, None if it is no finite number.

    >>> prior(0.5), prior(float("nan")), prior(None), prior("high")
    (0.5, None, None, None)
    """
    try:
        # An array of one number is no number, though NumPy takes it for one.
        if not isinstance(score, SupportsFloat) or getattr(score, "ndim", None):
            return None
        number = float(score)
    except Exception:  # noqa: BLE001 - a retriever's number may raise anything
        return None
    return number if math.isfinite(number) else None


def copied(value: object, *, depth: int = 4) -> object:
    """Return a deep copy of metadata; what cannot be copied, such as a lock, is shared.

    depth: how many levels of dicts and lists are searched for it
    """
    try:
        return deepcopy(value)
    except Exception:  # noqa: BLE001 - somebody else's object may raise anything
        if depth and type(value) is dict:
            return {key: copied(each, depth=depth - 1) for key, each in value.items()}
        if depth and type(value) is list:
            return [copied(each, depth=depth - 1) for each in value]
        return value


def facts(result: Result) -> dict[str, object]:
    """Return what a result says about the request, as data for JSON; times in milliseconds."""
    return {
        "request_id": result.request_id,
        "model": result.model,
        "degraded": result.degraded,
        "decisions": [
            {
                "step": decision.step,
                "code": decision.code.code,
                "count": decision.count,
                "detail": decision.detail,
            }
            for decision in result.decisions
        ],
        "timings_ms": [
            {"step": timing.step, "stage": timing.stage, "ms": round(timing.seconds * 1e3, 3)}
            for timing in result.timings
        ],
        "usage": {name: getattr(result.usage, name) for name in result.usage.__slots__},
    }


def hit_facts(hit: Hit) -> dict[str, object]:
    """Return what a result says about a candidate, as data for JSON."""
    return {name: getattr(hit, name) for name in Hit.__slots__ if name != "index"}


@contextmanager
def counted(component: str) -> Iterator[None]:
    """Keep an observer from counting a reranking twice, as OpenInference span kind RERANKER.

    Where an OpenInference instrumentor's span is current and its name begins with `component`, the
    engine's span inside becomes a CHAIN.
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
