"""Settings of the rules `depth`, `keep`, `cut` and `skip`; the first three may be a bare number."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from ..rules.keep import Keep, MarginKeep, ProbabilityKeep, ShareKeep
from ..rules.selection import Certain, Cut, Depth, GapCut, MassDepth, ProbabilityCut
from .tables import Chance, Count, Positive, Share, Table


def _count(value: object) -> object:
    """Read a bare number as {count = number}."""
    return {"count": value} if isinstance(value, int | float) else value


class DepthSettings(Table):
    """How many candidates are scored: a number, or a rule that reads the retriever's scores."""

    count: Positive | None = Field(default=None, description="score this many")
    mass: Chance | None = Field(
        default=None,
        description="score the first candidates that together hold this share of the softmax of "
        "the priors",
    )
    temperature: Annotated[float, Field(gt=0.0)] = Field(
        default=1.0, description="of the softmax, over standardised priors"
    )
    risk: Chance | None = Field(
        default=None, description="the least mass certified for this loss; needs calibrated exits"
    )
    min: Positive = 1
    max: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> "DepthSettings":
        # {min, max} alone means the default rule, so only "more than one" is wrong here.
        _at_most_one(self, ("count", "mass", "risk"))
        _ordered(self.min, self.max)
        if self.risk is not None and self.max is not None:
            raise ValueError("max would break the promise of risk; keep one of them")
        return self

    def rule(self) -> Depth:
        """Return the rule; `risk` is resolved by the calibrated exits, not here."""
        if self.count is not None:
            return self.count
        return MassDepth(self.mass or 0.9, self.temperature, self.min, self.max)


class KeepSettings(Table):
    """Which candidates go on to the next stage."""

    count: Positive | None = Field(default=None, description="keep this many, best first")
    share: Share | None = Field(default=None, description="keep this share, best first")
    margin: Annotated[float, Field(ge=0.0)] | None = Field(
        default=None, description="keep scores at most this far below the top_k-th best"
    )
    probability: Share | None = Field(
        default=None, description="keep calibrated probabilities of at least this"
    )
    risk: Chance | None = Field(
        default=None, description="hold this loss at the stage's calibrated exits; needs exits"
    )
    top_k: Positive = Field(default=10, description="with margin: the best this many always go on")
    min: Count = 1
    max: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> "KeepSettings":
        _exactly_one(self, ("count", "share", "margin", "probability", "risk"))
        _ordered(self.min, self.max)
        return self

    def rule(self) -> Keep | None:
        """Return the rule; None for `risk`, which the calibrated exits resolve."""
        if self.margin is not None:
            return MarginKeep(self.margin, self.top_k, self.min, self.max)
        if self.share is not None:
            return ShareKeep(self.share, self.min, self.max)
        if self.probability is not None:
            return ProbabilityKeep(self.probability, self.min, self.max)
        return self.count


class CutSettings(Table):
    """How many hits are returned."""

    count: Positive | None = Field(default=None, description="return this many")
    probability: Share | None = Field(
        default=None,
        description="return the first hits, up to a calibrated probability below this",
    )
    gap: bool = Field(default=False, description="return the hits before the largest drop")
    buffer: Count = Field(default=0, description="with gap: return this many more")
    min: Count | None = Field(default=None, description="None: 0 with probability, else 1")
    max: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> "CutSettings":
        _exactly_one(self, ("count", "probability", "gap"))
        _ordered(self.min or 0, self.max)
        return self

    def rule(self) -> Cut | None:
        """Return the rule."""
        if self.probability is not None:
            return ProbabilityCut(self.probability, self.min or 0, self.max)
        if self.gap:
            return GapCut(1 if self.min is None else self.min, self.max, self.buffer)
        return self.count


class SkipSettings(Table):
    """When the first stage is so sure that nothing is scored."""

    mass: Chance = Field(description="share of the softmax of the priors that the first one holds")
    temperature: Annotated[float, Field(gt=0.0)] = 1.0

    def rule(self) -> Certain:
        """Return the rule."""
        return Certain(self.mass, self.temperature)


DepthValue: TypeAlias = Annotated[DepthSettings, BeforeValidator(_count)]
KeepValue: TypeAlias = Annotated[KeepSettings, BeforeValidator(_count)]
CutValue: TypeAlias = Annotated[CutSettings, BeforeValidator(_count)]


class SelectionSettings(Table):
    """How many candidates are scored and returned."""

    depth: DepthValue | None = Field(
        default=None, description="candidates scored: a number, or a rule; None: all"
    )
    skip: SkipSettings | None = Field(
        default=None, description="score nothing where the first stage is certain"
    )
    cut: CutValue | None = Field(
        default=None, description="hits returned: a number, or a rule; None: top_k"
    )
    top_k: Positive | None = Field(
        default=None, description="hits returned unless a call says otherwise"
    )


def _at_most_one(table: Table, names: Sequence[str]) -> int:
    given = [name for name in names if getattr(table, name) not in (None, False)]
    if len(given) > 1:
        raise ValueError(f"found {' and '.join(given)}; these exclude each other, keep one")
    return len(given)


def _exactly_one(table: Table, names: Sequence[str]) -> None:
    if not _at_most_one(table, names):
        raise ValueError(f"expected a number, or a table with one of {', '.join(names)}")


def _ordered(low: int, high: int | None) -> None:
    if high is not None and low > high:
        raise ValueError(f"min is {low} and max is {high}; expected min <= max")
