"""What a model's batches cost here, how large they may be, and which may still start."""

import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...rules.batching import Batch, plan, spread
from ...rules.cost_model import Meter
from ...rules.deadline import BATCH_S, BATCH_SHARE
from ..runtime import process
from ..runtime.jobs import Job
from ..text.pairs import Pairs
from .graph import cache

R = TypeVar("R")
BatchSize: TypeAlias = tuple[int, int]
"""How many pairs a batch has, and how many tokens each of them."""

DEFAULT_BATCH_TOKENS = 512
# The length of a typical pair.
_TYPICAL_TOKENS = 64

_MAX_PADDING = 0.03
# Under a deadline, batches are planned for so many consecutive pairs at a time.
_TIER_PAIRS = 16
# What is assumed of text until some was tokenised, and the weight of what is seen later.
_CHARS_PER_TOKEN, _OVERHEAD_TOKENS, _SMOOTHING = 4.0, 16.0, 0.1
# The lengths that warm-up times, and the most pairs of a batch.
_TIMED_LENGTHS_TOKENS, _MOST_TIMED_PAIRS = (16, 64, 128, 256), 64
# The sizes that warm-up chooses from. A bigger batch wastes padding and makes other requests wait:
# it must be so much faster.
_BATCH_TOKENS, _MUST_GAIN = (128, 256, 512, 1024, 2048), 0.05
# If a batch takes so many times less than what an earlier process measured, that was measured
# under load.
_MUST_SAVE = 1.5


@dataclass(frozen=True, slots=True)
class Costs:
    """What warm-up measures.

    batch_tokens: the best size of a batch, in padded tokens
    seconds: what a batch of each of `sizes` takes while all workers compute one
    """

    batch_tokens: int
    sizes: tuple[BatchSize, ...]
    seconds: tuple[float, ...]


