"""Micro-batches: pairs of like length together, few enough tokens each to stay in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    tier_pairs: int | None = None,
) -> tuple[Batch, ...]:
    """Cut pairs into batches of at most `max_batch_tokens` padded tokens (one pair may exceed it).

    Inside a tier of `tier_pairs` consecutive pairs (None: all) pairs are sorted by length, longest
    first, so that the last batches, which decide when a request ends, are the short ones. Tiers
    keep the given order: stopping between them leaves the best candidates scored. A batch also
    ends where its padding share would pass `max_padding`.

    >>> [batch.pairs for batch in plan([3, 9, 3, 8], max_batch_tokens=20, max_padding=0.2)]
    [(1, 3), (0, 2)]
    """
    lengths = np.asarray(lengths_tokens, dtype=np.int64)
    tier = tier_pairs or max(1, len(lengths))
    batches: list[Batch] = []
    for start in range(0, len(lengths), tier):
        inside = np.argsort(-lengths[start : start + tier], kind="stable") + start
        batches += _cut(inside, lengths, max_batch_tokens, max_batch_pairs, max_padding)
    return tuple(batches)


def _cut(
    pairs: NDArray[np.intp],
    lengths: NDArray[np.int64],
    max_batch_tokens: int,
    max_batch_pairs: int,
    max_padding: float,
) -> list[Batch]:
    batches: list[Batch] = []
    current: list[int] = []
    real = 0
    for pair in pairs.tolist():
        length = int(lengths[pair])
        longest = int(lengths[current[0]]) if current else length
        padded = longest * (len(current) + 1)
        full = padded > max_batch_tokens or len(current) >= max_batch_pairs
        wasteful = padded - (real + length) > max_padding * padded
        if current and (full or wasteful):
            batches.append(Batch(tuple(current), longest))
            current, real = [], 0
        current.append(pair)
        real += length
    if current:
        batches.append(Batch(tuple(current), int(lengths[current[0]])))
    return batches
