"""How far each stage may go for one request: what a plan, the prior and the margins say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..adaptive.planner import RequestPlan
from .request import Resolved
from .run import Run
from .setup import Setup
from .shortlist import Shortlist
from .stage import Stage


@dataclass(frozen=True, slots=True)
class StageLimits:
    """How far the stages may go.

    counts: per stage, how many candidates it may score; None: all that come
    priors: first-stage scores of the texts, and behind them of those beyond the depth
    prior_weight: what the prior counts in who goes on, in [0, 1]: the same as in the order
    margin_factor: factor on margins, and on how many enter a stage
    short_tokens: regular stages cut pairs to about so many tokens; None: as configured
    """

    counts: tuple[int | None, ...] = ()
    priors: tuple[float | None, ...] = ()
    prior_weight: float = 0.0
    margin_factor: float = 1.0
    short_tokens: int | None = None

    def count(self, place: int) -> int | None:
        """Return how many candidates the stage at `place` may score; None: all that come."""
        return self.counts[place] if place < len(self.counts) else None


def entering(stage: Stage, candidates: int, margin_factor: float = 1.0) -> int:
    """Return how many of the candidates enter a stage; a larger factor lets more of them in."""
    if stage.enter is None:
        return candidates
    return min(candidates, math.ceil(margin_factor * stage.enter))


def plan_stages(setup: Setup, asked: Resolved, chosen: Shortlist, run: Run) -> RequestPlan:
    """Return what each regular stage may score in the time left, and claim the workers for it.

    Fallback stages take what is left when their turn comes. A strict request is never cut short.
    """
    places = [place for place, stage in enumerate(setup.stages) if stage.when == "always"]
    texts = chosen.texts[: entering(setup.stages[0], len(chosen.texts), run.margin_factor)]
    left_s = None
    if run.deadline_s is not None and not asked.strict:
        left_s = max(0.0, run.deadline_s - run.clock())
    plan = setup.planner.plan(
        [(setup.stages[place].scorer, setup.stages[place].keep) for place in places],
        [len(text) for text in texts],
        left_s=left_s,
        share=None if left_s is None or run.share is None else run.share(),
    )
    if plan.worker_s is not None and run.claim is not None:
        run.claim.plan(plan.worker_s)
    return replace(plan, counts=_at(places, plan.counts, len(setup.stages)))


def stage_limits(setup: Setup, chosen: Shortlist, plan: RequestPlan, run: Run) -> StageLimits:
    """Return the limits that a plan and the setup put on the stages."""
    return StageLimits(
        counts=plan.counts,
        priors=tuple(chosen.priors),
        prior_weight=setup.prior_weight if setup.fusion == "convex" else 0.0,
        margin_factor=run.margin_factor,
        short_tokens=plan.short_tokens,
    )


def _at(places: Sequence[int], counts: Sequence[int | None], stages: int) -> tuple[int | None, ...]:
    """Return the counts of the regular stages, None for the others."""
    found: list[int | None] = [None] * stages
    for place, count in zip(places, counts, strict=True):
        found[place] = count
    return tuple(found)
