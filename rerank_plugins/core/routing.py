"""The stages in their order; but where local ones would be late, a remote fallback first."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..records import Code
from ..rules.residency import Permit
from ..scoring import Sends
from . import cascade, shortlist
from .cascade import Course
from .progress import Standing
from .shortlist import Shortlist
from .stage import Stage

# Local stages that can score less than this share of the candidates in time are late: up to there
# fewer candidates cost less quality than another model would.
_SERVED = 0.5
# The share of the time left that a remote fallback may take before the local stages get theirs.
_REMOTE_SHARE = 0.65


async def run(
    stages: Sequence[Stage],
    query: str,
    chosen: Shortlist,
    *,
    permit: Permit,
    course: Course,
    outage: Code | None = None,
    deadline_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Shortlist, Standing]:
    """Run the stages over what is `chosen`; also give back how much of it they were given.

    `course` says what the local stages can do in time. Where that is little and a remote fallback
    may be asked, it is asked first, for everything; what fails leaves the local stages their time.
    """
    tried: Standing | None = None
    due = outage is None and _late(course, len(chosen.texts)) and _helped(stages, permit)
    if deadline_s is not None and due:
        until_s = deadline_s - (1.0 - _REMOTE_SHARE) * (deadline_s - clock())
        tried = await cascade.run(
            stages,
            query,
            chosen.texts,
            permit=permit,
            outage=Code.PLAN,
            deadline_s=until_s,
            clock=clock,
        )
        if tried.scored:
            return chosen, tried
    chosen = shortlist.limited(chosen, course.count(0))
    standing = await cascade.run(
        stages,
        query,
        chosen.texts,
        permit=permit,
        outage=outage,
        course=replace(course, priors=tuple(chosen.priors)),
        deadline_s=deadline_s,
        clock=clock,
    )
    if tried is not None:
        # What had been sent in vain stays on record.
        standing.decisions = tried.decisions + standing.decisions
        standing.timings = tried.timings + standing.timings
        standing.failures = tried.failures + standing.failures
        standing.runs = tried.runs + standing.runs
    return chosen, standing


def _late(course: Course, texts: int) -> bool:
    planned = course.count(0)
    return planned is not None and planned < _SERVED * texts


def _helped(stages: Sequence[Stage], permit: Permit) -> bool:
    return any(
        stage.when == "fallback"
        and isinstance(stage.scorer, Sends)
        and permit.verdict(stage.scorer.destination).allowed
        for stage in stages
    )
