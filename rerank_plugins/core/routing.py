"""Local stages in their order; or, where they would be late, a remote fallback first."""

from collections.abc import Sequence
from dataclasses import replace

from ..records import Code
from ..rules.deadline import FALLBACK_SHARE, LOCAL_SHARE
from ..rules.residency import Permit
from ..scoring import Sends
from . import cascade, shortlist
from .limits import StageLimits
from .progress import Progress
from .run import Run
from .shortlist import Shortlist
from .stage import Stage


async def score(
    stages: Sequence[Stage],
    query: str,
    chosen: Shortlist,
    *,
    permit: Permit,
    limits: StageLimits,
    run: Run,
) -> tuple[Shortlist, Progress]:
    """Return what the stages found out, and how much of the shortlist they were given.

    Where the local stages can score little in time and a remote fallback may be asked, it is asked
    first, for the whole shortlist. If it fails, the local stages still have their time.
    """
    tried: Progress | None = None
    deadline_s = run.deadline_s
    late = run.local_outage is None and _is_late(limits, len(chosen.texts))
    if deadline_s is not None and late and _can_ask_fallback(stages, permit):
        until_s = deadline_s - FALLBACK_SHARE * (deadline_s - run.clock())
        first = replace(run, local_outage=Code.PLAN, deadline_s=until_s)
        tried = await cascade.score(
            stages, query, chosen.texts, permit=permit, limits=StageLimits(), run=first
        )
        if tried.scored:
            return chosen, tried
    chosen = shortlist.limited(chosen, limits.count(0))
    progress = await cascade.score(
        stages, query, chosen.texts, permit=permit, limits=limits, run=run
    )
    if tried is not None:
        # What had been sent in vain stays on record.
        progress.decisions = tried.decisions + progress.decisions
        progress.timings = tried.timings + progress.timings
        progress.failures = tried.failures + progress.failures
        progress.runs = tried.runs + progress.runs
    return chosen, progress


def _is_late(limits: StageLimits, texts: int) -> bool:
    """True if the plan lets the first local stage score too few of the texts."""
    planned = limits.count(0)
    return planned is not None and planned < LOCAL_SHARE * texts


def _can_ask_fallback(stages: Sequence[Stage], permit: Permit) -> bool:
    """True if there is a remote fallback and the residency policy lets the request be sent."""
    return any(
        stage.when == "fallback"
        and isinstance(stage.scorer, Sends)
        and permit.verdict(stage.scorer.destination).allowed
        for stage in stages
    )
