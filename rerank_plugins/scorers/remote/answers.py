"""Believe an answer only after checking it: joined by index, whole, finite, in range."""

import math

import numpy as np
from numpy.typing import NDArray

from ...errors import RemoteError
from .shapes import Answer

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