class Throughput:
    """How fast one model reads and computes here, measured and then learnt. Thread-safe.

    Reading is tokenisation. Computing is what `meter` knows, with `intra_threads` for each batch.

    most_chars: about how far into a passage is read, at most
    workers: threads that compute for this model; None: as many as keep the usable cores busy
    """

    def __init__(
        self,
        *,
        max_tokens: int,
        batch_tokens: int,
        intra_threads: int = 1,
        most_chars: int = sys.maxsize,
        workers: int | None = None,
    ) -> None:
        self.meter = Meter()
        self.most_chars = most_chars
        self._workers = workers
        self.batch_tokens = batch_tokens
        self._intra_threads = intra_threads
        self._max_tokens = max_tokens
        self._chars_per_token = _CHARS_PER_TOKEN
        self._overhead_tokens = _OVERHEAD_TOKENS
        self._char_s = 0.0
        self._readings = 0
        self._measured = False
        self._lock = threading.Lock()

    @property
    def workers(self) -> int:
        """Count the workers that the process may use now."""
        return self._workers or process.workers(self._intra_threads)

    def calibrate_once(self, measure: Callable[[], Costs]) -> None:
        """Take over what `measure` returns; later calls do nothing."""
        with self._lock:
            if self._measured:
                return
            costs = measure()
            self.batch_tokens = costs.batch_tokens
            self.meter.calibrate(costs.sizes, costs.seconds)
            self._measured = True

    def kept_costs(
        self,
        cache_key: str,
        fixed_tokens: int | None,
        run_filler: Callable[[int, int], object],
        time_batch: Callable[[int, int], float],
        *,
        longest_tokens: int,
    ) -> Costs:
        """Return what an earlier process measured if it still holds, or measure and save it.

        cache_key: what the measurement is kept under; "": it is not kept
        fixed_tokens: the size of a batch, where an option says it
        run_filler: runs so many texts of so many tokens
        longest_tokens: what is run first, so that memory is reserved before anything is timed
        """
        path = self._costs_path(cache_key, fixed_tokens)
        known = None if path is None else load(path)
        if known is not None:
            known = rescaled(known, partial(self._time_twice, time_batch))
        if known is None:
            run_filler(1, longest_tokens)
            size = fixed_tokens or best_batch_tokens(partial(self._run_about, run_filler))
            known = self.measure(size, time_batch)
            if path is not None:
                save(known, path)
        return known

    def measure(self, batch_tokens: int, time_batch: Callable[[int, int], float]) -> Costs:
        """Time short and long batches, with one pair and with up to `batch_tokens`."""
        sizes = tuple(
            (pairs, length)
            for length in sorted({min(timed, self._max_tokens) for timed in _TIMED_LENGTHS_TOKENS})
            for pairs in sorted({1, max(1, min(_MOST_TIMED_PAIRS, batch_tokens // length))})
        )
        return Costs(batch_tokens, sizes, tuple(self.time(sizes, time_batch)))

    def time(
        self, sizes: Sequence[BatchSize], time_batch: Callable[[int, int], float]
    ) -> list[float]:
        """Return the seconds of batches as they will run: on every worker at once."""
        workers = self.workers
        with ThreadPoolExecutor(workers) as pool:
            runs = list(pool.map(partial(_times, time_batch), [sizes] * workers))
        return [statistics.median(seconds) for seconds in zip(*runs, strict=True)]

    def _costs_path(self, cache_key: str, fixed_tokens: int | None) -> Path | None:
        folder = cache.usable() if cache_key else None
        if folder is None:
            return None
        threads = f"{self.workers}x{self._intra_threads}"
        size = f"{self._max_tokens}-{fixed_tokens or 'auto'}"
        return folder / f"{cache_key}-{threads}-{size}.json"

    def _time_twice(self, time_batch: Callable[[int, int], float], size: BatchSize) -> float:
        return min(self.time([size] * 2, time_batch))

    def _run_about(self, run_filler: Callable[[int, int], object], tokens: int) -> None:
        length = min(_TYPICAL_TOKENS, self._max_tokens)
        run_filler(max(1, tokens // length), length)

    def observe_reading(
        self, chars: int, pairs: Pairs, seconds: float, *, cut: bool = False
    ) -> None:
        """Learn from a request that was tokenised; cached passages rightly make it look cheap.

        `cut`: passages were cut for a plan, and what was cut counts as read.
        """
        read = sum(map(len, pairs.ids))
        if not read or not chars:
            return
        overhead = (pairs.tokens - read) / len(pairs.ids)
        read += int(pairs.truncated.sum()) if cut else 0
        self._readings += 1
        weight = max(_SMOOTHING, 1.0 / self._readings)
        self._chars_per_token += weight * (chars / read - self._chars_per_token)
        self._char_s += weight * (seconds / chars - self._char_s)
        self._overhead_tokens += weight * (overhead - self._overhead_tokens)

    def price_s(
        self, chars: Sequence[int], *, read: bool = True, short_tokens: int | None = None
    ) -> float:
        """Predict worker seconds per pair, of passages with so many characters; 0.0: unknown.

        `read` adds tokenisation. Pairs over `short_tokens` are cut.
        """
        if not chars or not self.meter.ready:
            return 0.0
        chars = [min(count, self.most_chars) for count in chars]
        computed = sum(chars) / len(chars)
        if short_tokens is not None:
            most = max(0.0, short_tokens - self._overhead_tokens) * self._chars_per_token
            computed = sum(min(count, most) for count in chars) / len(chars)
        expected = round(computed / self._chars_per_token + self._overhead_tokens)
        tokens = max(1, min(self._max_tokens, expected))
        together = max(1, self.batch_tokens // tokens)
        computing = self.meter.seconds(together, tokens) / together
        return computing + (self.read_s(chars) if read else 0.0)

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict the seconds that tokenising a passage takes; 0.0: unknown."""
        read = sum(min(count, self.most_chars) for count in chars)
        return self._char_s * read / len(chars) if chars else 0.0

    def batches(self, lengths: NDArray[np.int64], *, left_s: float | None) -> tuple[Batch, ...]:
        """Plan batches: to end soonest, or under a deadline tier by tier in small steps."""
        if left_s is None:
            return spread(
                lengths,
                workers=self.workers,
                max_batch_tokens=self.batch_tokens,
                max_padding=_MAX_PADDING,
                overhead_tokens=self.meter.overhead_tokens,
            )
        most_tokens = self.batch_tokens
        if len(lengths):
            part_s = min(BATCH_S, max(0.0, left_s) * BATCH_SHARE)
            affordable = self.meter.affordable_tokens(part_s, int(lengths.mean()))
            most_tokens = min(most_tokens, affordable)
        return plan(
            lengths,
            max_batch_tokens=most_tokens,
            max_padding=_MAX_PADDING,
            tier_pairs=_TIER_PAIRS,
        )

    def admission(
        self, deadline_s: float | None, clock: Callable[[], float]
    ) -> Callable[[Job[R]], bool] | None:
        """Return what admits a job: it is predicted to end by the deadline. None: every job may.

        A request whose first batch is refused makes the meter doubt what it has learnt.
        """
        if deadline_s is None:
            return None
        tried = False

        def admit(job: Job[R]) -> bool:
            nonlocal tried
            first, tried = not tried, True
            length = job.length_tokens or 1
            left_s = deadline_s - clock()
            admitted = self.meter.seconds(job.tokens // length, length, sure=True) <= left_s
            if first and not admitted:
                self.meter.doubt(job.tokens // length, length, left_s)
            return admitted

        return admit


def best_batch_tokens(
    run: Callable[[int], object],
    *,
    limit_s: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the smallest batch, in padded tokens, that is within 5 % of the fastest per token.

    `run` computes a batch of about so many tokens. Sizes grow until the measuring has taken
    `limit_s` or a bigger size would pass it; each counts with the better of two runs.
    """
    started = clock()
    best, best_token_s = DEFAULT_BATCH_TOKENS, math.inf
    for size in _BATCH_TOKENS:
        token_s = min(seconds_of(partial(run, size), clock) for _ in range(2)) / size
        if token_s < best_token_s * (1.0 - _MUST_GAIN):
            best, best_token_s = size, token_s
        # The next size takes twice as long, twice.
        if clock() - started + 4 * size * token_s > limit_s:
            break
    return best


def seconds_of(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return how long `run` takes."""
    started = clock()
    run()
    return clock() - started


def save(costs: Costs, path: Path) -> None:
    """Write costs for the next process, where the folder can be written."""
    cache.write(path, json.dumps(asdict(costs)).encode())


def load(path: Path) -> Costs | None:
    """Return the costs that an earlier process measured, None where the file is of no use."""
    try:
        facts = json.loads(cache.read(path) or b"")
        sizes = tuple((int(pairs), int(length)) for pairs, length in facts["sizes"])
        costs = Costs(int(facts["batch_tokens"]), sizes, tuple(map(float, facts["seconds"])))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    sound = sizes and len(sizes) == len(costs.seconds) and costs.batch_tokens > 0
    possible = all(math.isfinite(seconds) and seconds > 0.0 for seconds in costs.seconds)
    return costs if sound and possible else None


def rescaled(costs: Costs, time_batch: Callable[[BatchSize], float]) -> Costs | None:
    """Time one typical pair again and return the costs at the machine's present speed, or None.

    None where the pair is much faster than it was: what was measured under load must not last.
    Where it is slower, the machine is loaded now, and earlier costs say more than new ones would.

    >>> rescaled(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0045)
    Costs(batch_tokens=512, sizes=((1, 64), (8, 64)), seconds=(0.0045, 0.03))
    >>> rescaled(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0015)
    """
    known = dict(zip(costs.sizes, costs.seconds, strict=True))
    size = min(known, key=lambda size: (size[0], abs(size[1] - _TYPICAL_TOKENS)))
    ratio = time_batch(size) / known[size]
    if ratio * _MUST_SAVE < 1.0:
        return None
    seconds = tuple(float(f"{before * ratio:.6g}") for before in costs.seconds)
    return replace(costs, seconds=seconds)


def _times(time_batch: Callable[[int, int], float], sizes: Sequence[BatchSize]) -> list[float]:
    return [time_batch(*size) for size in sizes]
