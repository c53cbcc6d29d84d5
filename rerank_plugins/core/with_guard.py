"""The data path under guard: what it sees of each request, and what it changes about it."""

import contextlib
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ..errors import RerankError
from ..quality.drift.canaries import CANARIES
from ..quality.guard import Guard, Note, Score, Stance
from ..records import DEGRADING, Candidate, Hit, Request, Result
from ..scoring.runtime.fair_share import Claim
from ..scoring.runtime.scheduler import Scheduler
from . import hits, pipeline
from .setup import Setup

Answer: TypeAlias = Callable[[Setup, Request], Awaitable[Result]]
"""Answers a request by a setup."""

# A pair of no request may wait this long for a worker, and so may all the fixed pairs together.
_APART_S = 30.0


async def rerank(setup: Setup, request: Request, answer: Answer) -> Result:
    """Have a request answered the way the guard wants it served."""
    guard = setup.guard
    if guard is None:
        return await answer(setup, request)
    stance = guard.stance()
    if stance.scored:
        result = await answer(_under(setup, request, stance), replace(request, top_k=None))
    else:
        result = _without_scores(setup, request)
    _note(guard, request, result, stance)
    if stance.in_first_order:
        result = _first_order(result, stance)
    elif (decision := stance.decision(len(result.order))) is not None:
        result = replace(
            result,
            decisions=(decision, *result.decisions),
            degraded=result.degraded or decision.code in DEGRADING,
        )
    return hits.cut(result, request.top_k or setup.top_k, setup.cut, depth=setup.last_depth)


def recognise(setup: Setup, scheduler: Scheduler) -> None:
    """Let the guard know the model again, or not, by the fixed pairs of its snapshot."""
    if setup.guard is None or not setup.guard.wants_canaries:
        return
    # A model that cannot score them will say so in requests.
    with contextlib.suppress(RerankError):
        setup.guard.check(canaries(setup, scheduler))


def canaries(setup: Setup, scheduler: Scheduler) -> list[float]:
    """Score the fixed pairs; none where text is sent. Raises `RerankError`."""
    return [] if setup.sends else scheduler.submit(_fixed(setup)).result()


def at_leisure(setup: Setup, scheduler: Scheduler) -> Callable[[], list[float]]:
    """Give what has the fixed pairs scored by workers with nothing else to do.

    It gives none where text is sent, where they cannot be scored, or while no worker is idle.
    """

    def score() -> list[float]:
        if setup.sends:
            return []
        claim = Claim(math.inf, time.monotonic())
        # A model that cannot score them will say so in requests.
        with contextlib.suppress(Exception):
            under_way = scheduler.submit(_fixed(setup), claim=claim)
            try:
                return under_way.result(timeout=_APART_S)
            finally:
                under_way.cancel()
        return []

    return score


def apart(setup: Setup, scheduler: Scheduler) -> Score | None:
    """Give what scores one pair outside of any request, nan where it cannot.

    None where text is sent: a pair of no request goes nowhere.
    """
    if setup.sends:
        return None

    def score(query: str, text: str) -> float:
        try:
            found = scheduler.submit(_scored(setup, query, [text])).result(timeout=_APART_S)
        except (RerankError, TimeoutError):
            return math.nan
        return found[0] if found else math.nan

    return score


async def _fixed(setup: Setup) -> list[float]:
    return [score for query, texts in CANARIES for score in await _scored(setup, query, texts)]


async def _scored(setup: Setup, query: str, texts: Sequence[str]) -> list[float]:
    """Score texts by the stages, in no hurry, unwatched and uncut. Raises `RerankError`."""
    bare = replace(
        setup, guard=None, depth=None, skip=None, stop=None, cut=None, top_k=None, strict=True
    )
    request = Request(query, tuple(Candidate(text) for text in texts))
    result = await pipeline.rerank(
        bare, request, deadline_s=None, submitted_s=time.monotonic(), clock=time.monotonic
    )
    hits = sorted(result.hits, key=lambda hit: hit.index)
    return [hit.score for hit in hits if hit.score is not None]


def _under(setup: Setup, request: Request, stance: Stance) -> Setup:
    """Give the setup as the guard has a request served, uncut: it wants to see everything."""
    stages, weight, method = setup.stages, setup.prior_weight, setup.fusion
    if stance.action == "disable_exits":
        stages = setup.full or stages
    elif stance.action == "fallback":
        stages = tuple(stage for stage in stages if stage.when == "fallback")
    elif stance.action == "raise_prior":
        weight = max(weight, stance.prior_weight)
        if any(one.prior is None for one in request.candidates):
            method = "reciprocal_ranks"
    return replace(setup, stages=stages, prior_weight=weight, fusion=method, cut=None, top_k=None)


def _note(guard: Guard, request: Request, result: Result, stance: Stance) -> None:
    """Leave the guard a note, of requests that nothing else kept from the configured plan."""
    if any(one.code in DEGRADING for one in result.decisions):
        return
    note = Note(result.request_id, request.query, request.candidates, result.hits, stance)
    guard.note(note)


def _without_scores(setup: Setup, request: Request) -> Result:
    hits = tuple(Hit(i, None, prior=one.prior) for i, one in enumerate(request.candidates))
    return Result(hits, tuple(range(len(hits))), request_id=uuid.uuid4().hex, model=setup.model)


def _first_order(result: Result, stance: Stance) -> Result:
    """Answer in first-stage order, without scores: no threshold must misread them."""
    hits = sorted(result.hits, key=lambda hit: hit.index)
    decision = stance.decision(len(hits))
    return replace(
        result,
        hits=tuple(replace(hit, score=None, probability=None, fused=None) for hit in hits),
        order=tuple(range(len(hits))),
        decisions=(*(() if decision is None else (decision,)), *result.decisions),
        degraded=result.degraded or not stance.control,
    )
