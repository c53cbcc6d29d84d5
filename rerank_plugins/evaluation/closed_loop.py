"""Latency and throughput of concurrent callers that wait for each answer before they ask again."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..records import Result
from ..reranker import Reranker
from .cost import Latency, summarise
from .datasets import Topic
from .rankings import timed


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """What `concurrency` callers got.

    seconds: the whole loop, without the warm-up
    cold_s: the warm-up
    latency: what callers waited, None for no requests
    degraded: requests with a degraded result
    """

    concurrency: int
    requests: int
    seconds: float
    cold_s: float
    latency: Latency | None
    requests_per_s: float
    pairs_per_s: float
    degraded: int


def measure(
    reranker: Reranker,
    topics: Sequence[Topic],
    *,
    requests: int,
    concurrency: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> ClosedLoop:
    """Send `requests` requests, the topics over and over, from `concurrency` threads."""
    cold = time.perf_counter()
    reranker.warm_up()
    started = time.perf_counter()

    def ask(topic: Topic) -> tuple[Result, float]:
        answered = timed(reranker, topic)
        progress()
        return answered

    with ThreadPoolExecutor(concurrency, thread_name_prefix="bench") as callers:
        answers = list(callers.map(ask, itertools.islice(itertools.cycle(topics), requests)))
    seconds = time.perf_counter() - started
    return ClosedLoop(
        concurrency,
        len(answers),
        seconds,
        started - cold,
        summarise([waited for _, waited in answers]),
        len(answers) / seconds,
        sum(result.usage.pairs for result, _ in answers) / seconds,
        sum(result.degraded for result, _ in answers),
    )
