"""Keep rules: which candidates go on to the next stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class ShareKeep:
    """Keep the best `share` of the candidates, from `min` to `max` of them."""

    share: float
    min: int = 1
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


Keep: TypeAlias = int | ShareKeep | MarginKeep | ProbabilityKeep
"""Who goes on to the next stage; a number is that many, best first."""


def apply(
    rule: Keep | None, scores: Sequence[float], probabilities: Sequence[float] | None
) -> tuple[int, ...]:
    """Return the places of those who go on, best first; ties keep their given order.

    Where a rule reads probabilities and there are none, all go on.

    >>> apply(2, [0.1, 3.0, 2.0], None)
    (1, 2)
    >>> apply(MarginKeep(1.5, top_k=1), [0.1, 3.0, 2.0], None)
    (1, 2)
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    n = len(values)
    if rule is None or (isinstance(rule, ProbabilityKeep) and probabilities is None):
        return tuple(order.tolist())
    if isinstance(rule, int):
        return tuple(order[:rule].tolist())
    if isinstance(rule, ShareKeep):
        wanted = int(np.ceil(rule.share * n))
    elif isinstance(rule, MarginKeep):
        bar = values[order[rule.top_k - 1]] - rule.margin if n > rule.top_k else -np.inf
        wanted = int((values >= bar).sum())
    else:
        wanted = int((np.asarray(probabilities, dtype=np.float64) >= rule.threshold).sum())
    count = min(max(wanted, rule.min), n if rule.max is None else rule.max)
    return tuple(order[:count].tolist())
