"""Audits of early exits: a share of the requests is scored in full too, on idle workers."""

import math
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from ..adaptive.exit_audit import ExitAudit, MarginFactor, realised_loss
from ..errors import ClosedError, Overloaded
from ..records import Result
from ..scoring.runtime.fair_share import Claim
from ..scoring.runtime.scheduler import Scheduler
from . import pipeline
from .request import Resolved
from .run import Run
from .setup import Setup

# An audit has this long; its batches are then as short as those of requests in a hurry.
_LIMIT_S = 60.0


class ExitAuditor:
    """Scores a share of one reranker's requests in full, after they were answered. Thread-safe.

    One request at a time, behind everything else in the queue, with the same stages and no
    candidate dropped. An audit that does not end is not counted. `on_audit` is called with each
    loss and with the margin factor that follows from it.
    """

    def __init__(
        self,
        setup: Setup,
        audit: ExitAudit,
        *,
        on_audit: Callable[[float, float], None],
        clock: Callable[[], float],
        seed: int | None = None,
    ) -> None:
        self.margin_factor = MarginFactor(audit)
        self._audit = audit
        self._on_audit = on_audit
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - a sample, not a secret
        self._busy = threading.Lock()
        self._setup = replace(
            setup,
            stages=tuple(
                replace(stage, keep=None, enter=None)
                for stage in setup.stages
                if stage.when == "always"
            ),
            skip=None,
            cut=None,
            top_k=None,
            exit_audit=None,
        )

    @classmethod
    def of(
        cls, setup: Setup, *, on_audit: Callable[[float, float], None], clock: Callable[[], float]
    ) -> "ExitAuditor | None":
        """Return the auditor that a setup asks for; None: it asks for none."""
        if setup.exit_audit is None:
            return None
        return cls(setup, setup.exit_audit, on_audit=on_audit, clock=clock)

    def watch(self, asked: Resolved, future: Future[Result], scheduler: Scheduler) -> None:
        """Audit a request once it is answered as promised, if it is drawn."""
        if self._random.random() < self._audit.share:
            future.add_done_callback(partial(self._begin, asked, scheduler))

    def _begin(self, asked: Resolved, scheduler: Scheduler, done: Future[Result]) -> None:
        if not _is_whole(done) or not done.result().stages:
            return
        if not self._busy.acquire(blocking=False):
            return
        now_s = self._clock()
        asked = replace(asked, top_k=None, time_s=None, strict=False)
        run = Run(now_s, deadline_s=now_s + _LIMIT_S, clock=self._clock)
        in_full = pipeline.rerank(self._setup, asked, run)
        try:
            full = scheduler.submit(in_full, claim=Claim(math.inf, now_s))
        except (Overloaded, ClosedError):
            self._busy.release()
            return
        full.add_done_callback(partial(self._end, done.result().order))

    def _end(self, early: tuple[int, ...], full: Future[Result]) -> None:
        self._busy.release()
        if not _is_whole(full):
            return
        loss = realised_loss(self._audit, early, full.result())
        self.margin_factor.update(loss)
        self._on_audit(loss, self.margin_factor.value)


def _is_whole(done: Future[Result]) -> bool:
    """True if a request was answered, and nothing but the configured plan decided its order."""
    return not done.cancelled() and done.exception() is None and not done.result().degraded
