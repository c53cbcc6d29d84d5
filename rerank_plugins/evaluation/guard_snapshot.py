"""A snapshot for the guard: requests sent through a setup, as its service would answer them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..config.guard import subject
from ..core import with_guard
from ..core.setup import Setup
from ..errors import InvalidRequest
from ..quality.drift import Snapshot
from ..quality.guard import Guard, GuardOptions
from ..reranker import Reranker
from ..scoring.runtime.scheduler import Scheduler
from .datasets import Topic

# Fewer make no law: a guard learns from at least as many.
MIN_REQUESTS = 50


def take(
    setup: Setup, topics: Sequence[Topic], *, progress: Callable[[], None] = lambda: None
) -> Snapshot:
    """Rerank every topic and sum up what a guard sees; call `progress` after each.

    Each request is paired with a passage of another one and the fixed pairs are scored, unless
    text is sent. Raises `InvalidRequest` where too few were scored as configured.
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
        found = guard.learnt(subject=subject(setup.stages), model=setup.model, canaries=fixed)
    if found.requests < MIN_REQUESTS:
        message = (
            f"{found.requests} of {len(topics)} requests were scored as configured; a snapshot "
            f"needs at least {MIN_REQUESTS}, and 300 are better"
        )
        raise InvalidRequest(message)
    return found
