"""The JSON of rerank APIs as data: how a request is laid out, and how a response is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import RemoteError

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
Path: TypeAlias = tuple[str, ...]
Row: TypeAlias = tuple[object, object]
"""The index and the score of one result, not yet checked."""

# What of an answer's own words may be repeated: a destination could answer with what was sent.
_USUAL_KEYS = frozenset(
    {"data", "detail", "error", "errors", "id", "message", "meta", "model", "object", "outputs"}
    | {"rankings", "records", "results", "scores", "status", "usage"}
)
_USUAL_TYPES = frozenset({"text/html", "text/plain", "application/xml", "text/xml"})
_LARGEST = 1e15


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What one call asks: n texts, all of them to be scored.

    extra: the operator's own fields of the body
    left_s: seconds left for a response, None without a deadline
    page: token of the next page, for responses in pages
    tensors: what the texts were tokenised to, for destinations that take no text
    """

    model: str
    query: str
    texts: Sequence[str]
    extra: Mapping[str, Json] = field(default_factory=dict)
    left_s: float | None = None
    page: str | None = None
    tensors: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What a destination answered, not yet checked.

    rows: the results in the destination's order
    tokens: tokens it counted, 0 if it does not say
    billed_units: what it charged, in its own unit
    seconds: its own timings by step
    next_page: token of the page that follows
    """

    rows: list[Row]
    model: str | None = None
    tokens: int = 0
    billed_units: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    next_page: str | None = None


class Dialect(Protocol):
    """How an API is asked and how its response is read."""

    def encode(self, request: ApiRequest) -> tuple[bytes, Mapping[str, str]]:
        """Return the body of a call and the headers that belong to it."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ApiResponse:
        """Return the response of a 200. Raises `RemoteError` if it has another form."""


@dataclass(frozen=True, slots=True)
class JsonDialect:
    """The dialect of every API whose request and response are one JSON object; holds field names.

    wrap_query, wrap_document: put the text into an object under this name
    document_id: give each document its index under this name
    top_n: the field that says how many results are wanted, which is always all n
    fixed: fields of every body
    with_deadline: fields of a body under a deadline
    results: fields that may hold the results; none: the whole body is the list
    scores: fields that may hold the score of a result
    tokens, billed_units, seconds: paths to what the call cost
    header_ms: response headers with the milliseconds of a step
    """

    query: str = "query"
    wrap_query: str | None = None
    documents: str = "documents"
    wrap_document: str | None = None
    document_id: str | None = None
    top_n: str | None = "top_n"
    model: str | None = "model"
    fixed: Mapping[str, Json] = field(default_factory=dict)
    with_deadline: Mapping[str, Json] = field(default_factory=dict)
    results: tuple[str, ...] = ("results",)
    index: str = "index"
    scores: tuple[str, ...] = ("relevance_score",)
    tokens: Path = ("usage", "total_tokens")
    billed_units: Path = ()
    seconds: Mapping[str, Path] = field(default_factory=dict)
    header_ms: Mapping[str, str] = field(default_factory=dict)

    def encode(self, request: ApiRequest) -> tuple[bytes, Mapping[str, str]]:
        """Return the body; the operator's own fields replace ours."""
        body: dict[str, Json] = {self.query: _wrapped(request.query, self.wrap_query)}
        body[self.documents] = [self._document(i, text) for i, text in enumerate(request.texts)]
        if self.model is not None and request.model:
            body[self.model] = request.model
        if self.top_n is not None:
            body[self.top_n] = len(request.texts)
        body |= self.fixed
        if request.left_s is not None:
            body |= self.with_deadline
        body |= request.extra
        return dump_json(body), {}

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ApiResponse:
        """Return the results and what the call cost."""
        answer = parse_json(body, headers)
        rows: object = answer
        if self.results:
            table = expect_object(answer)
            name = next((name for name in self.results if name in table), None)
            if name is None:
                expected = " or ".join(map(repr, self.results))
                keys = ", ".join(sorted(_USUAL_KEYS.intersection(table))) or "none that are usual"
                message = f"the answer has no {expected}; its keys are {keys}"
                raise RemoteError(message)
            rows = table[name]
        if not isinstance(rows, list):
            message = f"the answer's rows are {_kind(rows)}; expected a list"
            raise RemoteError(message)
        seconds = {step: _number(answer, path) for step, path in self.seconds.items()}
        for step, header in self.header_ms.items():
            seconds[step] = _milliseconds(headers.get(header)) / 1e3
        return ApiResponse(
            [self._row(row) for row in rows],
            model=_text(answer, "model"),
            tokens=int(_number(answer, self.tokens)),
            billed_units=_number(answer, self.billed_units),
            seconds={step: value for step, value in seconds.items() if value > 0.0},
            next_page=_text(answer, "nextToken"),
        )

    def _document(self, index: int, text: str) -> Json:
        document = _wrapped(text, self.wrap_document)
        if self.document_id is not None and isinstance(document, dict):
            return {self.document_id: str(index), **document}
        return document

    def _row(self, row: object) -> Row:
        table = expect_object(row)
        index = table.get(self.index)
        # Only APIs that take an id for each document answer with an index as text.
        if self.document_id is not None and isinstance(index, str) and index.isdecimal():
            index = int(index)
        return index, next((table[name] for name in self.scores if name in table), None)


def dump_json(body: Json) -> bytes:
    """Return JSON as UTF-8; lone surrogates, which no server takes, become question marks."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse_json(body: bytes, headers: Mapping[str, str]) -> object:
    """Return the value of a JSON body. Raises `RemoteError` where it is something else."""
    kind = headers.get("content-type", "application/json").partition(";")[0].strip()
    if not (kind.endswith("json") or kind == "application/octet-stream"):
        shown = repr(kind) if kind in _USUAL_TYPES else "of another type"
        message = f"the answer is {shown}; expected JSON: check the URL, and what is before it"
        raise RemoteError(message)
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = f"the answer of {len(body)} bytes is not JSON ({type(error).__name__})"
        # The error holds the whole answer.
        raise RemoteError(message) from None
    return answer


def expect_object(value: object) -> dict[str, object]:
    """Return a JSON object as such. Raises `RemoteError` where it is something else."""
    if not isinstance(value, dict):
        message = f"the answer holds {_kind(value)} where an object was expected"
        raise RemoteError(message)
    return value


def _number(value: object, path: Path) -> float:
    """Return the number at `path`, 0 where there is none: its absence must not fail the call."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return _bounded(value) if path and isinstance(value, int | float) else 0.0


def _bounded(value: float) -> float:
    """Return a count or a time as such, 0 for what cannot be either."""
    return float(value) if 0 <= value <= _LARGEST else 0.0


def _text(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def _wrapped(text: str, name: str | None) -> Json:
    return text if name is None else {name: text}


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _milliseconds(value: str | None) -> float:
    try:
        return _bounded(float(value or 0.0))
    except ValueError:
        return 0.0
