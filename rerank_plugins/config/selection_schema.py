"""Settings of the adaptive rules: `depth`, `keep` and `cut`, each a number or a table."""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..rules.keep import AsymmetricKeep, Keep, MarginKeep, ProbabilityKeep, ScoreKeep, ShareKeep
from ..rules.selection import (
    Certain,
    Cut,
    Depth,
    GapCut,
    GapDepth,
    MassCut,
    MassDepth,
    NullCut,
    ProbabilityCut,
    Sequential,
)

Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Chance: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _count(value: object) -> object:
    """Read a bare number as {count = number}."""
    return {"count": value} if isinstance(value, int | float) else value


class DepthSettings(_Rule):
    """How many candidates are scored: a count, or what the priors say."""

    count: Positive | None = Field(default=None, description="score this many")
    mass: Chance | None = Field(
        default=None, description="score the head with this share of the softmax of the priors"
    )
    temperature: Annotated[float, Field(gt=0.0)] = Field(
        default=1.0, description="of the softmax, over standardised priors"
    )
    gap: bool = Field(default=False, description="score up to the largest drop of the priors")
    risk: Chance | None = Field(
        default=None, description="the least mass certified for this loss; needs calibrated exits"
    )
    min: Positive = 1
    max: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> "DepthSettings":
        # {min, max} alone means the default rule, so only "more than one" is wrong here.
        _at_most_one(self, ("count", "mass", "gap", "risk"))
        _ordered(self.min, self.max)
        if self.risk is not None and self.max is not None:
            raise ValueError("max would break the promise of risk; keep one of them")
        return self

    def rule(self) -> Depth:
        """Give the rule that the table stands for; the exits resolve `risk`."""
        if self.count is not None:
            return self.count
        if self.gap:
            return GapDepth(self.min, self.max)
        return MassDepth(self.mass or 0.9, self.temperature, self.min, self.max)


class KeepSettings(_Rule):
    """Who goes on to the next stage."""

    count: Positive | None = Field(default=None, description="keep this many, best first")
    share: Share | None = Field(default=None, description="keep this share, best first")
    score: float | None = Field(default=None, description="keep scores of at least this")
    margin: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="keep scores at most this far below the top_k-th best"
    )
    probability: Share | None = Field(
        default=None, description="keep calibrated probabilities of at least this"
    )
    accept: Share | None = Field(
        default=None, description="with reject: settle probabilities over this as relevant"
    )
    reject: Share | None = Field(
        default=None, description="with accept: drop probabilities of irrelevance over this"
    )
    risk: Chance | None = Field(
        default=None, description="hold this loss at the stage's calibrated exits; needs exits"
    )
    top_k: Positive = Field(default=10, description="how much of the head a margin protects")
    min: Count = 1
    max: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> "KeepSettings":
        _exactly_one(self, ("count", "share", "score", "margin", "probability", "accept", "risk"))
        if (self.accept is None) != (self.reject is None):
            raise ValueError("accept and reject come together; give both")
        _ordered(self.min, self.max)
        return self

    def rule(self) -> Keep | None:
        """Give the rule that the table stands for; None for `risk`, which the exits resolve."""
        if self.margin is not None:
            return MarginKeep(self.margin, self.top_k, self.min, self.max)
        if self.accept is not None and self.reject is not None:
            return AsymmetricKeep(self.accept, self.reject, self.min, self.max)
        if self.share is not None:
            return ShareKeep(self.share, self.min, self.max)
        if self.score is not None:
            return ScoreKeep(self.score, self.min, self.max)
        if self.probability is not None:
            return ProbabilityKeep(self.probability, self.min, self.max)
        return self.count


