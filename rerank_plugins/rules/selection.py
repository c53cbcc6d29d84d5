"""How many candidates to score (depth), and how many to return (cut)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class MassDepth:
    """Score the shortest head that holds `mass` of the softmax of the standardised priors.

    After Li et al. 2022, who prune what a temperature-scaled softmax of retriever scores finds
    improbable; `rerank-plugins calibrate` certifies a mass. Depths stay from `min` to `max`.
    """

    mass: float
    temperature: float = 1.0
    min: int = 1
    max: int | None = None


Depth: TypeAlias = int | MassDepth
"""How many candidates are scored; a number is that many."""


@dataclass(frozen=True, slots=True)
class Certain:
    """Score nothing where the first candidate alone holds `mass` of the softmax of the priors."""

    mass: float
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class ProbabilityCut:
    """Return the head whose calibrated probabilities are all at least `threshold`."""

    threshold: float
    min: int = 0
    max: int | None = None


@dataclass(frozen=True, slots=True)
class GapCut:
    """Return what lies before the largest drop, and `buffer` more (Taguchi et al. 2025).

    Drops are measured on calibrated probabilities where every scored hit has one, else on scores.
    """

    min: int = 1
    max: int | None = None
    buffer: int = 0


Cut: TypeAlias = int | ProbabilityCut | GapCut
"""How many hits are returned; a number is that many."""


def depth(rule: Depth | None, priors: Sequence[float | None]) -> int:
    """Return how many candidates to score, by their priors in first-stage order.

    Where a candidate has no prior an adaptive rule cannot choose: its `max` then holds.

    >>> depth(MassDepth(0.9, temperature=0.2), [9.0, 8.9, 1.0, 1.0, 1.0])
    2
    """
    n = len(priors)
    if rule is None:
        return n
    if isinstance(rule, int):
        return min(rule, n)
    values = _numbers(priors)
    if values is None:
        return _within(n, 0, rule.max, n)
    shares = np.cumsum(_softmax(values, rule.temperature))
    chosen = int(np.searchsorted(shares, rule.mass - 1e-12)) + 1
    return _within(chosen, rule.min, rule.max, n)


def certain(rule: Certain | None, priors: Sequence[float | None]) -> bool:
    """True if the first stage is so sure of its first candidate that scoring can be skipped.

    >>> certain(Certain(0.9, temperature=0.1), [30.0, 2.0, 1.0])
    True
    """
    values = _numbers(priors)
    if rule is None or values is None or len(values) == 0:
        return False
    return bool(_softmax(values, rule.temperature)[0] >= rule.mass)


def cut(
    rule: Cut | None, scores: Sequence[float | None], probabilities: Sequence[float | None]
) -> int:
    """Return how many hits to return, by their scores and probabilities in final order.

    Unscored hits (None) never pass an adaptive rule. Where nothing has what the rule
    reads, it cannot choose: its `max` then holds.

    >>> cut(ProbabilityCut(0.5), [2.0, 1.0, -3.0], [0.9, 0.7, 0.1])
    2
    """
    n = len(scores)
    if rule is None:
        return n
    if isinstance(rule, int):
        return min(rule, n)
    read = probabilities
    if isinstance(rule, GapCut) and any(
        p is None and s is not None for p, s in zip(probabilities, scores, strict=True)
    ):
        read = scores
    if all(value is None for value in read):
        return _within(n, 0, rule.max, n)
    return _within(_cut(rule, read), rule.min, rule.max, n)


def _cut(rule: ProbabilityCut | GapCut, read: Sequence[float | None]) -> int:
    if isinstance(rule, ProbabilityCut):
        passes = (value is not None and value >= rule.threshold for value in read)
        return next((i for i, passed in enumerate(passes) if not passed), len(read))
    values = np.array([value for value in read if value is not None], dtype=np.float64)
    return _before_gap(values, rule.min, rule.max) + rule.buffer


def _before_gap(values: NDArray[np.float64], low: int, high: int | None) -> int:
    """Return how many values come before the largest drop, at least `low` and at most `high`."""
    first = max(1, low)
    last = len(values) if high is None else min(high, len(values))
    drops = (values[:-1] - values[1:])[first - 1 : last]
    return first + int(np.argmax(drops)) if len(drops) and drops.max() > 0.0 else last


def _within(count: int, low: int, high: int | None, n: int) -> int:
    return min(max(count, low), n if high is None else high, n)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64] | None:
    """Return the values as an array; None if a value is missing."""
    found = [value for value in values if value is not None]
    return np.array(found, dtype=np.float64) if len(found) == len(values) else None


def _softmax(values: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    if len(values) == 0:
        return values
    spread = float(values.std())
    z = (values - values.max()) / (spread or 1.0) / temperature
    powers = np.exp(z)
    return np.asarray(powers / powers.sum())
