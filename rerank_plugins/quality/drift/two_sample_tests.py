"""Tests of two samples: the distance between them, and how often chance alone exceeds it."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Mean values per bin in the smaller sample: with fewer, PSI is far from chi-squared.
_BIN_MIN = 8
_MAX_BINS = 10
# More terms of Kolmogorov's series change nothing in double precision.
_KOLMOGOROV_TERMS = 100


def ks(reference: NDArray[np.float64], window: NDArray[np.float64]) -> float:
    """Return the largest distance in [0, 1] between two empirical distribution functions.

    >>> ks(np.array([1.0, 2.0]), np.array([3.0]))
    1.0
    """
    both = np.concatenate([reference, window])
    both.sort()
    left = np.searchsorted(np.sort(reference), both, side="right") / reference.size
    right = np.searchsorted(np.sort(window), both, side="right") / window.size
    return float(np.abs(left - right).max())


def ks_p(distance: float, n: int, m: int) -> float:
    """Return the probability of such a distance without drift (asymptotic; never too small).

    >>> round(ks_p(1.628 * math.sqrt(1 / 500 + 1 / 500), 500, 500), 2)
    0.01
    """
    scaled = distance * math.sqrt(n * m / (n + m))
    if scaled < 0.2:  # noqa: PLR2004 - the series is 1 there to nine digits, and converges slowly
        return 1.0
    terms = np.arange(1, _KOLMOGOROV_TERMS + 1)
    series = 2.0 * np.sum((-1.0) ** (terms - 1) * np.exp(-2.0 * (terms * scaled) ** 2))
    return float(min(1.0, max(0.0, series)))


def ks_critical(alpha: float, n: int, m: int) -> float:
    """Return the distance that is exceeded without drift with probability `alpha`.

    >>> round(ks_critical(0.01, 500, 500), 3)
    0.103
    """
    return math.sqrt(-math.log(alpha / 2.0) / 2.0) * math.sqrt(1.0 / n + 1.0 / m)


def welch(reference: NDArray[np.float64], window: NDArray[np.float64]) -> tuple[float, float]:
    """Return the distance of two means in standard errors, and the degrees of freedom (welch1947).

    >>> round(welch(np.array([0.0, 2.0]), np.array([2.0, 4.0]))[0], 3)
    1.414
    """
    left, right = (float(x.var(ddof=1)) / x.size for x in (reference, window))
    gap, error = abs(float(reference.mean() - window.mean())), left + right
    if error == 0.0:
        return (0.0 if gap == 0.0 else math.inf), 1.0
    inner = left * left / (reference.size - 1) + right * right / (window.size - 1)
    return gap / math.sqrt(error), error * error / inner


def welch_p(distance: float, freedom: float) -> float:
    """Return the two-sided probability of such a distance of means without drift.

    Student's t by its normal approximation (wallace1959), accurate to .01 deviations.

    >>> round(welch_p(2.704, 40.0), 3)
    0.01
    """
    if math.isinf(distance):
        return 0.0
    scaled = math.sqrt(freedom * math.log1p(distance * distance / freedom))
    return min(1.0, 2.0 * normal_sf(scaled * (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)))


def welch_critical(alpha: float, freedom: float) -> float:
    """Return the distance of means that is exceeded without drift with probability `alpha`.

    >>> round(welch_critical(0.01, 40.0), 2)
    2.7
    """
    scaled = NormalDist().inv_cdf(1.0 - alpha / 2.0) * (8.0 * freedom + 3.0) / (8.0 * freedom + 1.0)
    return math.sqrt(freedom * math.expm1(scaled * scaled / freedom))


def edges(reference: NDArray[np.float64], window_size: int) -> NDArray[np.float64]:
    """Return inner edges of bins with equal shares of the reference; ties stay in one bin."""
    bins = min(_MAX_BINS, max(2, min(reference.size, window_size) // _BIN_MIN))
    return np.unique(np.quantile(reference, np.arange(1, bins) / bins))


def psi(
    reference: NDArray[np.float64], window: NDArray[np.float64], inner: NDArray[np.float64]
) -> float:
    """Return the population stability index, `sum (p - q) ln(p / q)` over bins with `inner` edges.

    Half a count is added to each bin, so that an empty bin is not infinite.

    >>> sample = np.arange(100.0)
    >>> psi(sample, sample, edges(sample, 100))
    0.0
    """
    p, q = _shares(window, inner), _shares(reference, inner)
    return float(np.sum((p - q) * np.log(p / q)))


def psi_p(value: float, bins: int, n: int, m: int) -> float:
    """Return the probability of such a PSI without drift: (1/n + 1/m) times chi-squared.

    Fixed limits such as 0.25 ignore the sample sizes: with 200 values each and 10 bins, one window
    in a hundred exceeds 0.22 by chance alone.

    >>> round(psi_p(21.666 * (1 / 200 + 1 / 200), 10, 200, 200), 3)
    0.01
    """
    return chi_squared_sf(value / (1.0 / n + 1.0 / m), bins - 1)


def psi_critical(alpha: float, bins: int, n: int, m: int) -> float:
    """Return the PSI that is exceeded without drift with probability `alpha`.

    >>> round(psi_critical(0.01, 10, 200, 200), 3)
    0.217
    """
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if chi_squared_sf(middle, bins - 1) > alpha else (low, middle)
    return high * (1.0 / n + 1.0 / m)


def chi_squared_sf(value: float, degrees: int) -> float:
    """Return P(X > value) of a chi-squared variable with whole degrees of freedom, in closed form.

    >>> round(chi_squared_sf(3.841, 1), 3), round(chi_squared_sf(5.991, 2), 3)
    (0.05, 0.05)
    """
    if degrees < 1 or value <= 0.0:
        return 1.0
    half = value / 2.0
    if degrees % 2:
        total = math.erfc(math.sqrt(half))
        term = math.exp(-half) * math.sqrt(half) / math.gamma(1.5)
        start = 1.5
    else:
        total = term = math.exp(-half)
        term *= half
        start = 2.0
    for step in range((degrees - 1) // 2):
        total += term
        term *= half / (start + step)
    return min(1.0, total)


def normal_sf(value: float) -> float:
    """Return P(X > value) of a standard normal variable."""
    return 0.5 * math.erfc(value / math.sqrt(2.0))


def _shares(values: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.searchsorted(inner, values, side="left")
    counts = np.bincount(places, minlength=inner.size + 1).astype(np.float64) + 0.5
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
