"""Losses of doing less, and rules that bound them: which setting may be used, with what promise.

All rules take losses [queries, settings] in [0, 1], settings ordered from the most careful to the
boldest, measured on queries that were not used to shape the settings. What they promise holds for
new queries of the same kind, on average over them; it ends when the mix of queries drifts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Method: TypeAlias = Literal["crc", "ucb", "ltt"]
Floats: TypeAlias = NDArray[np.float64]
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Choice:
    """The boldest setting whose loss is bounded by `alpha`, and how sure that is.

    `place` is None where no setting qualifies; `bound` is then the least that can be promised.
    `loss` is the mean over the `queries` it was chosen on. `delta` is the chance that the promise
    fails to hold; None for "crc", which bounds the mean over calibration sets.
    """

    place: int | None
    loss: float
    bound: float
    alpha: float
    delta: float | None
    queries: int
    method: Method


def choose(losses: Floats, alpha: float, *, method: Method = "ucb", delta: float = 0.1) -> Choice:
    """Return the boldest setting that `method` certifies, with all more careful ones.

    "crc" promises E[loss] <= alpha, "ucb" and "ltt" P(loss <= alpha) >= 1 - delta.

    >>> losses = np.array([[0.0, 0.0, 1.0]] * 199)
    >>> choose(losses, 0.01, method="crc").place
    1
    >>> choose(losses[:50], 0.01, method="crc").place is None  # needs 99 queries at least
    True
    """
    certify = _METHODS[method]
    place: int | None = None
    bound = 1.0
    for column in range(losses.shape[1]):
        found = certify(losses[:, column], alpha, delta)
        if place is None:
            bound = min(bound, found)
        if found > alpha:
            break
        place, bound = column, found
    used = 0 if place is None else place
    loss = float(losses[:, used].mean())
    queries = len(losses)
    return Choice(place, loss, bound, alpha, None if method == "crc" else delta, queries, method)


def crc_bound(losses: Floats) -> float:
    """Return a bound on the expected loss (conformal risk control, Angelopoulos et al. 2024).

    (n mean + 1) / (n + 1): the new query counts as lost.

    >>> round(crc_bound(np.zeros(99)), 4)
    0.01
    """
    return float((losses.sum() + 1.0) / (len(losses) + 1.0))


def ucb_bound(losses: Floats, delta: float) -> float:
    """Return a bound on the mean loss with confidence 1 - delta (Waudby-Smith & Ramdas 2024).

    Adapts to the variance, so that mostly-zero losses get a tight bound.

    >>> ucb_bound(np.zeros(300), 0.1) < 0.02 < ucb_bound(np.zeros(30), 0.1)
    True
    """
    n = len(losses)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(losses)) / (1 + counts)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (1 + counts)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(1.0, np.sqrt(2.0 * math.log(1.0 / delta) / (n * before)))

    def rejected(mean: float) -> bool:
        capital = np.cumsum(np.log(np.maximum(1.0 - bets * (losses - mean), 1e-300)))
        return bool(capital.max() >= math.log(1.0 / delta))

    low, high = 0.0, 1.0
    if not rejected(high):
        return 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rejected(middle) else (middle, high)
    return high


def hb_p_value(loss: float, n: int, alpha: float) -> float:
    """Test "the mean loss exceeds alpha" with the Hoeffding-Bentkus p-value (Bates et al. 2021).

    min(exp(-n KL(min(loss, alpha) || alpha)), e P(Binomial(n, alpha) <= ceil(n loss))).

    >>> hb_p_value(0.0, 500, 0.01) < 0.05 < hb_p_value(0.009, 500, 0.01)
    True
    """
    share = min(loss, alpha)
    kl = (1.0 - share) * math.log((1.0 - share) / (1.0 - alpha))
    if share > 0.0:
        kl += share * math.log(share / alpha)
    # Rounding must not lift a loss of exactly j / n over the j-th step.
    below = _binomial_cdf(math.ceil(n * loss - 1e-9), n, alpha)
    return min(1.0, math.exp(-n * kl), math.e * below)


def regret(order: Sequence[int], gains: Floats, k: int) -> float:
    """Return what `order` loses against the best order: 1 - DCG@k(order) / DCG@k(best), in [0, 1].

    Järvelin & Kekäläinen 2002, with linear gains [candidates]. With the full model's own
    probabilities as gains this needs no labels.

    >>> regret([0, 1], np.array([1.0, 0.5]), 2)
    0.0
    >>> regret([1, 0], np.array([1.0, 0.0]), 1)
    1.0
    """
    head = min(k, len(gains))
    discounts = 1.0 / np.log2(np.arange(2, head + 2))
    best = float((np.sort(gains)[::-1][:head] * discounts).sum())
    got = float((gains[np.asarray(order[:head], dtype=np.intp)] * discounts).sum())
    return max(0.0, 1.0 - got / best) if best > 0.0 else 0.0


def top_k_miss(order: Sequence[int], full_order: Sequence[int], k: int) -> float:
    """Return the share of the full model's best k that are not among the best k of `order`.

    >>> top_k_miss([2, 0, 1], [0, 1, 2], 2)
    0.5
    """
    wanted = set(full_order[:k])
    return len(wanted - set(order[:k])) / max(1, len(wanted))


def _crc(losses: Floats, alpha: float, delta: float) -> float:  # noqa: ARG001 - one signature
    return crc_bound(losses)


def _ucb(losses: Floats, alpha: float, delta: float) -> float:  # noqa: ARG001 - one signature
    return ucb_bound(losses, delta)


def _ltt(losses: Floats, alpha: float, delta: float) -> float:
    """Return the least alpha that fixed-sequence testing would accept, found by bisection."""
    loss, n = float(losses.mean()), len(losses)
    if hb_p_value(loss, n, alpha) <= delta:
        low, high = loss, alpha
    else:
        low, high = alpha, 1.0 - 1e-9
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        passes = middle > 0.0 and hb_p_value(loss, n, middle) <= delta
        low, high = (low, middle) if passes else (middle, high)
    return high


def _binomial_cdf(successes: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= successes), for p strictly between 0 and 1."""
    top = min(successes, n)
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(top + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


_METHODS: Mapping[Method, Callable[[Floats, float, float], float]] = {
    "crc": _crc,
    "ucb": _ucb,
    "ltt": _ltt,
}
