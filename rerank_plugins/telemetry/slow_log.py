"""The log of slow requests: why each was slow, in numbers and codes, never text."""

import logging

from ..records import Result
from . import spans
from .timeline import layout, total_s

_LOG = logging.getLogger("rerank_plugins.slow")


def log(result: Result, *, seconds: float, candidates: int, threshold_s: float) -> None:
    """Log a slow request; the log record's attribute `rerank` holds the same as data."""
    by_step: dict[str, float] = {}
    for step in layout(result.timings):
        if step.name != "stage":
            name = step.name if step.stage is None else f"{step.name} {step.stage}"
            by_step[name] = by_step.get(name, 0.0) + step.seconds
    slowest = max(by_step, key=by_step.__getitem__, default="")
    share = by_step.get(slowest, 0.0) / max(total_s(result.timings), 1e-9)
    facts: dict[str, object] = {
        "request_id": result.request_id,
        "model": result.model,
        "seconds": seconds,
        "threshold_s": threshold_s,
        "candidates": candidates,
        "degraded": result.degraded,
        "slowest": slowest,
        "slowest_share": share,
        "steps_s": by_step,
        "decisions": spans.decisions(result),
        **spans.used(result.usage),
    }
    _LOG.warning(
        "slow rerank %s: %.0f ms for %d candidates (%d pairs, %d tokens); %s took %.0f %%; "
        "decisions: %s",
        result.request_id,
        seconds * 1e3,
        candidates,
        result.usage.pairs,
        result.usage.tokens,
        slowest or "nothing",
        share * 100.0,
        ", ".join(spans.decisions(result)) or "none",
        extra={"rerank": facts},
    )
