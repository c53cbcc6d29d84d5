"""A circuit breaker: a destination that keeps failing is left alone for a while, then probed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ...errors import RemoteError
from .. import BreakerState


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
