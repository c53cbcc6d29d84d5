"""Audits beside the traffic: a request now and then is scored in full, when workers are idle."""

import math
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from ..adaptive.exit_audit import Care, ExitAudit, realised
from ..errors import ClosedError, Overloaded
from ..records import Budget, Request, Result
from ..scoring.runtime.fair_share import Claim
from ..scoring.runtime.scheduler import Scheduler
from . import pipeline
from .setup import Setup

# An audit has this long; its batches are then as short as those of requests in a hurry.
_LIMIT_S = 60.0


class Auditor:
    """Scores a share of one reranker's requests in full, after they were answered.

    One at a time, behind everything else in the queue, with the same stages and nobody dropped;
    what does not come to its end counts as never begun. `told` hears of each loss and of the care
    it led to. Thread-safe.
    """

    def __init__(
        self,
        setup: Setup,
        audit: ExitAudit,
        *,
        told: Callable[[float, float], None],
        clock: Callable[[], float],
        seed: int | None = None,
    ) -> None:
        self.care = Care(audit)
        self._audit = audit
        self._told = told
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - a sample, not a secret
        self._busy = threading.Lock()
        self._setup = replace(
            setup,
            stages=tuple(
                replace(one, keep=None, enter=None) for one in setup.stages if one.when == "always"
            ),
            skip=None,
            stop=None,
            cut=None,
            top_k=None,
            budget=Budget(),
            strict=False,
            exit_audit=None,
        )

    def watch(self, request: Request, answer: Future[Result], scheduler: Scheduler) -> None:
        """Audit a request once it is answered as promised, if chance will have it."""
        if self._random.random() < self._audit.share:
            answer.add_done_callback(lambda done: self._begin(request, done, scheduler))

    def _begin(self, request: Request, done: Future[Result], scheduler: Scheduler) -> None:
        if not _whole(done) or not done.result().stages:
            return
        if not self._busy.acquire(blocking=False):
            return
        now_s = self._clock()
        whole = pipeline.rerank(
            self._setup,
            replace(request, top_k=None, budget=Budget(), strict=False),
            deadline_s=now_s + _LIMIT_S,
            submitted_s=now_s,
            clock=self._clock,
        )
        try:
            full = scheduler.submit(whole, claim=Claim(math.inf, now_s))
        except (Overloaded, ClosedError):
            self._busy.release()
            return
        early = done.result().order
        full.add_done_callback(lambda scored: self._end(early, scored))

    def _end(self, early: tuple[int, ...], scored: Future[Result]) -> None:
        self._busy.release()
        if not _whole(scored):
            return
        loss = realised(self._audit, early, scored.result())
        self.care.note(loss)
        self._told(loss, self.care.factor)


def made(
    setup: Setup, *, told: Callable[[float, float], None], clock: Callable[[], float]
) -> Auditor | None:
    """Make the auditor that a setup asks for."""
    return (
        None
        if setup.exit_audit is None
        else Auditor(setup, setup.exit_audit, told=told, clock=clock)
    )


def _whole(done: Future[Result]) -> bool:
    return not done.cancelled() and done.exception() is None and not done.result().degraded
