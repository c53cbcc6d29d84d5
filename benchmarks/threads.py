"""How cores are shared out best: a worker on each, or fewer workers with more threads in each run.

    python benchmarks/threads.py --model embedded --cores 8

Workers and a session's threads are fixed when a reranker is built. So this builds one reranker for
each layout, sends the same requests to all of them in turns, and names the layout to configure.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rerank_plugins import Reranker, load
from rerank_plugins.scoring.models.files import EMBEDDED
from rerank_plugins.scoring.runtime import process

SMALL, LARGE = 10, 60
"""Passages of the two requests that are timed."""

# Another layout must be clearly faster for one request, and not slower for the other.
_CLEAR = 1.15
_EVEN = 1.05
# With a smaller share of the cores, other programs had so much that times mean little.
_FREE = 0.85
_LEAST_ROUNDS = 5
_LIMIT_S = 1.5
_QUERY = "how do bees find their way back to the hive"
_TEXT = (
    "foraging honeybees navigate by the position of the sun and by polarised light and learn "
    "landmarks such as trees hedges and buildings on their first flights around the hive where "
    "landmarks and the distance flown disagree they trust the landmarks"
)
_LENGTHS_WORDS = (12, 40, 90, 60, 24, 150, 75, 50, 110, 32)


@dataclass(frozen=True, slots=True)
class Layout:
    """`workers` threads that score requests, each with `inside` threads in an operator."""

    workers: int
    inside: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.inside}"


@dataclass(frozen=True, slots=True)
class Timed:
    """Median seconds of the small and of the large request under a layout."""

    layout: Layout
    small_s: float
    large_s: float


@dataclass(frozen=True, slots=True)
class Layouts:
    """The default layout and the others; `free` is the share of the cores it got, 0 to 1."""

    default: Timed
    others: tuple[Timed, ...]
    free: float

    @property
    def trusted(self) -> bool:
        """True if the cores were free enough for times to mean something.

        On busy cores more threads look faster: they only take more from other programs.
        """
        return self.free >= _FREE

    @property
    def better(self) -> Layout | None:
        """Return the layout that is clearly faster for one request, not slower for the other."""
        gains = {
            timed.layout: (
                self.default.small_s / timed.small_s,
                self.default.large_s / timed.large_s,
            )
            for timed in self.others
        }
        found = [
            layout
            for layout, gain in gains.items()
            if max(gain) >= _CLEAR and min(gain) * _EVEN >= 1.0
        ]
        return (
            max(found, key=lambda layout: max(gains[layout]), default=None)
            if self.trusted
            else None
        )


def layouts(cores: int) -> tuple[Layout, ...]:
    """List layouts that use every core; first the default, a worker per core with one thread.

    >>> [str(layout) for layout in layouts(8)]
    ['8 x 1', '4 x 2', '1 x 8']
    """
    wanted = dict.fromkeys((Layout(cores, 1), Layout(max(1, cores // 2), 2), Layout(1, cores)))
    return tuple(layout for layout in wanted if layout.workers * layout.inside <= cores)


def compare(stage: Mapping[str, object], cores: int) -> Layouts:
    """Time the model of a stage, written as in settings, under every layout."""
    rerankers = {
        layout: load(
            {
                "stages": [{**stage, "intra_threads": layout.inside}],
                "service": {"workers": layout.workers},
            }
        )
        for layout in layouts(cores)
    }
    try:
        for reranker in rerankers.values():
            reranker.warm_up()
        small, _ = _in_turns(rerankers, _passages(SMALL))
        large, free = _in_turns(rerankers, _passages(LARGE))
    finally:
        for reranker in rerankers.values():
            reranker.close()
    default, *others = (Timed(layout, small[layout], large[layout]) for layout in rerankers)
    return Layouts(default, tuple(others), min(1.0, free / cores))


def _in_turns(
    rerankers: Mapping[Layout, Reranker], passages: Sequence[str]
) -> tuple[dict[Layout, float], float]:
    """Return the median seconds under each layout, and how many cores the default one had."""
    taken: dict[Layout, list[float]] = {layout: [] for layout in rerankers}
    default, busy = next(iter(rerankers)), []
    until = time.perf_counter() + _LIMIT_S
    for order in _orders(list(rerankers)):
        if len(busy) >= _LEAST_ROUNDS and time.perf_counter() >= until:
            break
        for layout in order:
            computed, started = time.process_time(), time.perf_counter()
            rerankers[layout].rerank(_QUERY, passages)
            taken[layout].append(time.perf_counter() - started)
            if layout == default:
                busy.append((time.process_time() - computed) / taken[layout][-1])
    medians = {layout: statistics.median(times) for layout, times in taken.items()}
    return medians, statistics.median(busy)


def _orders(turns: list[Layout]) -> Iterator[list[Layout]]:
    """Yield the layouts for ever, another one first in each round."""
    while True:
        yield turns
        turns = [*turns[1:], turns[0]]


def _passages(count: int) -> list[str]:
    """Return distinct passages of mixed lengths."""
    words, passages = _TEXT.split(), []
    for i in range(count):
        start, length = i % len(words), _LENGTHS_WORDS[i % len(_LENGTHS_WORDS)]
        turned = (words[start:] + words[:start]) * (1 + length // len(words))
        passages.append(" ".join([f"note {i}:", *turned[:length]]))
    return passages


def advice(found: Layouts) -> str:
    """Return what to configure, or why nothing can be recommended."""
    if not found.trusted:
        return f"other programs took {1 - found.free:.0%} of the cores: compare again without them"
    if found.better is None:
        return "keep the default"
    return f"set workers = {found.better.workers}, intra_threads = {found.better.inside}"


def main() -> None:
    """Time every layout and print the medians and the advice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=EMBEDDED, help="as for --model of the commands")
    parser.add_argument("--cores", type=int, default=process.cores())
    given = parser.parse_args()
    found = compare({"scorer": given.model}, given.cores)
    print(f"workers x threads inside an operator: ms for {SMALL} and {LARGE} passages")
    for timed in (found.default, *found.others):
        print(f"{timed.layout}: {timed.small_s * 1e3:.1f} and {timed.large_s * 1e3:.1f}")
    print(advice(found))


if __name__ == "__main__":
    main()
