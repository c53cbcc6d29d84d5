"""Believe an answer only after checking it: the HTTP status, then the scores."""

import json
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import RemoteError
from .auth import hide
from .client import Reply
from .dialects.json_body import Answer
from .resilience import Outcome, hinted_s, is_retryable

_SLACK = 1e-6


def join(
    answer: Answer, n: int, score_range: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Give scores [n] float32 in the order that was asked, whatever order they came in.

    Raises `RemoteError` for anything but exactly one finite score in range for each of n.
    """
    scores = np.full(n, np.nan, dtype=np.float64)
    for index, score in answer.rows:
        if isinstance(index, bool) or not isinstance(index, int):
            message = f"the answer has index {str(index)[:20]!r}; expected a whole number"
            raise RemoteError(message)
        if not 0 <= index < n:
            message = f"the answer has index {index}; {n} documents were sent"
            raise RemoteError(message)
        if not math.isnan(scores[index]):
            message = f"the answer has index {index} twice"
            raise RemoteError(message)
        scores[index] = _finite(score, index, score_range)
    holes = int(np.isnan(scores).sum())
    if holes:
        message = f"the answer has no score for {holes} of {n} documents"
        raise RemoteError(message)
    return scores.astype(np.float32)


def check_model(asked: str, answered: str | None, accepted: tuple[str, ...]) -> None:
    """Refuse the scores of another model than was asked. Raises `RemoteError`.

    Names count without their owner: "rerank-large-v2" is "some-owner/rerank-large-v2".
    """
    if answered is None or not asked:
        return
    if _short(answered) not in {_short(name) for name in (asked, *accepted)}:
        message = (
            f"the answer is of model {answered[:60]!r}, but {asked!r} was asked for: thresholds "
            "and calibration do not carry over; name it in accept_models if it is the same model"
        )
        raise RemoteError(message)


def _finite(score: object, index: int, score_range: tuple[float, float] | None) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float):
        message = f"the answer's score for document {index} is {type(score).__name__}, no number"
        raise RemoteError(message)
    value = float(score)
    # Beyond float32 it would turn infinite later on.
    if not abs(value) < float(np.finfo(np.float32).max):
        message = f"the answer's score for document {index} is {score}; expected a finite number"
        raise RemoteError(message)
    if score_range is not None and not score_range[0] - _SLACK <= value <= score_range[1] + _SLACK:
        low, high = score_range
        message = f"the answer's score for document {index} is {score}; expected {low} to {high}"
        raise RemoteError(message)
    return value


def _short(name: str) -> str:
    return name.rpartition("/")[2].casefold()


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
