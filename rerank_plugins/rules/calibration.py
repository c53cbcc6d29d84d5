"""From a model's score to a calibrated probability of relevance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 100
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling (platt1999): P(relevant | score) = 1 / (1 + exp(-(a score + b)))."""

    a: float
    b: float


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising line through points; outside them it is level.

    `scores` [n] ascend, `probabilities` [n] in [0, 1] never fall.
    """

    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]


def apply(calibration: Calibration | Isotonic, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map scores to probabilities in [0, 1], elementwise.

    >>> apply(Calibration(a=1.0, b=0.0), np.float32([0.0])).tolist()
    [0.5]
    """
    if isinstance(calibration, Isotonic):
        levels: NDArray[np.float64] = np.interp(
            scores, calibration.scores, calibration.probabilities
        )
        return levels
    return logistic(calibration.a * scores.astype(np.float64) + calibration.b)


def logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logits)), elementwise.

    >>> logistic(np.array([0.0, 1000.0])).tolist()
    [0.5, 1.0]
    """
    # exp of a negative number only: no overflow at either end.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0.0, 1.0 / (1.0 + small), small / (1.0 + small))


def relevance(
    score: float | None, kind: str | None, probability: float | None = None
) -> float | None:
    """Return the one number that users see, and that thresholds read.

    The calibrated probability where there is one, else the logistic function of a logit, else
    s / (1 + s) of a BM25 score s (0 without any match), else the scorer's own number. None: not
    scored.

    >>> relevance(0.0, "logit"), relevance(0.98, "probability"), relevance(3.0, "logit", 0.7)
    (0.5, 0.98, 0.7)
    >>> relevance(0.0, "lexical"), relevance(3.0, "lexical")
    (0.0, 0.75)
    """
    if score is None or probability is not None:
        return probability
    if kind == "lexical":
        return max(0.0, score) / (1.0 + max(0.0, score))
    return float(logistic(np.array(score))) if kind == "logit" else score


def fit_platt(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Calibration:
    """Fit a and b by maximum likelihood, targets shrunk as Platt proposes (platt1999).

    The shrinking keeps a finite where the scores separate the classes. Raises `ValueError` unless
    there are both relevant and other pairs.
    """
    x, spread, centre = _standardised(scores, relevant)
    positives = int(relevant.sum())
    negatives = relevant.size - positives
    target = np.where(relevant, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    design = np.stack([x, np.ones_like(x)], axis=1)
    a, b = _newton(design, target, np.array([1.0, 0.0]))
    return Calibration(a / spread, b - a * centre / spread)


def fit_temperature(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Calibration:
    """Fit only the scale of a score that is a logit already: a = 1 / temperature, b = 0 (guo2017).

    Raises `ValueError` unless there are both relevant and other pairs.
    """
    _check(scores, relevant)
    x = scores.astype(np.float64)
    size = float(np.abs(x).max()) or 1.0
    (a,) = _newton((x / size)[:, None], relevant.astype(np.float64), np.array([1.0]))
    return Calibration(a / size, 0.0)


def fit_isotonic(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> Isotonic:
    """Fit the rising step function of least squares by pooling adjacent violators (zadrozny2002).

    It needs some thousand pairs; below, Platt's two parameters are safer. Raises `ValueError`
    unless there are both relevant and other pairs.

    >>> fit_isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 0, 1], bool)).probabilities
    array([0. , 0.5, 0.5, 1. ])
    """
    _check(scores, relevant)
    points, place = np.unique(scores.astype(np.float64), return_inverse=True)
    weights = np.bincount(place).astype(np.float64)
    means = np.bincount(place, weights=relevant.astype(np.float64)) / weights
    blocks: list[tuple[float, float, int]] = []
    for mean, weight in zip(means.tolist(), weights.tolist(), strict=True):
        block = (mean, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            block = _pooled(blocks.pop(), block)
        blocks.append(block)
    levels = np.concatenate([np.full(count, mean) for mean, _, count in blocks])
    return Isotonic(points, levels)


def _pooled(
    one: tuple[float, float, int], other: tuple[float, float, int]
) -> tuple[float, float, int]:
    weight = one[1] + other[1]
    return ((one[0] * one[1] + other[0] * other[1]) / weight, weight, one[2] + other[2])


def _newton(
    design: NDArray[np.float64], target: NDArray[np.float64], start: NDArray[np.float64]
) -> list[float]:
    """Minimise cross-entropy. A tiny ridge keeps a flat Hessian invertible."""
    weights = start
    loss = _loss(design @ weights, target)
    for _ in range(_STEPS):
        p = logistic(design @ weights)
        slope = design.T @ (p - target)
        bend = (design * (p * (1.0 - p))[:, None]).T @ design
        step = np.linalg.solve(bend + 1e-9 * np.eye(len(weights)), slope)
        while _loss(design @ (weights - step), target) > loss and np.abs(step).max() > _CLOSE:
            step = step / 2.0
        weights = weights - step
        loss = _loss(design @ weights, target)
        if np.abs(step).max() <= _CLOSE:
            break
    return [float(one) for one in weights]


def _loss(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0.0, logits) - target * logits).sum())


def _standardised(
    scores: NDArray[np.floating], relevant: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float, float]:
    """Centre and scale the scores, so that Newton's steps are well conditioned on any scale."""
    _check(scores, relevant)
    x = scores.astype(np.float64)
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    return (x - centre) / spread, spread, centre


def _check(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> None:
    if scores.shape != relevant.shape or relevant.all() or not relevant.any():
        message = (
            f"{scores.size} scores with {int(relevant.sum())} of {relevant.size} pairs relevant; "
            "expected as many labels as scores, and both relevant and other pairs"
        )
        raise ValueError(message)
