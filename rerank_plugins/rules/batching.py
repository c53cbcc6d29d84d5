"""Micro-batches: pairs of like length together, few enough tokens each to stay in the cache."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# So many pairs a worker divide evenly however they are cut.
_FEW_PAIRS = 16
# A batch below this is dominated by what a run costs whatever its size.
_LEAST_BATCH_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs that run together, padded to the longest of them."""

    pairs: tuple[int, ...]
    length_tokens: int

    @property
    def padded_tokens(self) -> int:
        """Tokens the model computes for this batch, padding included."""
        return len(self.pairs) * self.length_tokens


def plan(
    lengths_tokens: Sequence[int] | NDArray[np.int64],
    *,
    max_batch_tokens: int,
    max_batch_pairs: int = 64,
    max_padding: float = 0.05,
    overhead_tokens: float = 0.0,
    tier_pairs: int | None = None,
) -> tuple[Batch, ...]:
    """Cut pairs into batches of at most `max_batch_tokens` padded tokens (one pair may exceed it).

    Inside a tier of `tier_pairs` consecutive pairs (None: all) pairs are sorted by length, longest
    first, so that the last batches, which decide when a request ends, are the short ones. Tiers
    keep the given order: stopping between them leaves the best candidates scored. A batch also
    ends where its padding would pass both the share `max_padding` and `overhead_tokens`: what a
    batch costs besides its tokens, so that less padding than that is cheaper than one more batch.

    >>> [batch.pairs for batch in plan([3, 9, 3, 8], max_batch_tokens=20, max_padding=0.2)]
    [(1, 3), (0, 2)]
    """
    lengths = np.asarray(lengths_tokens, dtype=np.int64)
    tier = tier_pairs or max(1, len(lengths))
    batches: list[Batch] = []
    for start in range(0, len(lengths), tier):
        inside = np.argsort(-lengths[start : start + tier], kind="stable") + start
        batches += _cut(
            inside,
            lengths,
            max_batch_tokens=max_batch_tokens,
            max_batch_pairs=max_batch_pairs,
            max_padding=max_padding,
            overhead_tokens=overhead_tokens,
        )
    return tuple(batches)


def spread(
    lengths_tokens: NDArray[np.int64],
    *,
    workers: int,
    max_batch_tokens: int,
    max_padding: float,
    overhead_tokens: float = 0.0,
) -> tuple[Batch, ...]:
    """Cut the pairs of one request so that `workers` together end soonest; the biggest batch first.

    Few batches cost little overhead and many divide evenly: several plans are compared. Padding
    stays below the share `max_padding` of the request.
    """
    tokens = int(lengths_tokens.sum())
    parts = (2, 3, 4) if len(lengths_tokens) <= _FEW_PAIRS * workers else (2,)
    best: tuple[Batch, ...] = ()
    best_tokens = float("inf")
    for part in parts:
        bound = min(max_batch_tokens, max(_LEAST_BATCH_TOKENS, tokens // (part * workers)))
        for allowed in (overhead_tokens, overhead_tokens / 2, 0.0):
            made = plan(
                lengths_tokens,
                max_batch_tokens=bound,
                max_padding=max_padding,
                overhead_tokens=allowed,
            )
            padded = sum(batch.padded_tokens for batch in made)
            if allowed and padded - tokens > max_padding * padded:
                continue
            made = tuple(sorted(made, key=lambda batch: -batch.padded_tokens))
            ends = end_tokens(made, workers=workers, overhead_tokens=overhead_tokens)
            if ends < best_tokens:
                best, best_tokens = made, ends
            if len(parts) == 1:
                break
    return best


def end_tokens(batches: Sequence[Batch], *, workers: int, overhead_tokens: float) -> float:
    """Return when the last batch ends, in tokens of one worker; a free worker takes the next batch.

    >>> end_tokens([Batch((0,), 9), Batch((1,), 5), Batch((2,), 3)], workers=2, overhead_tokens=1)
    10.0
    """
    busy = [0.0] * workers
    for batch in batches:
        heapq.heapreplace(busy, busy[0] + overhead_tokens + batch.padded_tokens)
    return max(busy)


def _cut(
    pairs: NDArray[np.intp],
    lengths: NDArray[np.int64],
    *,
    max_batch_tokens: int,
    max_batch_pairs: int,
    max_padding: float,
    overhead_tokens: float,
) -> list[Batch]:
    batches: list[Batch] = []
    current: list[int] = []
    real = 0
    for pair in pairs.tolist():
        length = int(lengths[pair])
        longest = int(lengths[current[0]]) if current else length
        padded = longest * (len(current) + 1)
        full = padded > max_batch_tokens or len(current) >= max_batch_pairs
        wasteful = padded - (real + length) > max(max_padding * padded, overhead_tokens)
        if current and (full or wasteful):
            batches.append(Batch(tuple(current), longest))
            current, real = [], 0
        current.append(pair)
        real += length
    if current:
        batches.append(Batch(tuple(current), int(lengths[current[0]])))
    return batches
