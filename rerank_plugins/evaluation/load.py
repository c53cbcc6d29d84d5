"""How fast a reranker answers: a closed loop of concurrent callers over real requests."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..records import Result
from ..reranker import Reranker
from .datasets import Topic
from .latency import Latency, summarise


@dataclass(frozen=True, slots=True)
class Load:
    """What `concurrency` callers, each waiting for its answer before it asks again, got.

    `seconds` is the whole loop, `cold_s` the warm-up before it; latencies are what callers waited.
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
    clock: Callable[[], float] = time.perf_counter,
) -> Load:
    """Send `requests` requests, the topics over and over, from `concurrency` threads."""
    cold = clock()
    reranker.warm_up()
    started = clock()

    def ask(topic: Topic) -> tuple[float, Result]:
        asked = clock()
        result = reranker.rerank(topic.query, topic.candidates)
        waited = clock() - asked
        progress()
        return waited, result

    with ThreadPoolExecutor(concurrency, thread_name_prefix="bench") as callers:
        answers = list(callers.map(ask, itertools.islice(itertools.cycle(topics), requests)))
    seconds = clock() - started
    pairs = sum(result.usage.pairs for _, result in answers)
    return Load(
        concurrency,
        len(answers),
        seconds,
        started - cold,
        summarise([waited for waited, _ in answers]),
        len(answers) / seconds,
        pairs / seconds,
        sum(result.degraded for _, result in answers),
    )
