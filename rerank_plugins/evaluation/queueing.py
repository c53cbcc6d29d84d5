"""How many requests a second a machine takes: measured service times, simulated queues.

A request uses every core, so a server works on requests one after the other, and those that arrive
at random times wait for those before them. With exponential gaps this is the M/G/c queue (Kiefer
and Wolfowitz, "On the theory of queues with many servers", 1955), which has no closed form.
"""

import heapq
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidRequest
from ..reranker import Reranker
from .cost import Latency, summarise
from .datasets import Topic
from .rankings import timed

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Tails settle slowly near saturation: at 95 % load 20,000 requests still left p95 off by a tenth.
ARRIVALS = 100_000


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """What callers wait when `per_s` requests a second arrive, the share `load` of the limit."""

    load: float
    per_s: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many requests `servers` equal machines take.

    service: seconds of requests without a queue
    limit_per_s: requests a second beyond which queues grow without end
    points: in order of load
    chosen: the highest load that keeps the wanted 95th percentile, None if none does
    """

    servers: int
    service: Latency
    limit_per_s: float
    points: tuple[LoadPoint, ...]
    chosen: LoadPoint | None

    def cost_per_million(self, price_per_hour: float) -> float | None:
        """Return the price of a million requests at the chosen load; machines cost this an hour."""
        if self.chosen is None:
            return None
        return price_per_hour * self.servers / (self.chosen.per_s * 3600.0) * 1e6


def service_times(
    reranker: Reranker,
    topics: Sequence[Topic],
    requests: int,
    *,
    progress: Callable[[], None] = lambda: None,
) -> tuple[float, ...]:
    """Time requests one after the other, cycling through the topics, on a warm reranker."""
    reranker.warm_up()
    times = []
    for topic in itertools.islice(itertools.cycle(topics), requests):
        times.append(timed(reranker, topic)[1])
        progress()
    return tuple(times)


def simulate(
    service_s: Sequence[float],
    *,
    servers: int = 1,
    p95_s: float | None = None,
    seed: int = 0,
    arrivals: int = ARRIVALS,
) -> Capacity:
    """Simulate loads from 10 to 95 % of what `servers` can do at these service times.

    The highest load with a 95th percentile within `p95_s` is chosen; `p95_s` defaults to twice
    the 95th percentile of an idle server. Raises `InvalidRequest`.
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
        times = sojourn_times(
            service_s, load * limit, servers=servers, seed=seed, arrivals=arrivals
        )
        waits = summarise(list(times))
        if waits is not None:
            points.append(LoadPoint(load, load * limit, waits))
    wanted = 2.0 * service.p95_s if p95_s is None else p95_s
    # Loads ascend: the last point that keeps the percentile is the highest.
    kept = [point for point in points if point.latency.p95_s <= wanted]
    return Capacity(servers, service, limit, tuple(points), kept[-1] if kept else None)


def sojourn_times(
    service_s: Sequence[float], per_s: float, *, servers: int, seed: int, arrivals: int = ARRIVALS
) -> Iterator[float]:
    """Yield the seconds from arrival to answer of each of `arrivals` requests.

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
