"""Keep rules: which candidates go on to the next stage, and which are settled before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ShareKeep:
    """Keep the best `share` of the candidates, from `min` to `max` of them."""

    share: float
    min: int = 1
    max: int | None = None


@dataclass(frozen=True, slots=True)
class ScoreKeep:
    """Keep the candidates that score at least `threshold`, from `min` to `max` of them."""

    threshold: float
    min: int = 0
    max: int | None = None


@dataclass(frozen=True, slots=True)
class MarginKeep:
    """Keep the candidates within `margin` of the `top_k`-th best, from `min` to `max` of them.

    Listwise: a candidate is dropped for what the others score, not for its own score. `promise`
    says what the margin was calibrated to hold, such as "regret <= 0.01"; it goes into decisions.
    """

    margin: float
    top_k: int = 10
    min: int = 1
    max: int | None = None
    promise: str = ""


@dataclass(frozen=True, slots=True)
class ProbabilityKeep:
    """Keep the candidates whose calibrated probability is at least `threshold`."""

    threshold: float
    min: int = 0
    max: int | None = None


@dataclass(frozen=True, slots=True)
class AsymmetricKeep:
    """Settle what is surely relevant or surely not; only the rest goes on (Xin et al. 2020).

    A candidate of probability over `accept` is settled above all that go on, one whose probability
    of being irrelevant is over `reject` is dropped.
    """

    accept: float
    reject: float
    min: int = 0
    max: int | None = None


Keep: TypeAlias = int | ShareKeep | ScoreKeep | MarginKeep | ProbabilityKeep | AsymmetricKeep
"""Who goes on to the next stage; a number is that many, best first."""

READS_PROBABILITIES = (ProbabilityKeep, AsymmetricKeep)
"""The rules that need a calibrated stage."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Places of the candidates that go on and of those settled as relevant, each best first."""

    on: tuple[int, ...]
    settled: tuple[int, ...] = ()


def apply(
    rule: Keep | None, scores: Sequence[float], probabilities: Sequence[float] | None
) -> Kept:
    """Choose who goes on, best first; ties keep their given order.

    Where a rule reads probabilities and there are none, all go on.

    >>> apply(2, [0.1, 3.0, 2.0], None).on
    (1, 2)
    >>> apply(MarginKeep(1.5, top_k=1), [0.1, 3.0, 2.0], None).on
    (1, 2)
    >>> apply(AsymmetricKeep(0.9, 0.9), [3.0, 0.0, -4.0], [0.95, 0.5, 0.02])
    Kept(on=(1,), settled=(0,))
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    n = len(values)
    if rule is None or (isinstance(rule, READS_PROBABILITIES) and probabilities is None):
        return Kept(tuple(order.tolist()))
    if isinstance(rule, int):
        return Kept(tuple(order[:rule].tolist()))
    settled: tuple[int, ...] = ()
    if isinstance(rule, AsymmetricKeep):
        chances = np.asarray(probabilities, dtype=np.float64)
        settled = tuple(int(i) for i in order if chances[i] > rule.accept)
        order = order[~np.isin(order, settled)]
        wanted = int((1.0 - chances[order] <= rule.reject).sum())
    else:
        wanted = _wanted(rule, values[order], probabilities, order)
    count = min(max(wanted, rule.min), n if rule.max is None else rule.max)
    return Kept(tuple(order[:count].tolist()), settled)


def _wanted(
    rule: ShareKeep | ScoreKeep | MarginKeep | ProbabilityKeep,
    ranked: NDArray[np.float64],
    probabilities: Sequence[float] | None,
    order: NDArray[np.intp],
) -> int:
    """Count the candidates that the rule itself wants, of scores in descending order."""
    if isinstance(rule, ShareKeep):
        return int(np.ceil(rule.share * len(ranked)))
    if isinstance(rule, ScoreKeep):
        return int((ranked >= rule.threshold).sum())
    if isinstance(rule, MarginKeep):
        if len(ranked) <= rule.top_k:
            return len(ranked)
        return int((ranked >= ranked[rule.top_k - 1] - rule.margin).sum())
    chances = np.asarray(probabilities, dtype=np.float64)[order]
    return int((chances >= rule.threshold).sum())
