"""How many requests a second a machine takes: measured service times, simulated queues.

One request uses every core, so a server works on one after the other; requests that come at random
wait for those before them. With exponential gaps this is the M/G/c queue (Kiefer and Wolfowitz,
"On the theory of queues with many servers", 1955), simulated because it has no closed form.
"""

import heapq
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidRequest
from ..reranker import Reranker
from .datasets import Topic
from .latency import Latency, summarise

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Tails settle slowly near saturation: at 95 % load 20,000 requests still left p95 off by a tenth.
ARRIVALS = 100_000


@dataclass(frozen=True, slots=True)
class Point:
    """What callers wait when requests come at `per_s`, which is `load` (0 to 1) of the limit."""

    load: float
    per_s: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Capacity:
    """What `servers` equal machines take.

    `limit_per_s`: requests a second beyond which queues grow without end; `points` in order of
    load; `chosen`: the highest load that keeps the wanted 95th percentile, None if none does.
    """

    servers: int
    service: Latency
    limit_per_s: float
    points: tuple[Point, ...]
    chosen: Point | None

    def cost_per_million(self, price_per_hour: float) -> float | None:
        """Give the money for a million requests at the chosen load, at a price per machine."""
        if self.chosen is None:
            return None
        return price_per_hour * self.servers / (self.chosen.per_s * 3600.0) * 1e6


def service_times(
    reranker: Reranker,
    topics: Sequence[Topic],
    requests: int,
    *,
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """Time requests one after the other, the topics over and over, on a warm reranker."""
    reranker.warm_up()
    times = []
    for topic in itertools.islice(itertools.cycle(topics), requests):
        asked = clock()
        reranker.rerank(topic.query, topic.candidates)
        times.append(clock() - asked)
        progress()
    return tuple(times)


def foresee(
    service_s: Sequence[float],
    *,
    servers: int = 1,
    p95_s: float | None = None,
    seed: int = 0,
    arrivals: int = ARRIVALS,
) -> Capacity:
    """Simulate loads from 10 to 95 % of what `servers` can do at these service times.

    Chosen is the highest load with a 95th percentile within `p95_s`; without one, the highest
    whose 95th percentile is at most twice that of an idle server. Raises `InvalidRequest`.
    """
    service = summarise(service_s)
    if service is None or min(service_s) <= 0.0 or servers < 1:
        raise InvalidRequest(
            f"found {len(service_s)} service times and {servers} servers; expected at least one of "
            "each, and times above 0"
        )
    limit = servers / statistics.fmean(service_s)
    points = []
    for load in LOADS:
        times = sojourns(service_s, load * limit, servers=servers, seed=seed, arrivals=arrivals)
        waits = summarise(list(times))
        if waits is not None:
            points.append(Point(load, load * limit, waits))
    wanted = 2.0 * service.p95_s if p95_s is None else p95_s
    kept = [point for point in points if point.latency.p95_s <= wanted]
    return Capacity(servers, service, limit, tuple(points), max(kept, key=_load, default=None))


def sojourns(
    service_s: Sequence[float], per_s: float, *, servers: int, seed: int, arrivals: int = ARRIVALS
) -> Iterator[float]:
    """Give each of `arrivals` requests' time from arrival to answer, in seconds.

    Gaps are exponential, service times drawn from those measured, first come first served.
    """
    draw = np.random.default_rng(seed)
    comes_at = np.cumsum(draw.exponential(1.0 / per_s, arrivals)).tolist()
    takes = draw.choice(np.asarray(service_s), arrivals).tolist()
    free_at = [0.0] * servers
    for now, taken in zip(comes_at, takes, strict=True):
        end = max(now, free_at[0]) + taken
        heapq.heapreplace(free_at, end)
        yield end - now


def _load(point: Point) -> float:
    return point.load
