"""The data path, top to bottom: from a request to an order."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..adaptive.planner import Effort
from ..errors import DeadlineExceeded, InvalidRequest
from ..records import (
    DEGRADING,
    Code,
    Decision,
    Hit,
    Request,
    Result,
    Timing,
    stages_s,
)
from ..rules import fusion
from ..rules.deadline import FINISH_S
from ..scoring.runtime.fair_share import Share
from . import cascade, routing, shortlist
from .cascade import Course
from .hits import assemble, cut, orders, without_foreign_scores
from .progress import Standing
from .residency import permit
from .setup import Setup
from .shortlist import Shortlist


async def rerank(
    setup: Setup,
    request: Request,
    *,
    deadline_s: float | None,
    submitted_s: float,
    outage: Code | None = None,
    share: Callable[[], Share] | None = None,
    claim: Callable[[float], None] = lambda _: None,
    care: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Answer a checked request. Raises only in strict mode.

    An `outage` says why no local stage can serve. `share` tells what this request may count on,
    others being under way (None: it is alone); `claim` hears of the worker seconds it plans. `care`
    widens the margins of exits.
    """
    started = clock()
    request_id = uuid.uuid4().hex
    chosen = shortlist.choose(request.candidates, setup.depth, skip=setup.skip)
    strict = setup.strict if request.strict is None else request.strict
    if deadline_s is not None:
        deadline_s -= FINISH_S
    left_s = None if deadline_s is None or strict else max(0.0, deadline_s - started)
    entering = cascade.entry(setup.stages[0], len(chosen.texts), care)
    effort = _plan(setup, chosen.texts[:entering], left_s, share)
    if effort.worker_s is not None:
        claim(effort.worker_s)
    selected = clock()
    chosen, standing = await routing.run(
        setup.stages,
        request.query,
        chosen,
        permit=permit(setup, request.candidates, request_id),
        outage=outage,
        course=Course(
            effort.counts,
            stop=setup.stop,
            prior_weight=setup.prior_weight if setup.fusion == "convex" else 0.0,
            care=care,
            short_tokens=effort.short_tokens,
        ),
        deadline_s=deadline_s,
        clock=clock,
    )
    if standing.scored and not any(one.code in DEGRADING for one in standing.decisions):
        setup.planner.learn(effort, stages_s(standing.timings))
    _raise_if_strict(setup, request, chosen, standing)
    fusing = clock()
    hits, fused = assemble(
        request.candidates, chosen, standing, prior_weight=setup.prior_weight, method=setup.fusion
    )
    order = fusion.merge(*orders(chosen, standing, hits))
    hits = without_foreign_scores(setup.stages, hits)
    ended = clock()
    decisions = _decisions(len(request.candidates), chosen, effort, standing, outage, fused)
    timings = (
        Timing("queue", started - submitted_s),
        Timing("select", selected - started),
        *standing.timings,
        Timing("fuse", ended - fusing),
        Timing("total", ended - submitted_s),
    )
    result = Result(
        tuple(hits[i] for i in order),
        order,
        request_id=request_id,
        model=setup.model,
        timings=timings,
        decisions=decisions,
        usage=standing.usage,
        degraded=any(decision.code in DEGRADING for decision in decisions),
        stages=tuple(standing.runs),
        predicted_s=effort.predicted_s,
    )
    return cut(result, request.top_k or setup.top_k, setup.cut, depth=setup.last_depth)


def pass_through(
    setup: Setup, request: Request, code: Code, *, seconds: float, detail: str = ""
) -> Result:
    """Give the first-stage order, without scores, and say why."""
    n = len(request.candidates)
    hits = tuple(Hit(i, None, prior=one.prior) for i, one in enumerate(request.candidates))
    result = Result(
        hits,
        tuple(range(n)),
        request_id=uuid.uuid4().hex,
        model=setup.model,
        timings=(Timing("total", seconds),),
        decisions=(Decision("queue", code, n, detail), Decision("fuse", Code.PASS_THROUGH, n)),
        degraded=True,
    )
    return cut(result, request.top_k or setup.top_k, setup.cut, depth=setup.last_depth)


def _plan(
    setup: Setup, texts: Sequence[str], left_s: float | None, share: Callable[[], Share] | None
) -> Effort:
    """Plan the regular stages; fallbacks take what is left when their turn comes."""
    places = [i for i, stage in enumerate(setup.stages) if stage.when == "always"]
    effort = setup.planner.plan(
        [(setup.stages[i].scorer, setup.stages[i].keep) for i in places],
        [len(text) for text in texts],
        left_s=left_s,
        share=None if left_s is None or share is None else share(),
    )
    counts: list[int | None] = [None] * len(setup.stages)
    for i, count in zip(places, effort.counts, strict=True):
        counts[i] = count
    return replace(effort, counts=tuple(counts))


def _decisions(  # noqa: PLR0917 - all that decided, in the order of the data path
    candidates: int,
    chosen: Shortlist,
    effort: Effort,
    standing: Standing,
    outage: Code | None,
    fused: int,
) -> tuple[Decision, ...]:
    """Put in order what was decided on the way, `fused` candidates having got a fused score."""
    scored = bool(standing.scored) or not chosen.texts
    return (
        *(() if outage is None else (Decision("queue", outage, candidates),)),
        *chosen.decisions,
        *effort.decisions,
        *standing.decisions,
        *((Decision("fuse", Code.FUSED, fused),) if fused else ()),
        *(() if scored else (Decision("fuse", Code.PASS_THROUGH, candidates),)),
    )


def _raise_if_strict(setup: Setup, request: Request, chosen: Shortlist, standing: Standing) -> None:
    if not (setup.strict if request.strict is None else request.strict):
        return
    if standing.failures:
        raise standing.failures[0]
    if standing.withheld and not standing.scored:
        raise standing.withheld[0]
    missed, long = (
        sum(one.count for one in standing.decisions if one.code is code)
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
            f"{request.budget.time_s or setup.budget.time_s} s ended; allow more time, fewer "
            "candidates, or strict=False for the best order so far"
        )
        raise DeadlineExceeded(message)
