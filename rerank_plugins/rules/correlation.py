"""Rank correlation."""

import math

import numpy as np
from numpy.typing import NDArray


def spearman(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Return Spearman's correlation in [-1, 1]; ties share their mean rank. nan where undefined.

    >>> round(spearman(np.array([1.0, 2.0, 9.0]), np.array([3.0, 4.0, 5.0])), 6)
    1.0
    """
    if left.size < 3:  # noqa: PLR2004 - of two points every correlation is perfect
        return math.nan
    a, b = _ranks(left), _ranks(right)
    a -= a.mean()
    b -= b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0.0 else math.nan


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2.0)[place]
    return means
