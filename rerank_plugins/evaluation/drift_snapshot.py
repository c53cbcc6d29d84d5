"""A snapshot of drift features: queries reranked with the settings that will serve them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..config.guard import subject
from ..core import with_guard
from ..core.setup import Setup
from ..errors import InvalidRequest
from ..quality.drift.snapshot import Snapshot
from ..quality.guard.guard import Guard
from ..quality.guard.stance import GuardOptions
from ..reranker import Reranker
from ..scoring.runtime.scheduler import Scheduler
from .datasets import Topic

# A guard learns from at least as many.
MIN_REQUESTS = 50


def take(
    setup: Setup, topics: Sequence[Topic], *, progress: Callable[[], None] = lambda: None
) -> Snapshot:
    """Rerank every topic and summarise the features that a guard sees; `progress` after each.

    Unless a stage sends text, each request also scores a passage of another request, and the
    fixed pairs are scored. Raises `InvalidRequest` where too few were scored as configured.
    """
    guard = Guard(GuardOptions(do_no_harm=False, learn=len(topics) + 1, null_every=1))
    with Reranker(replace(setup, guard=guard)) as reranker:
        reranker.warm_up()
        for topic in topics:
            reranker.rerank(topic.query, topic.candidates)
            guard.settle()
            progress()
        with contextlib.closing(Scheduler(1)) as scheduler:
            fixed = with_guard.canaries(setup, scheduler)
        found = guard.learned_snapshot(
            subject=subject(setup.stages), model=setup.model, canaries=fixed
        )
    if found.requests < MIN_REQUESTS:
        raise InvalidRequest(
            f"{found.requests} of {len(topics)} requests were scored as configured; a snapshot "
            f"needs at least {MIN_REQUESTS}, and 300 are better"
        )
    return found
