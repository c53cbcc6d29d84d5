"""Checks of what a destination answers: its error messages, its model, and its scores."""

import base64
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import RemoteError
from .client import HttpResponse
from .dialects.json_body import Row
from .resilience import Outcome, is_retryable, retry_after_s

# Scores may leave the documented range by rounding.
_RANGE_TOLERANCE = 1e-6
_LARGEST = float(np.finfo(np.float32).max)

_READ_CHARS, _SHOWN_CHARS = 1000, 200
# A message that holds a run of so many letters of a text, looked for every few, repeats it.
_RUN_CHARS, _STRIDE_CHARS = 12, 3
_SHORTEST_CHARS = 4
_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())
# A word that shares so many letters in a row with a key is taken for a part of it.
_KEY_RUN_CHARS = 6

# Words of error messages, which say nothing of a text that holds them too.
_STOCK_WORDS = (
    "access account again allowed api array authentication authorization bad batch been body bytes "
    "call characters client contains content could credentials denied document documents does "
    "empty entity error exceeded exceeds expected expired failed field forbidden format found from "
    "gateway have header input inputs internal invalid json large later length less limit list "
    "long many maximum message method minimum missing model models more must number object only "
    "overloaded parameter passages permission please provided query quota rate reached request "
    "requests required retry score scores seconds server service should size string supported "
    "temporarily text texts than that this timeout token tokens type unauthorized unavailable "
    "unknown unprocessable unsupported usage valid value when with your"
)
_STOCK = frozenset(_STOCK_WORDS.split())

# What TEI and servers like it, and Triton, say of a call with too many documents.
_BATCH_LIMIT = re.compile(
    r"batch size.*?(?:maximum|max|limit)\D*?(\d+)\s*$|batch-size must be <= (\d+) for ",
    re.IGNORECASE,
)

# The caller's mistake, or this request's own: they say nothing about the destination's health.
_OUR_FAULT = frozenset({400, 409, 413, 422})
_PAYLOAD_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Sent:
    """What a call sent, so that no message repeats it.

    texts: the query and the documents
    secrets: keys and signatures
    """

    texts: Sequence[str] = field(default=(), repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)

    def show(self, said: str) -> str:
        """Return words of the destination on one bounded line, without keys and without texts.

        >>> Sent(["Jane Doe"], ["s3cret9"]).show("invalid key S3CRET9 of jane")
        'invalid key <key> of …'
        """
        words = "".join(c if c.isprintable() else " " for c in said[:_READ_CHARS]).split(" ")
        if len(said) >= _READ_CHARS:
            # Half a word could be too short to be known for a part of a key.
            words.pop()
        keys = [_letters(form) for secret in self.secrets for form in _forms(secret)]
        line = " ".join("<key>" if _shows(word, keys) else word for word in words if word)
        if _repeats(line, self.texts):
            return "(the message repeats what was sent)"
        texts = "\n".join(self.texts).casefold()
        return re.sub(r"\w+", lambda word: _masked(word[0], texts), line[:_SHOWN_CHARS])

    def show_url(self, url: str) -> str:
        """Return the URL that was asked, without keys and without the values of its query.

        >>> Sent(secrets=["s3cret"]).show_url("https://host/s3cret/rerank?code=abc")
        'https://host/<key>/rerank?code=...'
        """
        for secret in filter(None, self.secrets):
            url = url.replace(secret, "<key>")
        return re.sub(r"=[^&]*", "=...", url)


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


_NOTHING = Sent()


def failure(response: HttpResponse, sent: Sent, *, url: str, now_s: float) -> Failed:
    """Return the error for a response that is no success.

    url: what was asked
    now_s: Unix time

    Its message repeats nothing that was `sent`.
    """
    said = _error_message(response.body)[:_READ_CHARS]
    message = f"HTTP {response.status} from {sent.show_url(url)}"
    if shown := sent.show(said):
        message += f": {shown}"
    limit = _BATCH_LIMIT.search(said)
    if response.status == _PAYLOAD_TOO_LARGE or limit is not None:
        return TooMany(message, limit=None if limit is None else int(limit[1] or limit[2]))
    return Failed(
        message,
        outcome=Outcome.NOTHING if response.status in _OUR_FAULT else Outcome.BAD,
        retryable=is_retryable(response.status, response.headers),
        wait_s=retry_after_s(response.headers, now_s),
    )


def check_model(
    asked: str, answered: str | None, accepted: tuple[str, ...], sent: Sent = _NOTHING
) -> None:
    """Raise `RemoteError` for the scores of another model than was asked.

    Names count without their owner: "rerank-large-v2" is "some-owner/rerank-large-v2".
    """
    if answered is None or not asked:
        return
    if _short(answered) not in {_short(name) for name in (asked, *accepted)}:
        shown = sent.show(answered)[:60]
        message = (
            f"the answer is of model {shown!r}, but {asked!r} was asked for: thresholds "
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
            message = f"the answer has {type(index).__name__} for an index; expected a whole number"
            raise RemoteError(message)
        if not 0 <= index < n:
            message = f"the answer has an index outside of the {n} documents that were sent"
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


def _repeats(said: str, sent: Sequence[str]) -> bool:
    """True if a message holds a whole text, or a part of one, whatever stands between letters."""
    letters = _letters(said)
    texts = [_letters(text) for text in sent] if letters else []
    if any(len(text) >= _SHORTEST_CHARS and text in letters for text in texts):
        return True
    every = b"\n".join(texts)
    return any(run in every for run in _runs(letters))


def _runs(said: bytes) -> Iterator[bytes]:
    for start in range(0, len(said) - _RUN_CHARS + 1, _STRIDE_CHARS):
        yield said[start : start + _RUN_CHARS]


def _shows(word: str, keys: Sequence[bytes]) -> bool:
    """True if a word holds a key, or shares a run of letters with one."""
    letters = _letters(word)
    runs = [
        letters[i : i + _KEY_RUN_CHARS] for i in range(max(0, len(letters) - _KEY_RUN_CHARS + 1))
    ]
    return any(key and (key in letters or any(run in key for run in runs)) for key in keys)


def _forms(secret: str) -> tuple[str, str]:
    return secret, base64.b64encode(secret.encode()).decode()


def _masked(word: str, texts: str) -> str:
    folded = word.casefold()
    shortest = _SHORTEST_CHARS if folded.isascii() else 2
    known = folded in _STOCK or len(folded) < shortest
    return word if known or folded not in texts else "…"


def _letters(text: str) -> bytes:
    """Return the letters and digits of a text in UTF-8: fast, because there may be megabytes."""
    return text.casefold().encode("utf-8", "replace").translate(None, _MARKS)
