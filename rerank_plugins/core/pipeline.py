"""The data path, top to bottom: from a request to an order."""

from ..adaptive.planner import RequestPlan
from ..errors import DeadlineExceeded, InvalidRequest
from ..records import DEGRADING, Code, Decision, Result, Timing, stages_s
from . import hits, residency, routing, shortlist
from .hits import Ranked
from .limits import plan_stages, stage_limits
from .progress import Progress
from .request import Resolved
from .run import Run
from .setup import Setup
from .shortlist import Shortlist


async def rerank(setup: Setup, asked: Resolved, run: Run) -> Result:
    """Return the order of a request's candidates. Raises only in strict mode."""
    started_s = run.clock()
    chosen = shortlist.choose(asked.candidates, setup.depth, skip=setup.skip)
    permit = residency.permit(setup.policy, asked.candidates, run.request_id, setup.audit)
    plan = plan_stages(setup, asked, chosen, run)
    if any(count is not None for count in plan.counts):
        chosen, plan = _without_long(setup, asked, chosen, plan, run)
    selecting = Timing("select", run.clock() - started_s)
    limits = stage_limits(setup, chosen, plan, run)
    chosen, progress = await routing.score(
        setup.stages, asked.query, chosen, permit=permit, limits=limits, run=run
    )
    _learn(setup, plan, progress)
    _raise_if_strict(asked, chosen, progress)
    fusing_s = run.clock()
    ranked = hits.rank(asked.candidates, chosen, progress, setup)
    ended_s = run.clock()
    decisions = _decisions(asked, run, chosen, plan, progress, ranked)
    result = Result(
        ranked.hits,
        ranked.order,
        request_id=run.request_id,
        model=setup.model,
        timings=(
            Timing("queue", started_s - run.submitted_s),
            selecting,
            *progress.timings,
            Timing("fuse", ended_s - fusing_s),
            Timing("total", ended_s - run.submitted_s),
        ),
        decisions=decisions,
        usage=progress.usage,
        degraded=any(decision.code in DEGRADING for decision in decisions),
        stages=tuple(progress.runs),
        predicted_s=plan.predicted_s,
    )
    return hits.cut(result, asked.top_k, setup.cut, depth=setup.last_depth)


def pass_through(
    setup: Setup, asked: Resolved, run: Run, code: Code, *, detail: str = ""
) -> Result:
    """Return the first-stage order, without scores, for the reason that `code` names."""
    n = len(asked.candidates)
    result = Result.first_stage(
        asked.candidates,
        request_id=run.request_id,
        model=setup.model,
        decisions=(Decision("queue", code, n, detail), Decision("fuse", Code.PASS_THROUGH, n)),
        seconds=run.clock() - run.submitted_s,
    )
    return hits.cut(result, asked.top_k, setup.cut, depth=setup.last_depth)


def _without_long(
    setup: Setup, asked: Resolved, chosen: Shortlist, plan: RequestPlan, run: Run
) -> tuple[Shortlist, RequestPlan]:
    """Plan again without texts of extreme length, where not all fit in the time."""
    rest = shortlist.without_long(chosen)
    return (chosen, plan) if rest is chosen else (rest, plan_stages(setup, asked, rest, run))


def _learn(setup: Setup, plan: RequestPlan, progress: Progress) -> None:
    """Correct later plans by what this request took, if it ran as planned."""
    if progress.scored and not any(one.code in DEGRADING for one in progress.decisions):
        setup.planner.learn(plan, stages_s(progress.timings))


def _decisions(  # noqa: PLR0917 - all that decided, in the order of the data path
    asked: Resolved,
    run: Run,
    chosen: Shortlist,
    plan: RequestPlan,
    progress: Progress,
    ranked: Ranked,
) -> tuple[Decision, ...]:
    """Return what was decided on the way, in the order of the data path."""
    n = len(asked.candidates)
    found = [] if run.local_outage is None else [Decision("queue", run.local_outage, n)]
    found += [*chosen.decisions, *plan.decisions, *progress.decisions]
    if ranked.fused:
        found.append(Decision("fuse", Code.FUSED, ranked.fused))
    if chosen.texts and not progress.scored:
        found.append(Decision("fuse", Code.PASS_THROUGH, n))
    return tuple(found)


def _raise_if_strict(asked: Resolved, chosen: Shortlist, progress: Progress) -> None:
    """Raise what a strict caller wants to know instead of a degraded result."""
    if not asked.strict:
        return
    if progress.failures:
        raise progress.failures[0]
    if progress.withheld_errors and not progress.scored:
        raise progress.withheld_errors[0]
    missed, long = (
        sum(decision.count for decision in progress.decisions if decision.code is code)
        for code in (Code.DEADLINE, Code.TOO_LONG)
    )
    if long:
        message = (
            f"{long} of {len(chosen.texts)} candidates are over the token limit and long is "
            '"error"; shorten them, raise max_tokens, or choose long="window" or "truncate"'
        )
        raise InvalidRequest(message)
    if missed:
        message = (
            f"{missed} of {len(chosen.texts)} candidates were not scored when the budget of "
            f"{asked.time_s} s ended; allow more time, fewer candidates, or strict=False for the "
            "best order so far"
        )
        raise DeadlineExceeded(message)
