"""Retries, call limits and the circuit breaker of one destination.

Written by hand because libraries (tenacity, purgatory, aiolimiter) wait first and look at the time
later, while here a wait that would outlast the request's deadline is refused before it starts, and
the breaker's state is read from other threads.
"""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import partial

from ..errors import RemoteError
from ..scoring import BreakerState

RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 8.0
_LONGEST_RETRY_AFTER_S = 24 * 3600.0
# A smaller "reset" cannot be a Unix time of this century: it is a number of seconds.
_EPOCH_S = 1e9


class Outcome(Enum):
    """What a call says about the health of its destination."""

    GOOD = "good"
    BAD = "bad"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a destination that keeps failing gets no calls.

    failures: bad calls in a row that open the breaker
    rest_s: seconds until the first probe; doubles after each failed probe
    longest_rest_s: upper bound of the doubled rest
    """

    failures: int = 5
    rest_s: float = 2.0
    longest_rest_s: float = 60.0


class Breaker:
    """Closed: every call goes out. Open: none does. Half-open: one probe decides. Thread-safe."""

    def __init__(self, where: str, options: BreakerOptions, *, clock: Callable[[], float]) -> None:
        self.where = where
        self.options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until_s: float | None = None
        self._rest_s = options.rest_s
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Return "closed", "open" or "half-open"."""
        with self._lock:
            if self._open_until_s is None:
                return "closed"
            return "open" if self._clock() < self._open_until_s else "half-open"

    def enter(self) -> bool:
        """Admit a call and return whether it is a probe. Raises `RemoteError` while open."""
        with self._lock:
            if self._open_until_s is None:
                return False
            left_s = self._open_until_s - self._clock()
            if left_s > 0.0 or self._probing:
                message = (
                    f"{self.where} is left alone after {self._failures} failures; next probe "
                    f"{'under way' if self._probing else f'in {left_s:.1f} s'}"
                )
                raise RemoteError(message)
            self._probing = True
            return True

    def leave(self, outcome: Outcome, *, probe: bool) -> None:
        """Record how a call ended; every call that entered leaves exactly once."""
        with self._lock:
            if probe:
                self._probing = False
            if outcome is Outcome.GOOD:
                self._failures = 0
                self._open_until_s = None
                self._rest_s = self.options.rest_s
            elif outcome is Outcome.BAD:
                self._failures += 1
                if probe:
                    self._rest_s = min(2.0 * self._rest_s, self.options.longest_rest_s)
                closed = self._open_until_s is None
                if probe or (closed and self._failures >= self.options.failures):
                    self._open_until_s = self._clock() + self._rest_s


class Limiter:
    """Spaces calls by a token bucket and bounds the calls under way. Belongs to one event loop.

    `per_minute` None means no rate limit.
    """

    def __init__(
        self, *, concurrency: int, per_minute: float | None, clock: Callable[[], float]
    ) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._interval_s = 0.0 if per_minute is None else 60.0 / per_minute
        # A burst of a second's worth, and of one call at least.
        self._burst_s = max(self._interval_s, 1.0)
        self._clock = clock
        self._next_s = 0.0

    @asynccontextmanager
    async def turn(self, deadline_s: float) -> AsyncIterator[None]:
        """Wait for a turn. Raises `RemoteError` at once if it would come after `deadline_s`."""
        async with self._slots:
            wait_s = self._book(deadline_s)
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
            yield

    def _book(self, deadline_s: float) -> float:
        """Take the next free turn and return the seconds until it comes."""
        if not self._interval_s:
            return 0.0
        now_s = self._clock()
        start_s = max(self._next_s, now_s - self._burst_s + self._interval_s)
        if start_s >= deadline_s:
            message = (
                f"the rate limit of {60.0 / self._interval_s:g} calls a minute leaves no turn for "
                f"{start_s - now_s:.2f} s; raise per_minute, or send less"
            )
            raise RemoteError(message)
        self._next_s = start_s + self._interval_s
        return max(0.0, start_s - now_s)


def is_retryable(status: int, headers: Mapping[str, str]) -> bool:
    """True if the same call may succeed later; the header `x-should-retry` decides if present."""
    should_retry = headers.get("x-should-retry", "").strip().lower()
    if should_retry in {"true", "false"}:
        return should_retry == "true"
    return status in RETRYABLE


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Return the seconds a server asks to wait, None without a usable hint; `now_s` is Unix time.

    The first usable header of `retry-after-ms`, `retry-after` (seconds or a date) and
    `x-ratelimit-reset` counts.

    >>> retry_after_s({"retry-after": "1.5"}, 0.0)
    1.5
    """
    parsers: tuple[tuple[str, Callable[[str], float]], ...] = (
        ("retry-after-ms", _milliseconds),
        ("retry-after", partial(_seconds_or_date, now_s=now_s)),
        ("x-ratelimit-reset", partial(_reset, now_s=now_s)),
    )
    for name, parse in parsers:
        try:
            wait_s = parse(headers[name])
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        if math.isfinite(wait_s) and 0.0 <= wait_s <= _LONGEST_RETRY_AFTER_S:
            return wait_s
    return None


def backoff_s(attempt: int, jitter: float) -> float:
    """Return the seconds to wait after failed attempt number `attempt`, counted from 0.

    Doubles with each attempt up to a bound. `jitter` in [0, 1] sets half of it, so that clients do
    not come back in step.
    """
    most_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempt, 20))
    return most_s * (0.5 + 0.5 * jitter)


def _milliseconds(value: str) -> float:
    return float(value) / 1e3


def _seconds_or_date(value: str, *, now_s: float) -> float:
    try:
        return float(value)
    except ValueError:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)


def _reset(value: str, *, now_s: float) -> float:
    reset_s = float(value)
    return max(0.0, reset_s - now_s) if reset_s > _EPOCH_S else reset_s
