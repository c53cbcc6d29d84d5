"""How long requests took, as the percentiles that users feel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of `n` requests, in seconds."""

    n: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


def summarise(seconds: Sequence[float]) -> Latency | None:
    """Give the percentiles, interpolated linearly; None for no requests.

    >>> summarise([0.1, 0.2, 0.3]).p50_s
    0.2
    """
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return Latency(len(seconds), float(np.mean(seconds)), p50, p95, p99)
