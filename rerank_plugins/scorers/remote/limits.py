"""What we ask of ourselves: so many calls a minute, so many at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ...errors import RemoteError


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
