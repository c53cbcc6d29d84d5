"""What requests took: latency percentiles, over all of them and by their size."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .rankings import RankedTopic

CANDIDATES = (10, 20, 50, 100, 200)
TOKENS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of `n` requests, in seconds."""

    n: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a dataset took.

    pairs_per_s: pairs per second of waiting
    truncated_share: of candidates, 0 to 1
    degraded_share: of requests, 0 to 1
    """

    latency: Latency | None
    pairs: int
    pairs_per_s: float
    truncated_share: float
    degraded_share: float


@dataclass(frozen=True, slots=True)
class SizeBucket:
    """Requests of like size: candidates, and mean tokens a pair, such as "21-50" or "over 200"."""

    candidates: str
    tokens: str
    latency: Latency


def summarise(seconds: Sequence[float]) -> Latency | None:
    """Return the percentiles, interpolated linearly; None for no requests.

    >>> summarise([0.1, 0.2, 0.3]).p50_s
    0.2
    """
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return Latency(len(seconds), float(np.mean(seconds)), p50, p95, p99)


def total(ranked: Sequence[RankedTopic]) -> Cost:
    """Add up what the requests of a ranking took."""
    seconds = sum(topic.latency_s for topic in ranked)
    pairs = sum(topic.pairs for topic in ranked)
    candidates = sum(len(topic.order) for topic in ranked)
    return Cost(
        summarise([topic.latency_s for topic in ranked]),
        pairs,
        pairs / seconds if seconds else 0.0,
        sum(topic.truncated for topic in ranked) / candidates if candidates else 0.0,
        sum(topic.degraded for topic in ranked) / len(ranked) if ranked else 0.0,
    )


def by_size(ranked: Sequence[RankedTopic]) -> tuple[SizeBucket, ...]:
    """Sort requests into buckets, small ones first; empty buckets are left out."""
    found: dict[tuple[int, int], list[float]] = {}
    for topic in ranked:
        tokens = topic.tokens / topic.pairs if topic.pairs else 0.0
        place = (bisect_left(CANDIDATES, len(topic.order)), bisect_left(TOKENS, tokens))
        found.setdefault(place, []).append(topic.latency_s)
    return tuple(
        SizeBucket(size_range(CANDIDATES, candidates), size_range(TOKENS, tokens), latency)
        for (candidates, tokens), seconds in sorted(found.items())
        if (latency := summarise(seconds)) is not None
    )


def size_range(edges: Sequence[int], place: int) -> str:
    """Return the name of the bucket at `place`; an edge belongs to the bucket below it.

    >>> [size_range((10, 20), place) for place in range(3)]
    ['1-10', '11-20', 'over 20']
    """
    if place == len(edges):
        return f"over {edges[-1]}"
    return f"{edges[place - 1] + 1 if place else 1}-{edges[place]}"
