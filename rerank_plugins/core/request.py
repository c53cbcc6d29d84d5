"""A request: made from a caller's arguments, checked, and completed by the setup's defaults."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real

from ..errors import InvalidRequest
from ..records import Budget, Candidate, Request
from .setup import Setup

# How much of the caller's own bad input an error shows.
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request in which nothing is left open: the caller's choice, else the setup's.

    query: text to answer
    candidates: first-stage hits, best first
    top_k: hits to return, at least 1; None: all
    time_s: seconds the request may take from the moment it was submitted; None: no limit
    strict: raise where the result would be degraded
    """

    query: str
    candidates: tuple[Candidate, ...]
    top_k: int | None = None
    time_s: float | None = None
    strict: bool = False


def make_request(
    query: str,
    passages: Iterable[str | Candidate | None],
    *,
    top_k: int | None,
    budget_ms: float | None,
    strict: bool | None,
) -> Request:
    """Return a caller's arguments as a request; `check_request` judges it.

    Raises `InvalidRequest` where `passages` is no list of texts.
    """
    if isinstance(passages, str | bytes | Mapping) or not isinstance(passages, Iterable):
        message = f"passages is {repr(passages)[:_SHOWN_CHARS]}; expected a list of texts"
        raise InvalidRequest(message)
    candidates = tuple(
        _with_own_number(passage) if isinstance(passage, Candidate) else Candidate(passage)
        for passage in passages
    )
    # NumPy's numbers would end in results, which have to become JSON.
    count: object = top_k
    top_k = int(count) if isinstance(count, Integral) else top_k
    budget = Budget(_seconds(budget_ms))
    return Request(query, candidates, top_k=top_k, budget=budget, strict=strict)


def resolve(request: Request, setup: Setup) -> Resolved:
    """Return the request with the setup's defaults where the caller chose nothing.

    This is the only place where a request meets the defaults.
    """
    return Resolved(
        request.query,
        request.candidates,
        top_k=request.top_k or setup.top_k,
        time_s=request.budget.time_s or setup.budget.time_s,
        strict=setup.strict if request.strict is None else request.strict,
    )


def check_request(request: Request) -> None:
    """Raise `InvalidRequest` for a request that cannot be answered."""
    query: object = request.query
    if not isinstance(query, str) or not query.strip():
        message = f"the query is {repr(query)[:_SHOWN_CHARS]}; expected text that is not blank"
        raise InvalidRequest(message)
    top_k: object = request.top_k
    if top_k is not None and not (isinstance(top_k, Integral) and int(top_k) >= 1):
        message = f"top_k is {top_k!r}; expected at least 1, or None for all candidates"
        raise InvalidRequest(message)
    time_s: object = request.budget.time_s
    if time_s is not None and not (isinstance(time_s, Real) and float(time_s) > 0.0):
        message = f"the budget is {time_s!r} s; expected more than 0, or None"
        raise InvalidRequest(message)
    for index, candidate in enumerate(request.candidates):
        text: object = candidate.text
        if not isinstance(text, str) and not _is_missing(text):
            message = (
                f"candidate {index} is {type(text).__name__} {repr(text)[:_SHOWN_CHARS]}; expected "
                f"text, or None for a missing one: {_advice(text)}"
            )
            raise InvalidRequest(message)
        if candidate.prior is not None and not _is_finite(candidate.prior):
            message = (
                f"candidate {index} has prior {candidate.prior!r}; expected a finite number, or "
                "None where the first stage gives no scores"
            )
            raise InvalidRequest(message)


def check_feedback(score: float) -> None:
    """Raise `InvalidRequest` unless the score lies in [0, 1]."""
    given: object = score
    if not isinstance(given, Real) or not 0.0 <= score <= 1.0:
        message = f"feedback is {score!r}; expected a number from 0 (bad) to 1 (good)"
        raise InvalidRequest(message)


def _seconds(budget_ms: object) -> float | None:
    """Return a budget in seconds. Raises `InvalidRequest` for what is no number."""
    if budget_ms is None:
        return None
    try:
        if isinstance(budget_ms, Real):
            return float(budget_ms) / 1e3
    except (OverflowError, ValueError):
        pass
    message = f"budget_ms is {repr(budget_ms)[:_SHOWN_CHARS]}; expected milliseconds, or None"
    raise InvalidRequest(message)


def _with_own_number(candidate: Candidate) -> Candidate:
    """Return a candidate whose prior is a number of Python's own."""
    prior: object = candidate.prior
    if isinstance(prior, float | int) or not isinstance(prior, Real):
        return candidate
    try:
        return replace(candidate, prior=float(prior))
    except (OverflowError, ValueError):
        return candidate


def _is_missing(text: object) -> bool:
    """True for None and for the not-a-number with which tables mark a missing text."""
    return text is None or (isinstance(text, Real) and text != text)  # noqa: PLR0124


def _advice(text: object) -> str:
    """Return how to get at the text of what was given instead of it."""
    if isinstance(text, bytes | bytearray):
        return "decode it"
    if isinstance(text, Mapping):
        return 'give its text, such as passage["text"]'
    if isinstance(text, Sequence):
        return "give Candidate(text, score) for a text with its first-stage score"
    for name in ("page_content", "content", "text"):
        if isinstance(getattr(text, name, None), str):
            return f"give its .{name}"
    return "give a string"


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except (OverflowError, ValueError, TypeError):
        return False
