"""What a destination's refusal means: try again, ask for less, or give up."""

import json
import re
from collections.abc import Sequence

from ...errors import RemoteError
from .breaker import Outcome
from .client import Reply
from .keys import hide
from .waiting import hinted_s, is_retryable

_MOST_CHARS = 200
# Runs of this many characters, looked at every few, tell that a message repeats what was sent.
_RUN_CHARS, _STRIDE_CHARS = 12, 6
_SHORTEST_CHARS = 4
# TEI's and its kin's words, and Triton's.
_BATCH = re.compile(
    r"batch size.*?(?:maximum|max|limit)\D*?(\d+)\s*$|batch-size must be <= (\d+) for ",
    re.IGNORECASE,
)
# The caller's mistake, or this request's own: nothing is wrong with the destination.
_NOT_ITS_FAULT = frozenset({400, 409, 413, 422})


class Failed(RemoteError):
    """One attempt failed; says whether another may succeed, and when."""

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        retryable: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retryable = retryable
        self.wait_s = wait_s


class TooMany(Failed):
    """The call held too much; `most` documents are allowed, where the destination said so."""

    def __init__(self, message: str, *, most: int | None) -> None:
        super().__init__(message, outcome=Outcome.NOTHING)
        self.most = most


def refusal(reply: Reply, sent: Sequence[str], *, key: str | None, now_s: float) -> Failed:
    """Read an answer that is no success; `sent` are the texts that must not be repeated here."""
    said = _said(reply.body)
    message = f"HTTP {reply.status}" + _quoted(said, sent, key)
    too_many = _BATCH.search(said)
    if reply.status == 413 or too_many is not None:  # noqa: PLR2004 - payload too large
        return TooMany(
            message, most=int(too_many[1] or too_many[2]) if too_many is not None else None
        )
    return Failed(
        message,
        outcome=Outcome.NOTHING if reply.status in _NOT_ITS_FAULT else Outcome.BAD,
        retryable=is_retryable(reply.status, reply.headers),
        wait_s=hinted_s(reply.headers, now_s),
    )


def _said(body: bytes) -> str:
    """Find the message in the error forms of all providers; "" where there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for _ in range(4):
        if isinstance(value, list):
            value = value[0] if value else None
        elif isinstance(value, dict):
            names = ("message", "detail", "msg", "error", "title")
            value = next((value[name] for name in names if value.get(name)), None)
        else:
            break
    return value if isinstance(value, str) else ""


def _quoted(said: str, sent: Sequence[str], key: str | None) -> str:
    said = " ".join(hide(said, key).split())[:_MOST_CHARS]
    if not said:
        return ""
    return " (its message repeats what was sent)" if _repeats(said, sent) else f": {said}"


def _repeats(said: str, sent: Sequence[str]) -> bool:
    said = said.casefold()
    for text in sent:
        folded = " ".join(text.casefold().split())
        if _SHORTEST_CHARS <= len(folded) <= len(said) and folded in said:
            return True
        if any(
            said[start : start + _RUN_CHARS] in folded
            for start in range(0, len(said) - _RUN_CHARS + 1, _STRIDE_CHARS)
        ):
            return True
    return False
