"""Cells of evaluation tables that are alike on screen, in HTML and in Markdown."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ..comparison import Comparison, System
from ..cost import Latency

PERCENTILES = ("p50 ms", "p95 ms", "p99 ms")
COST = (*PERCENTILES, "pairs/s", "truncated")
SIZE = ("", "candidates", "tokens a pair", "requests", *PERCENTILES)


def quality(system: System, measure: str, *, judged: str) -> str:
    """Return a system's mean; `judged` lays out that over judged documents, where it differs."""
    mean = f"{system.means[measure]:.3f}"
    only = system.judged_only.get(measure)
    return mean if only is None else mean + judged.format(f"{only:.3f}")


def overall(comparisons: Sequence[Comparison]) -> list[float]:
    """Return each system's mean of the first measure over all datasets."""
    measure = comparisons[0].measures[0]
    systems = zip(*(found.systems for found in comparisons), strict=True)
    return [fmean(system.means[measure] for system in sets) for sets in systems]


def percentiles(latency: Latency) -> list[str]:
    """Return the columns `PERCENTILES`, in whole milliseconds."""
    return [f"{seconds * 1e3:.0f}" for seconds in (latency.p50_s, latency.p95_s, latency.p99_s)]


def cost(system: System, *, missing: str = "") -> list[str]:
    """Return the columns `COST`, all `missing` for the first stage."""
    cost = system.cost
    if cost is None or cost.latency is None:
        return [missing] * len(COST)
    speed = (f"{cost.pairs_per_s:.0f}", f"{cost.truncated_share:.1%}")
    return [*percentiles(cost.latency), *speed]


def by_size(found: Comparison) -> Iterator[list[str]]:
    """Yield rows of the columns `SIZE`: latency by the size of requests."""
    for system in found.systems:
        for bucket in system.buckets:
            latency = bucket.latency
            size = (bucket.candidates, bucket.tokens, str(latency.n))
            yield [system.name, *size, *percentiles(latency)]
