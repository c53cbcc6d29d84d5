"""Checks of what a destination answers: its error messages, its model, and its scores."""

import json
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import RemoteError
from .auth import hide
from .client import HttpResponse
from .dialects.json_body import Row
from .resilience import Outcome, is_retryable, retry_after_s

# Scores may leave the documented range by rounding.
_RANGE_TOLERANCE = 1e-6
_LARGEST = float(np.finfo(np.float32).max)

_SHOWN_CHARS = 200
# A message that holds a run of so many characters of a text, looked for every few, repeats it.
_RUN_CHARS, _STRIDE_CHARS = 12, 6
_SHORTEST_CHARS = 4

# What TEI and servers like it, and Triton, say of a call with too many documents.
_BATCH_LIMIT = re.compile(
    r"batch size.*?(?:maximum|max|limit)\D*?(\d+)\s*$|batch-size must be <= (\d+) for ",
    re.IGNORECASE,
)

# The caller's mistake, or this request's own: they say nothing about the destination's health.
_OUR_FAULT = frozenset({400, 409, 413, 422})
_PAYLOAD_TOO_LARGE = 413


class Failed(RemoteError):
    """One attempt of a call failed. Results and spans show the name of this class.

    retryable: another attempt may succeed
    wait_s: seconds the destination asks to wait before it, None if it does not say
    """

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
    """The call held too many documents; `limit` are allowed, None if the answer does not say."""

    def __init__(self, message: str, *, limit: int | None) -> None:
        super().__init__(message, outcome=Outcome.NOTHING)
        self.limit = limit


def failure(
    response: HttpResponse, sent: Sequence[str], *, key: str | None, now_s: float
) -> Failed:
    """Return the error for a response that is no success.

    Its message repeats neither the key nor the texts that were `sent`. `now_s` is Unix time.
    """
    said = _error_message(response.body)
    message = f"HTTP {response.status}{_quoted(said, sent, key)}"
    limit = _BATCH_LIMIT.search(said)
    if response.status == _PAYLOAD_TOO_LARGE or limit is not None:
        return TooMany(message, limit=None if limit is None else int(limit[1] or limit[2]))
    return Failed(
        message,
        outcome=Outcome.NOTHING if response.status in _OUR_FAULT else Outcome.BAD,
        retryable=is_retryable(response.status, response.headers),
        wait_s=retry_after_s(response.headers, now_s),
    )


def check_model(asked: str, answered: str | None, accepted: tuple[str, ...]) -> None:
    """Raise `RemoteError` for the scores of another model than was asked.

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


def scores_of(
    rows: Sequence[Row], n: int, score_range: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Return scores [n] float32 in the order of the request, whatever order the rows came in.

    Raises `RemoteError` for anything but exactly one finite score in range for each of n.
    """
    scores = np.full(n, np.nan, dtype=np.float64)
    for index, score in rows:
        if isinstance(index, bool) or not isinstance(index, int):
            message = f"the answer has index {str(index)[:20]!r}; expected a whole number"
            raise RemoteError(message)
        if not 0 <= index < n:
            message = f"the answer has index {index}; {n} documents were sent"
            raise RemoteError(message)
        if not math.isnan(scores[index]):
            message = f"the answer has index {index} twice"
            raise RemoteError(message)
        scores[index] = _score(score, index, score_range)
    missing = int(np.isnan(scores).sum())
    if missing:
        message = f"the answer has no score for {missing} of {n} documents"
        raise RemoteError(message)
    return scores.astype(np.float32)


def _score(score: object, index: int, score_range: tuple[float, float] | None) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float):
        message = f"the answer's score for document {index} is {type(score).__name__}, no number"
        raise RemoteError(message)
    # A larger number would turn infinite in float32; NaN fails the comparison as well.
    expected = "a finite number"
    fine = abs(score) < _LARGEST
    if fine and score_range is not None:
        low, high = score_range
        expected = f"{low} to {high}"
        fine = low - _RANGE_TOLERANCE <= score <= high + _RANGE_TOLERANCE
    if not fine:
        message = f"the answer's score for document {index} is {score}; expected {expected}"
        raise RemoteError(message)
    return float(score)


def _short(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _error_message(body: bytes) -> str:
    """Return the message in the error forms of all providers; "" where there is none."""
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
    said = " ".join(hide(said, key).split())[:_SHOWN_CHARS]
    if not said:
        return ""
    return " (its message repeats what was sent)" if _repeats(said, sent) else f": {said}"


def _repeats(said: str, sent: Sequence[str]) -> bool:
    """True if a message holds a whole text, or a part of one."""
    said = said.casefold()
    for text in sent:
        folded = " ".join(text.casefold().split())
        if _SHORTEST_CHARS <= len(folded) <= len(said) and folded in said:
            return True
        if any(run in folded for run in _runs(said)):
            return True
    return False


def _runs(said: str) -> Iterator[str]:
    for start in range(0, len(said) - _RUN_CHARS + 1, _STRIDE_CHARS):
        yield said[start : start + _RUN_CHARS]
