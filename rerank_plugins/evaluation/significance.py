"""Whether a difference between two rankings is more than luck."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
# A resample of many queries at once would need gigabytes.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    differences: Sequence[float], *, level: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0
) -> Interval:
    """Give the percentile bootstrap interval of the mean of paired differences, query by query.

    The seed fixes the resamples. One query, or none, gives an interval without width (sakai2006).
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        return Interval(0.0, 0.0, 0.0)
    draw = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[draw.integers(0, values.size, (min(_CHUNK, resamples - at), values.size))].mean(
                axis=1
            )
            for at in range(0, resamples, _CHUNK)
        ]
    )
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail]).tolist()
    return Interval(float(values.mean()), low, high)
