"""Long candidates: cut their tokens into windows, fold the windows' scores into one."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fold = Literal["max", "first", "log_mean_exp"]
FOLDS: tuple[Fold, ...] = ("max", "first", "log_mean_exp")


def windows(
    length_tokens: int,
    size_tokens: int,
    *,
    overlap: float = 0.5,
    limit: int = 8,
    ends: Sequence[int] = (),
) -> tuple[tuple[int, int], ...]:
    """Cut a passage into at most `limit` windows `(start, stop)` of at most `size_tokens` each.

    Windows overlap by about the given share. `ends`, ascending, are the places behind sentences: a
    window starts at the one nearest to where it would start without them, if that leaves no gap.
    The last window ends at the passage's end where the limit allows, and is at least half a window
    then. Tokens behind the last window are the caller's to report.

    >>> windows(10, 4)
    ((0, 4), (2, 6), (4, 8), (6, 10))
    >>> windows(3, 4)
    ((0, 3),)
    >>> windows(30, 10, ends=[3, 12])
    ((0, 10), (3, 13), (12, 22), (15, 25), (20, 30))
    """
    if size_tokens < 1 or limit < 1 or not 0.0 <= overlap < 1.0:
        message = (
            f"windows of {size_tokens} tokens, at most {limit}, overlap {overlap}: "
            "expected sizes of at least 1 and an overlap from 0 to below 1"
        )
        raise ValueError(message)
    stride = max(1, round(size_tokens * (1.0 - overlap)))
    # By so much two neighbours may both move: the first stays first, and no token is skipped.
    slack = max(0, (min(stride, size_tokens - stride) - 1) // 2)
    last, half = length_tokens - size_tokens, length_tokens - (size_tokens + 1) // 2
    spans = [(0, min(size_tokens, length_tokens))]
    while spans[-1][1] < length_tokens and len(spans) < limit:
        place = len(spans) * stride
        low, high = place - slack, place + slack
        if place >= last:
            low, high = last, min(high, half)
        start = _nearest(ends, place, low, high, otherwise=min(place, last))
        spans.append((start, min(start + size_tokens, length_tokens)))
    return tuple(spans)


def led(
    length_tokens: int,
    size_tokens: int,
    *,
    first_tokens: int,
    overlap: float = 0.5,
    limit: int = 8,
    ends: Sequence[int] = (),
) -> tuple[tuple[int, int], ...]:
    """Cut a passage into one large window, then smaller ones that begin where it is about to end.

    `length_tokens` is over `first_tokens`, that is over `size_tokens`; the rest is as in `windows`.

    >>> led(20, 4, first_tokens=10)
    ((0, 10), (8, 12), (10, 14), (12, 16), (14, 18), (16, 20))
    """
    half = (size_tokens + 1) // 2
    low, high = first_tokens - size_tokens + 1, min(first_tokens, length_tokens - half)
    place = max(low, min(first_tokens - round(size_tokens * overlap), high))
    start = _nearest(ends, place, low, high, otherwise=place)
    behind = windows(
        length_tokens - start,
        size_tokens,
        overlap=overlap,
        limit=max(1, limit - 1),
        ends=[end - start for end in ends if end > start],
    )
    return ((0, first_tokens), *((start + first, start + stop) for first, stop in behind))


def _nearest(ends: Sequence[int], place: int, low: int, high: int, *, otherwise: int) -> int:
    """Return the end of a sentence, from `low` to `high`, that is nearest to `place`."""
    near = ends[bisect_left(ends, low) : bisect_right(ends, high)]
    return min(near, key=lambda end: abs(end - place), default=otherwise)


def reaching(size_tokens: int, full_tokens: int, *, count: int, overlap: float) -> int:
    """Return how many windows reach as far as `count` windows of `full_tokens` would.

    >>> reaching(4, 10, count=8, overlap=0.5)
    19
    """
    full_stride, stride = (max(1, round(n * (1.0 - overlap))) for n in (full_tokens, size_tokens))
    behind = (count - 1) * full_stride + min(size_tokens - 1, round(size_tokens * overlap))
    return 2 + max(0, -((size_tokens - behind) // stride))


def fold(
    scores: NDArray[np.float32], owners: NDArray[np.intp], candidates: int, how: Fold
) -> NDArray[np.float32]:
    """Fold window scores [windows] into candidate scores [candidates].

    `owners` [windows] names the candidate of each window, in window order; every candidate owns at
    least one. MaxP and FirstP after Dai & Callan 2019; log-mean-exp is their smooth middle.

    >>> fold(np.float32([1, 3, 2]), np.array([0, 0, 1]), 2, "max").tolist()
    [3.0, 2.0]
    """
    if how == "first":
        first = np.full(candidates, len(owners), dtype=np.intp)
        np.minimum.at(first, owners, np.arange(len(owners), dtype=np.intp))
        return scores[first]
    best = np.full(candidates, -np.inf, dtype=np.float32)
    np.maximum.at(best, owners, scores)
    if how == "max":
        return best
    total = np.zeros(candidates, dtype=np.float64)
    np.add.at(total, owners, np.exp(scores - best[owners], dtype=np.float64))
    mean = total / np.bincount(owners, minlength=candidates)
    return (best + np.log(mean)).astype(np.float32)