class CutSettings(_Rule):
    """How many hits are returned."""

    count: Positive | None = Field(default=None, description="return this many")
    probability: Share | None = Field(
        default=None, description="return the head with calibrated probabilities of at least this"
    )
    mass: Chance | None = Field(
        default=None, description="return the head with this share of all probabilities (top-p)"
    )
    gap: bool = Field(default=False, description="return what lies before the largest drop")
    buffer: Count = Field(default=0, description="with gap: return this many more")
    nulls: tuple[float, ...] | None = Field(
        default=None, description="scores of random pairs; needs null_rate"
    )
    null_rate: Chance | None = Field(
        default=None, description="share of random-like passages tolerated among those returned"
    )
    min: Count | None = Field(default=None, description="None: 0 or 1, as the rule has it")
    max: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> "CutSettings":
        _exactly_one(self, ("count", "probability", "mass", "gap", "null_rate"))
        if self.nulls is not None and self.null_rate is None:
            raise ValueError("nulls need null_rate, such as null_rate = 0.1")
        _ordered(self.min or 0, self.max)
        return self

    def rule(self, nulls: Sequence[float] = ()) -> Cut | None:
        """Give the rule that the table stands for; `nulls` are the calibrated ones."""
        low = 1 if self.min is None else self.min
        if self.probability is not None:
            return ProbabilityCut(self.probability, self.min or 0, self.max)
        if self.mass is not None:
            return MassCut(self.mass, low, self.max)
        if self.gap:
            return GapCut(low, self.max, self.buffer)
        if self.null_rate is not None:
            found = tuple(sorted(self.nulls or nulls))
            return NullCut(found, self.null_rate, self.min or 0, self.max)
        return self.count


class SkipSettings(_Rule):
    """When the first stage is so sure that nothing is scored."""

    mass: Chance = Field(description="share of the softmax of the priors that the first one holds")
    temperature: Annotated[float, Field(gt=0.0)] = 1.0

    def rule(self) -> Certain:
        """Give the rule that the table stands for."""
        return Certain(self.mass, self.temperature)


class StopSettings(_Rule):
    """When scoring the first stage ends before its depth."""

    epsilon: Chance = Field(
        description="stop when the chance that a candidate left enters the top_k is below this"
    )
    tier: Positive = Field(default=16, description="candidates scored between two looks")
    min: Positive = Field(default=16, description="candidates scored in any case")
    top_k: Positive = Field(default=10, description="how much of the head counts")

    def rule(self) -> Sequential:
        """Give the rule that the table stands for."""
        return Sequential(self.epsilon, self.tier, self.min, self.top_k)


DepthValue: TypeAlias = Annotated[DepthSettings, BeforeValidator(_count)]
KeepValue: TypeAlias = Annotated[KeepSettings, BeforeValidator(_count)]
CutValue: TypeAlias = Annotated[CutSettings, BeforeValidator(_count)]


class SelectionSettings(_Rule):
    """How many candidates are scored and returned."""

    depth: DepthValue | None = Field(
        default=None, description="candidates scored: a number, or a rule; None: all"
    )
    skip: SkipSettings | None = Field(
        default=None, description="score nothing where the first stage is certain"
    )
    stop: StopSettings | None = Field(
        default=None, description="stop scoring where no better candidate is to be expected"
    )
    cut: CutValue | None = Field(
        default=None, description="hits returned: a number, or a rule; None: top_k"
    )
    top_k: Positive | None = Field(
        default=None, description="hits returned unless a call says otherwise"
    )


RULE_TABLES: Mapping[str, type[BaseModel]] = {
    "depth": DepthSettings,
    "keep": KeepSettings,
    "cut": CutSettings,
    "skip": SkipSettings,
    "stop": StopSettings,
}
"""The tables by the key that holds them."""


def _at_most_one(table: _Rule, names: Sequence[str]) -> int:
    given = [name for name in names if getattr(table, name) not in (None, False)]
    if len(given) > 1:
        raise ValueError(f"found {' and '.join(given)}; these exclude each other, keep one")
    return len(given)


def _exactly_one(table: _Rule, names: Sequence[str]) -> None:
    if not _at_most_one(table, names):
        raise ValueError(f"expected a number, or a table with one of {', '.join(names)}")


def _ordered(low: int, high: int | None) -> None:
    if high is not None and low > high:
        raise ValueError(f"min is {low} and max is {high}; expected min <= max")
