"""Keeping time: what a model's batches cost, how large they may be, and which may still start."""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..batching import Batch, plan, spread
from ..budget import BATCH_S, Meter
from . import cores
from .jobs import Job
from .pairs import Pairs

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
        return cores.workers(self._intra_threads)

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
