"""Whether a difference between two rankings is more than chance."""

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

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap(
    differences: Sequence[float], *, level: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of the mean of paired differences.

    The seed fixes the resamples. With one query or none the interval has no width (sakai2006).
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


def permutation(differences: Sequence[float], *, rounds: int = _RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean of 0, by flipping the signs of paired differences.

    The observed signs count as one round, so that no p is 0 (smucker2007).

    >>> permutation([0.0, 0.0])
    1.0
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = abs(values.sum())
    draw = np.random.default_rng(seed)
    # Rounding must not make a permutation that equals the observed one count as smaller.
    bar = observed * (1.0 - 1e-12)
    reached = 0
    for at in range(0, rounds, _CHUNK):
        signs = draw.choice((-1.0, 1.0), (min(_CHUNK, rounds - at), values.size))
        reached += int((np.abs(signs @ values) >= bar).sum())
    return (reached + 1) / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that any false alarm stays unlikely (holm1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted
