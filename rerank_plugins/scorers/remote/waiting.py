"""Whether to try again, and when: what the server says first, exponential back-off else."""

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

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
