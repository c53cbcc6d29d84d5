"""How cores are shared out: a worker on each, or fewer workers with more threads inside each run.

A session's threads and the workers, which serve all requests and stages, are fixed when a reranker
is made. So this compares rerankers, request by request in turns, and says which one to configure.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..config.build import build_setup
from ..config.schema import ServiceSettings, Settings, StageSettings
from ..reranker import Reranker

SMALL, LARGE = 10, 60
"""Passages of the two requests that are timed."""

# Another split must be clearly better where it is, and not worse elsewhere.
_CLEAR = 1.15
_EVEN = 1.05
# Below this share of the cores, other programs had so much that times say little.
_FREE = 0.85
_QUERY = "how do bees find their way back to the hive"

_TEXT = (
    "foraging honeybees navigate by the position of the sun and by polarised light and learn "
    "landmarks such as trees hedges and buildings on their first flights around the hive where "
    "landmarks and the distance flown disagree they trust the landmarks"
)

_LENGTHS_WORDS = (12, 40, 90, 60, 24, 150, 75, 50, 110, 32)


@dataclass(frozen=True, slots=True)
class Split:
    """So many workers, with so many threads inside an operator."""

    workers: int
    inside: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.inside}"


@dataclass(frozen=True, slots=True)
class Timed:
    """Median seconds of a small and a large request under a split."""

    split: Split
    small_s: float
    large_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The formula's split and the others; `free` is the share of the cores that it got, 0 to 1."""

    formula: Timed
    others: tuple[Timed, ...]
    free: float

    @property
    def trusted(self) -> bool:
        """Tell whether the cores were free enough for times to mean something.

        On busy cores more threads look faster: they only take more from other programs.
        """
        return self.free >= _FREE

    @property
    def better(self) -> Split | None:
        """Name the split that is clearly better for one size and not worse for the other."""
        found = [
            (max(small, large), one.split)
            for one in self.others
            for small, large in [
                (self.formula.small_s / one.small_s, self.formula.large_s / one.large_s)
            ]
            if max(small, large) >= _CLEAR and min(small, large) * _EVEN >= 1.0
        ]
        return max(found, key=lambda one: one[0])[1] if found and self.trusted else None


def candidates(cores: int) -> tuple[Split, ...]:
    """List splits that use every core, the formula's first: a worker a core, one thread each.

    >>> [str(one) for one in candidates(8)]
    ['8 x 1', '4 x 2', '1 x 8']
    """
    splits = (Split(cores, 1), Split(max(1, cores // 2), 2), Split(1, cores))
    return tuple(one for one in dict.fromkeys(splits) if one.workers * one.inside <= cores)


def compare(
    stage: StageSettings, cores: int, clock: Callable[[], float] = time.perf_counter
) -> Comparison:
    """Time a stage's model under every split. Raises `ModelError`, `ConfigError`."""
    made = {split: _reranker(stage, split) for split in candidates(cores)}
    try:
        for reranker in made.values():
            reranker.warm_up()
        small, _ = _in_turns(made, _passages(SMALL), clock)
        large, free = _in_turns(made, _passages(LARGE), clock)
    finally:
        for reranker in made.values():
            reranker.close()
    formula, *others = (Timed(split, small[split], large[split]) for split in made)
    return Comparison(formula, tuple(others), min(1.0, free / cores))


def _reranker(stage: StageSettings, split: Split) -> Reranker:
    alone = stage.model_copy(update={"intra_threads": split.inside, "keep": None, "when": "always"})
    service = ServiceSettings(workers=split.workers)
    return Reranker(build_setup(Settings(stages=[alone], service=service)))


def _in_turns(
    made: Mapping[Split, Reranker],
    passages: Sequence[str],
    clock: Callable[[], float],
    *,
    least: int = 5,
    limit_s: float = 1.5,
) -> tuple[dict[Split, float], float]:
    """Give the median seconds under each split, and how many cores the first one had."""
    taken: dict[Split, list[float]] = {split: [] for split in made}
    busy: list[float] = []
    until = clock() + limit_s
    for order in _orders(list(made)):
        if len(busy) >= least and clock() >= until:
            break
        for split in order:
            computed, started = time.process_time(), clock()
            made[split].rerank(_QUERY, passages)
            taken[split].append(max(1e-9, clock() - started))
            if split is next(iter(made)):
                busy.append((time.process_time() - computed) / taken[split][-1])
    return {one: statistics.median(times) for one, times in taken.items()}, statistics.median(busy)


def _orders(splits: list[Split]) -> Iterator[list[Split]]:
    """Go round for ever, with another one first in each turn."""
    while True:
        yield splits
        splits = [*splits[1:], splits[0]]


def _passages(count: int) -> list[str]:
    """Make distinct passages of mixed lengths."""
    made: list[str] = []
    text = _TEXT.split()
    for i in range(count):
        start, length = i % len(text), _LENGTHS_WORDS[i % len(_LENGTHS_WORDS)]
        words = (text[start:] + text[:start]) * (1 + length // len(text))
        made.append(" ".join([f"note {i}:", *words[:length]]))
    return made
