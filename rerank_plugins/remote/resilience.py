"""Retry, rate limit and circuit breaker: how a destination that fails is treated."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

from ..errors import RemoteError
from ..scoring import BreakerState


class Outcome(Enum):
    """How a call ended, as far as it says something about the destination."""

    GOOD = "good"
    BAD = "bad"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """Open after `failures` bad calls in a row, for `rest_s`; twice as long after a failed probe.

    `rest_s` never grows beyond `longest_rest_s`.
    """

    failures: int = 5
    rest_s: float = 2.0
    longest_rest_s: float = 60.0


class Breaker:
    """Closed: every call goes out. Open: none does. Half-open: one probe decides. Thread-safe."""

    def __init__(self, where: str, options: BreakerOptions, *, clock: Callable[[], float]) -> None:
        self.where = where
        self.options = options
        self.opened = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until_s: float | None = None
        self._rest_s = options.rest_s
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Say "closed", "open" or "half-open"."""
        with self._lock:
            if self._until_s is None:
                return "closed"
            return "open" if self._clock() < self._until_s else "half-open"

    def enter(self) -> bool:
        """Ask to make a call; tell whether it is a probe.

        Raises `RemoteError` while the destination is left alone.
        """
        with self._lock:
            if self._until_s is None:
                return False
            left_s = self._until_s - self._clock()
            if left_s > 0.0 or self._probing:
                message = (
                    f"{self.where} is left alone after {self._failures} failures; next probe "
                    f"{'under way' if self._probing else f'in {left_s:.1f} s'}"
                )
                raise RemoteError(message)
            self._probing = True
            return True

    def leave(self, outcome: Outcome, *, probe: bool) -> None:
        """Say how a call ended; every call that entered leaves once."""
        with self._lock:
            if probe:
                self._probing = False
            if outcome is Outcome.GOOD:
                self._failures = 0
                self._until_s = None
                self._rest_s = self.options.rest_s
            elif outcome is Outcome.BAD:
                self._fail(probe=probe)

    def _fail(self, *, probe: bool) -> None:
        self._failures += 1
        if probe:
            self._rest_s = min(2.0 * self._rest_s, self.options.longest_rest_s)
        if probe or (self._until_s is None and self._failures >= self.options.failures):
            self._until_s = self._clock() + self._rest_s
            self.opened += 1


class Limiter:
    """Spaces calls by a token bucket and bounds those under way.

    A call that could not start before its deadline is refused at once instead of waiting for
    nothing. `per_minute` None is no rate. Belongs to one event loop.
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
        """Wait for a turn. Raises `RemoteError` if it would come after `deadline_s`."""
        async with self._slots:
            wait_s = self._book(deadline_s)
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
            yield

    def _book(self, deadline_s: float) -> float:
        """Take the next free instant and say how far off it is."""
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


RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_S = 0.1
_MOST_S = 8.0
_LONGEST_HINT_S = 24 * 3600.0
# Below this a "reset" cannot be an instant of this century: it is a number of seconds.
_EPOCH_S = 1e9


def is_retryable(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether the same call may succeed later; `x-should-retry` has the last word."""
    told = headers.get("x-should-retry", "").strip().lower()
    if told in {"true", "false"}:
        return told == "true"
    return status in RETRYABLE


def hinted_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Read how long the server wants to be left alone, in seconds from `now_s` (Unix time).

    `retry-after-ms`, then `retry-after` (number of seconds or date), then `x-ratelimit-reset`; the
    first that makes sense counts. None where none does.

    >>> hinted_s({"retry-after": "1.5"}, 0.0)
    1.5
    """
    readers: tuple[tuple[str, Callable[[str], float]], ...] = (
        ("retry-after-ms", lambda value: float(value) / 1e3),
        ("retry-after", lambda value: _seconds_or_date(value, now_s)),
        ("x-ratelimit-reset", lambda value: _reset(float(value), now_s)),
    )
    for name, reader in readers:
        value = headers.get(name)
        if value is None:
            continue
        try:
            wait_s = reader(value)
        except (ValueError, TypeError, OverflowError):
            continue
        if math.isfinite(wait_s) and 0.0 <= wait_s <= _LONGEST_HINT_S:
            return wait_s
    return None


def backoff_s(attempt: int, share: float) -> float:
    """Say how long to wait before attempt number `attempt` + 1; `share` in [0, 1] is the jitter.

    Doubling, capped, half of it random, so that clients do not come back in step.
    """
    most_s = min(_MOST_S, _FIRST_S * 2.0 ** min(attempt, 20))
    return most_s * (0.5 + 0.5 * share)


def _seconds_or_date(value: str, now_s: float) -> float:
    try:
        return float(value)
    except ValueError:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)


def _reset(value: float, now_s: float) -> float:
    return max(0.0, value - now_s) if value > _EPOCH_S else value
