"""Latency by the size of the request: how many candidates, and how long they are."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from .latency import Latency, summarise
from .runs import Answer

CANDIDATES = (10, 20, 50, 100, 200)
TOKENS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests of like size: candidates, and mean tokens a pair, such as "21-50" or "over 200"."""

    candidates: str
    tokens: str
    latency: Latency


def split(answers: Sequence[Answer]) -> tuple[Bucket, ...]:
    """Sort requests into buckets, small ones first; empty buckets are left out."""
    found: dict[tuple[int, int], list[float]] = {}
    for one in answers:
        tokens = one.tokens / one.pairs if one.pairs else 0.0
        place = (bisect_left(CANDIDATES, len(one.order)), bisect_left(TOKENS, tokens))
        found.setdefault(place, []).append(one.latency_s)
    return tuple(
        Bucket(name(CANDIDATES, candidates), name(TOKENS, tokens), latency)
        for (candidates, tokens), seconds in sorted(found.items())
        if (latency := summarise(seconds)) is not None
    )


def name(edges: Sequence[int], place: int) -> str:
    """Name the bucket at `place` between the edges, which belong to the bucket below them.

    >>> [name((10, 20), place) for place in range(3)]
    ['1-10', '11-20', 'over 20']
    """
    if place == len(edges):
        return f"over {edges[-1]}"
    return f"{edges[place - 1] + 1 if place else 1}-{edges[place]}"
