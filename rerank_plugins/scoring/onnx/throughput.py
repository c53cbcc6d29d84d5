"""Keeping time: what a model's batches cost, how large they may be, and which may still start."""

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...rules.batching import Batch, plan, spread
from ...rules.cost_model import Meter
from ...rules.deadline import BATCH_S
from ..runtime import process
from ..runtime.jobs import Job
from ..text.pairs import Pairs
from .graph import cache

R = TypeVar("R")
_TIER_PAIRS = 16
# Under a deadline a batch takes at most this part of the time left.
_PARTS = 8
_CHARS_PER_TOKEN = 4.0
_MAX_PADDING = 0.03
_SMOOTHING = 0.1
_TIMED_LENGTHS_TOKENS = (16, 64, 128, 256)
_MOST_TIMED_PAIRS = 64


class Pace:
    """What one model's work costs, learnt as it runs. Thread-safe.

    Reading is tokenisation; computing is what `meter` knows, with `intra_threads` a batch.
    """

    def __init__(self, *, max_tokens: int, intra_threads: int = 1) -> None:
        self.meter = Meter()
        self._intra_threads = intra_threads
        self._max_tokens = max_tokens
        self._chars_per_token = _CHARS_PER_TOKEN
        self._char_s = 0.0
        self._overhead_tokens = 16.0
        self._readings = 0

    @property
    def workers(self) -> int:
        """Count the workers that the process may use now."""
        return process.workers(self._intra_threads)

    def sizes(self, batch_tokens: int) -> tuple[tuple[int, int], ...]:
        """Name the batches (pairs, length) to time: short and long, one pair and full ones."""
        return tuple(
            (count, length)
            for length in sorted({min(one, self._max_tokens) for one in _TIMED_LENGTHS_TOKENS})
            for count in sorted({1, max(1, min(_MOST_TIMED_PAIRS, batch_tokens // length))})
        )

    def time(
        self, sizes: Sequence[tuple[int, int]], timed: Callable[[int, int], float]
    ) -> list[float]:
        """Time batches (pairs, length), in seconds, as they will run: on every worker at once."""
        workers = self.workers
        with ThreadPoolExecutor(workers) as pool:
            runs = list(pool.map(lambda _: [timed(*size) for size in sizes], range(workers)))
        return [statistics.median(one) for one in zip(*runs, strict=True)]

    def observe_reading(
        self, chars: int, pairs: Pairs, seconds: float, *, cut: bool = False
    ) -> None:
        """Learn from a request that was tokenised; cached passages make it look cheap, rightly.

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
        self,
        chars: Sequence[int],
        *,
        batch_tokens: int,
        read: bool = True,
        short_tokens: int | None = None,
    ) -> float:
        """Predict worker seconds per pair, of passages with so many characters; 0.0: unknown.

        `read` adds tokenisation, for the stage that does it. Pairs over `short_tokens` are cut.
        """
        if not chars or not self.meter.ready:
            return 0.0
        mean = sum(chars) / len(chars)
        computed = mean
        if short_tokens is not None:
            most = max(0.0, short_tokens - self._overhead_tokens) * self._chars_per_token
            computed = sum(min(one, most) for one in chars) / len(chars)
        expected = round(computed / self._chars_per_token + self._overhead_tokens)
        tokens = min(self._max_tokens, expected)
        together = max(1, batch_tokens // max(1, tokens))
        computing = self.meter.seconds(together, max(1, tokens)) / together
        return computing + (self.read_s(chars) if read else 0.0)

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict the seconds that tokenising a passage takes; 0.0: unknown."""
        return self._char_s * sum(chars) / len(chars) if chars else 0.0

    def batches(
        self, lengths: NDArray[np.int64], *, max_batch_tokens: int, left_s: float | None
    ) -> tuple[Batch, ...]:
        """Plan batches: to end soonest, or under a deadline tier by tier in small steps."""
        if left_s is None:
            return spread(
                lengths,
                workers=self.workers,
                max_batch_tokens=max_batch_tokens,
                max_padding=_MAX_PADDING,
                overhead_tokens=self.meter.overhead_tokens,
            )
        if len(lengths):
            part_s = min(BATCH_S, max(0.0, left_s) / _PARTS)
            affordable = self.meter.affordable_tokens(part_s, int(lengths.mean()))
            max_batch_tokens = min(max_batch_tokens, affordable)
        return plan(
            lengths,
            max_batch_tokens=max_batch_tokens,
            max_padding=_MAX_PADDING,
            tier_pairs=_TIER_PAIRS,
        )

    def admission(
        self, deadline_s: float | None, clock: Callable[[], float]
    ) -> Callable[[Job[R]], bool] | None:
        """Give what admits a job: it is predicted to end by the deadline. None: everything is.

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


# Where a batch takes so much less than what was kept, that was measured under load.
_MUST_SAVE = 1.5
_TYPICAL_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Costs:
    """What warm-up measures: the batch size that pays best, in padded tokens, and batch times.

    `seconds` are those of batches of `sizes` (pairs, length), on every worker at once.
    """

    batch_tokens: int
    sizes: tuple[tuple[int, int], ...]
    seconds: tuple[float, ...]


def keep(path: Path, costs: Costs) -> None:
    """Write costs for the next process, where the folder can be written."""
    cache.write(path, json.dumps(asdict(costs)).encode())


def kept(path: Path) -> Costs | None:
    """Read what an earlier process measured, None where there is nothing of use."""
    try:
        facts = json.loads(path.read_text(encoding="ascii"))
        sizes = tuple((int(pairs), int(length)) for pairs, length in facts["sizes"])
        costs = Costs(int(facts["batch_tokens"]), sizes, tuple(map(float, facts["seconds"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = sizes and len(sizes) == len(costs.seconds) and costs.batch_tokens > 0
    possible = all(math.isfinite(one) and one > 0.0 for one in costs.seconds)
    return costs if sound and possible else None


def confirmed(costs: Costs, timed: Callable[[tuple[int, int]], float]) -> Costs | None:
    """Time one typical pair anew and give the costs at today's level, or None.

    None where the pair is much faster than it was: what was measured under load must not last.
    Where it is slower, the machine is loaded now, and earlier costs say more than new ones would.
    `timed` gives the seconds of a batch (pairs, length).

    >>> confirmed(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0045)
    Costs(batch_tokens=512, sizes=((1, 64), (8, 64)), seconds=(0.0045, 0.03))
    >>> confirmed(Costs(512, ((1, 64), (8, 64)), (0.003, 0.02)), lambda size: 0.0015)
    """
    known = dict(zip(costs.sizes, costs.seconds, strict=True))
    size = min(known, key=lambda one: (one[0], abs(one[1] - _TYPICAL_TOKENS)))
    level = timed(size) / known[size]
    if level * _MUST_SAVE < 1.0:
        return None
    return replace(costs, seconds=tuple(float(f"{one * level:.6g}") for one in costs.seconds))


DEFAULT_BATCH_TOKENS = 512
_SIZES_TOKENS = (128, 256, 512, 1024, 2048)
# A bigger batch wastes padding and makes others wait: it must pay for that.
_MUST_GAIN = 0.05


def batch_tokens(
    run: Callable[[int], object],
    *,
    limit_s: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Give the smallest batch, in padded tokens, that is within 5 % of the fastest per token.

    `run` computes a batch of about so many tokens. Sizes grow until the measuring has taken
    `limit_s` or a bigger one would pass it; each counts with the better of two runs.
    """
    started = clock()
    best: tuple[int, float] | None = None
    for size in _SIZES_TOKENS:
        token_s = min(_timed(run, size, clock) for _ in range(2)) / size
        if best is None or token_s < best[1] * (1.0 - _MUST_GAIN):
            best = (size, token_s)
        # The next size takes twice as long, twice.
        if clock() - started + 4 * size * token_s > limit_s:
            break
    return best[0] if best is not None else DEFAULT_BATCH_TOKENS


def _timed(run: Callable[[int], object], size: int, clock: Callable[[], float]) -> float:
    started = clock()
    run(size)
    return clock() - started
