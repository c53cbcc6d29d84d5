"""The test of feedback: whether answers are worse with reranking than without it."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..drift.two_sample_tests import normal_sf

Arm: TypeAlias = Literal["configured", "first_stage"]
FeedbackEffect: TypeAlias = Literal["worse", "better", "open"]
# Looks at a comparison before it starts again: what was true last month may no longer be.
_LOOKS = 20
_LEAST_SCORES = 20


@dataclass(slots=True)
class Moments:
    """The count, mean and variance of numbers that are not kept (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Add a number."""
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)

    @property
    def variance(self) -> float:
        """Return the variance of the numbers; 0 for fewer than two."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass(slots=True)
class FeedbackTest:
    """Compares the feedback on two arms; without a control arm, with the first scores.

    It looks at the comparison after every `window` scores. The probability to blame reranking
    wrongly is `alpha` over all looks: the j-th look spends alpha / (j (j + 1)) of it.
    """

    alpha: float
    window: int
    controlled: bool
    arms: dict[Arm, Moments] = field(default_factory=dict)
    first: Moments = field(default_factory=Moments)
    since: int = 0
    looks: int = 0

    def add(self, arm: Arm, score: float) -> FeedbackEffect:
        """Add the score in [0, 1] of an answer; return the effect, "open" between looks."""
        if not self.controlled and arm == "configured" and self.first.count < self.window:
            self.first.add(score)
            return "open"
        self.arms.setdefault(arm, Moments()).add(score)
        self.since += 1
        if self.since < self.window:
            return "open"
        self.since = 0
        self.looks += 1
        effect = self._look()
        if self.looks >= _LOOKS:
            self.looks = 0
            self.arms.clear()
        return effect

    def _look(self) -> FeedbackEffect:
        served = self.arms.get("configured", Moments())
        other = self.arms.get("first_stage", Moments()) if self.controlled else self.first
        level = self.alpha / (self.looks * (self.looks + 1))
        if p_less(served, other) <= level:
            return "worse"
        return "better" if p_less(other, served) <= level else "open"


def p_less(left: Moments, right: Moments) -> float:
    """Return the one-sided p-value (Welch, normal) of the left mean being below the right one.

    It is 1.0 for fewer than 20 numbers on either side.

    >>> low, high = Moments(100, 0.4, 4.0), Moments(100, 0.6, 4.0)
    >>> p_less(low, high) < 1e-6 < p_less(high, low)
    True
    """
    if min(left.count, right.count) < _LEAST_SCORES:
        return 1.0
    error = math.sqrt(left.variance / left.count + right.variance / right.count)
    gap = right.mean - left.mean
    if error == 0.0:
        return 0.0 if gap > 0.0 else 1.0
    return normal_sf(gap / error)
