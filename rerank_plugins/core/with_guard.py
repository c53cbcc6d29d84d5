"""The pipeline with a guard around it: what it sees of a request, and what it changes about it."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from ..errors import RerankError
from ..quality.drift.canaries import CANARIES
from ..quality.guard.guard import Guard, Note
from ..quality.guard.null_passages import PairScorer
from ..quality.guard.stance import Stance
from ..records import DEGRADING, Candidate, Hit, Result
from ..scoring.runtime.fair_share import Claim
from ..scoring.runtime.scheduler import Scheduler
from . import pipeline
from .hits import cut
from .request import Resolved
from .run import Run
from .setup import Setup

# A pair that belongs to no request may wait this long for a worker, and so may all canaries
# together.
_WAIT_S = 30.0


async def rerank(setup: Setup, asked: Resolved, run: Run) -> Result:
    """Return the result of a request, served the way the guard wants it, if there is a guard."""
    guard = setup.guard
    if guard is None:
        return await pipeline.rerank(setup, asked, run)
    stance = guard.stance()
    if stance.scored:
        # The guard wants to see every hit: the result is cut below.
        result = await pipeline.rerank(
            _under(setup, asked, stance), replace(asked, top_k=None), run
        )
    else:
        result = Result.first_stage(
            asked.candidates, request_id=run.request_id, model=setup.model, degraded=False
        )
    _note(guard, asked, result, stance)
    if stance.in_first_order:
        result = _first_order(result, stance)
    elif (decision := stance.decision(len(result.order))) is not None:
        result = replace(
            result,
            decisions=(decision, *result.decisions),
            degraded=result.degraded or decision.code in DEGRADING,
        )
    return cut(result, asked.top_k, setup.cut, depth=setup.last_depth)


def check_canaries(setup: Setup, scheduler: Scheduler) -> None:
    """Let the guard compare the model's scores of its canaries with those of its snapshot."""
    if setup.guard is None or not setup.guard.wants_canaries:
        return
    # A model that cannot score them will say so in requests.
    with contextlib.suppress(RerankError):
        setup.guard.check(canaries(setup, scheduler))


def canaries(setup: Setup, scheduler: Scheduler) -> list[float]:
    """Return the scores of the canaries (fixed pairs); none where text is sent.

    Raises `RerankError`.
    """
    return [] if setup.sends else scheduler.submit(_canaries(setup)).result()


def idle_canaries(setup: Setup, scheduler: Scheduler) -> Callable[[], list[float]]:
    """Return a function that scores the canaries on workers that have nothing else to do.

    It returns no scores where text is sent, where the canaries cannot be scored, or while no
    worker is idle.
    """

    def score() -> list[float]:
        if setup.sends:
            return []
        claim = Claim(math.inf, time.monotonic())
        # A model that cannot score them will say so in requests.
        with contextlib.suppress(Exception):
            under_way = scheduler.submit(_canaries(setup), claim=claim)
            try:
                return under_way.result(timeout=_WAIT_S)
            finally:
                under_way.cancel()
        return []

    return score


def pair_scorer(setup: Setup, scheduler: Scheduler) -> PairScorer | None:
    """Return a function that scores one pair outside of any request; nan where it cannot.

    None where text is sent: a pair of no request is sent nowhere.
    """
    if setup.sends:
        return None

    def score(query: str, text: str) -> float:
        try:
            found = scheduler.submit(_scores(setup, query, [text])).result(timeout=_WAIT_S)
        except (RerankError, TimeoutError):
            return math.nan
        return found[0] if found else math.nan

    return score


async def _canaries(setup: Setup) -> list[float]:
    return [score for query, texts in CANARIES for score in await _scores(setup, query, texts)]


async def _scores(setup: Setup, query: str, texts: Sequence[str]) -> list[float]:
    """Return the scores of texts: no deadline, not seen by the guard, not cut.

    Raises `RerankError`.
    """
    bare = replace(setup, guard=None, depth=None, skip=None, cut=None, top_k=None)
    asked = Resolved(query, tuple(Candidate(text) for text in texts), strict=True)
    result = await pipeline.rerank(bare, asked, Run(time.monotonic()))
    hits = sorted(result.hits, key=attrgetter("index"))
    return [hit.score for hit in hits if hit.score is not None]


def _under(setup: Setup, asked: Resolved, stance: Stance) -> Setup:
    """Return the setup as the guard has a request served, uncut."""
    stages, weight, method = setup.stages, setup.prior_weight, setup.fusion
    if stance.action == "disable_exits":
        stages = setup.full or stages
    elif stance.action == "fallback":
        stages = tuple(stage for stage in stages if stage.when == "fallback")
    elif stance.action == "raise_prior":
        weight = max(weight, stance.prior_weight)
        if any(candidate.prior is None for candidate in asked.candidates):
            method = "reciprocal_ranks"
    return replace(setup, stages=stages, prior_weight=weight, fusion=method, cut=None, top_k=None)


def _note(guard: Guard, asked: Resolved, result: Result, stance: Stance) -> None:
    """Let the guard see a request that nothing else kept from the configured plan."""
    if not any(decision.code in DEGRADING for decision in result.decisions):
        guard.note(Note(result.request_id, asked.query, asked.candidates, result.hits, stance))


def _first_order(result: Result, stance: Stance) -> Result:
    """Return the result in first-stage order, without scores: no threshold must misread them."""
    hits = sorted(result.hits, key=attrgetter("index"))
    decision = stance.decision(len(hits))
    return replace(
        result,
        hits=tuple(_without_scores(hit) for hit in hits),
        order=tuple(range(len(hits))),
        decisions=(*(() if decision is None else (decision,)), *result.decisions),
        degraded=result.degraded or not stance.control,
    )


def _without_scores(hit: Hit) -> Hit:
    return replace(hit, score=None, probability=None, fused=None, relevance=None, score_kind=None)
