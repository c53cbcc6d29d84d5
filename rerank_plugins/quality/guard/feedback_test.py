"""What an evaluator downstream says about the answers, and whether reranking makes them worse."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..drift.two_sample_tests import normal_sf

Arm: TypeAlias = Literal["configured", "first_stage"]
Outcome: TypeAlias = Literal["worse", "better", "open"]
# Looks at one comparison before it starts afresh: what was true last month may no longer be.
_LOOKS = 20
_LEAST = 20


@dataclass(slots=True)
class Moments:
    """Count, mean and variance of numbers, without keeping them (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Add one number."""
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)

    @property
    def variance(self) -> float:
        """Give the variance of one number."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass(slots=True)
class Trial:
    """Compares feedback on two arms; without a control arm, with what came first.

    The chance to blame reranking wrongly is `alpha` in all the looks of a comparison together: the
    j-th look spends alpha / (j (j + 1)) of it.
    """

    alpha: float
    window: int
    controlled: bool
    arms: dict[Arm, Moments] = field(default_factory=dict)
    first: Moments = field(default_factory=Moments)
    since: int = 0
    looks: int = 0

    def add(self, arm: Arm, score: float) -> Outcome:
        """Add the score in [0, 1] of one answer; every `window` of them are looked at."""
        if not self.controlled and arm == "configured" and self.first.count < self.window:
            self.first.add(score)
            return "open"
        self.arms.setdefault(arm, Moments()).add(score)
        self.since += 1
        if self.since < self.window:
            return "open"
        self.since = 0
        self.looks += 1
        outcome = self._look()
        if self.looks >= _LOOKS:
            self.looks = 0
            self.arms.clear()
        return outcome

    def _look(self) -> Outcome:
        served = self.arms.get("configured", Moments())
        other = self.arms.get("first_stage", Moments()) if self.controlled else self.first
        level = self.alpha / (self.looks * (self.looks + 1))
        if p_less(served, other) <= level:
            return "worse"
        return "better" if p_less(other, served) <= level else "open"


def p_less(left: Moments, right: Moments) -> float:
    """Give the one-sided p-value (Welch, normal) for the left mean being below the right one.

    1.0 with too few numbers to tell.

    >>> low, high = Moments(100, 0.4, 4.0), Moments(100, 0.6, 4.0)
    >>> p_less(low, high) < 1e-6 < p_less(high, low)
    True
    """
    if min(left.count, right.count) < _LEAST:
        return 1.0
    error = math.sqrt(left.variance / left.count + right.variance / right.count)
    gap = right.mean - left.mean
    if error == 0.0:
        return 0.0 if gap > 0.0 else 1.0
    return normal_sf(gap / error)
