"""The JSON of rerank APIs: how a question is laid out, and how an answer is read, as data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import RemoteError

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call asks: n texts, all of them to be scored.

    `tensors` are what was read off the texts, for destinations that take no text. `left_s` is the
    time left for an answer, None without a deadline; `extra` holds the operator's own fields;
    `page` is where an answer in pages goes on.
    """

    model: str
    query: str
    texts: Sequence[str]
    extra: Mapping[str, Json] = field(default_factory=dict)
    left_s: float | None = None
    page: str | None = None
    tensors: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination said, not yet believed: (index, score) in its own order."""

    rows: list[tuple[object, object]]
    model: str | None = None
    tokens: int = 0
    billed_units: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    next_page: str | None = None


class Dialect(Protocol):
    """Lays out a question and reads its answer."""

    def ask(self, ask: Ask) -> tuple[bytes, Mapping[str, str]]:
        """Give the body of a call, and headers that belong to it."""

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read the body of a 200. Raises `RemoteError` where it is not what was expected."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The dialect of every API that asks and answers in one JSON object.

    Names are those of the fields. `wrap_*` puts a text into an object under that name, `number`
    gives each document its index under that name, `rows` lists where the answers may stand (none:
    the whole body is the list). All n texts are always asked for: `cut` is the field that says so.
    """

    query: str = "query"
    wrap_query: str | None = None
    documents: str = "documents"
    wrap_document: str | None = None
    number: str | None = None
    cut: str | None = "top_n"
    model: str | None = "model"
    fixed: Mapping[str, Json] = field(default_factory=dict)
    hurried: Mapping[str, Json] = field(default_factory=dict)
    rows: tuple[str, ...] = ("results",)
    index: str = "index"
    scores: tuple[str, ...] = ("relevance_score",)
    tokens: Path = ("usage", "total_tokens")
    billed: Path = ()
    seconds: Mapping[str, Path] = field(default_factory=dict)
    header_ms: Mapping[str, str] = field(default_factory=dict)

    def ask(self, ask: Ask) -> tuple[bytes, Mapping[str, str]]:
        """Lay out the fields; what the operator adds comes last, and wins."""
        body: dict[str, Json] = {self.query: _wrapped(ask.query, self.wrap_query)}
        body[self.documents] = [self._document(i, text) for i, text in enumerate(ask.texts)]
        if self.model is not None and ask.model:
            body[self.model] = ask.model
        if self.cut is not None:
            body[self.cut] = len(ask.texts)
        body |= self.fixed
        if ask.left_s is not None:
            body |= self.hurried
        body |= ask.extra
        return encode(body), {}

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Find the rows, and what the call cost."""
        answer = decode(body, headers)
        rows: object = answer
        if self.rows:
            table = expect_object(answer)
            name = next((name for name in self.rows if name in table), None)
            if name is None:
                expected = " or ".join(map(repr, self.rows))
                message = f"the answer has no {expected}; its keys are {_keys(table)}"
                raise RemoteError(message)
            rows = table[name]
        if not isinstance(rows, list):
            message = f"the answer's rows are {_kind(rows)}; expected a list"
            raise RemoteError(message)
        seconds = {step: number(answer, path) for step, path in self.seconds.items()}
        for step, header in self.header_ms.items():
            seconds[step] = _milliseconds(headers.get(header)) / 1e3
        return Answer(
            [self._row(row) for row in rows],
            model=_text(answer, "model"),
            tokens=int(number(answer, self.tokens)),
            billed_units=number(answer, self.billed),
            seconds={step: value for step, value in seconds.items() if value > 0.0},
            next_page=_text(answer, "nextToken"),
        )

    def _document(self, index: int, text: str) -> Json:
        document = _wrapped(text, self.wrap_document)
        if self.number is not None and isinstance(document, dict):
            return {self.number: str(index), **document}
        return document

    def _row(self, row: object) -> tuple[object, object]:
        table = expect_object(row)
        index = table.get(self.index)
        # Only APIs that number documents themselves answer with text.
        if self.number is not None and isinstance(index, str) and index.isdecimal():
            index = int(index)
        return index, next((table[name] for name in self.scores if name in table), None)


def encode(body: Json) -> bytes:
    """Give JSON as UTF-8; lone surrogates, which no server takes, become question marks."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def decode(body: bytes, headers: Mapping[str, str]) -> object:
    """Read a JSON body. Raises `RemoteError` where it is something else."""
    kind = headers.get("content-type", "application/json").partition(";")[0].strip()
    if not (kind.endswith("json") or kind == "application/octet-stream"):
        message = (
            f"the answer is {kind[:40]!r}; expected JSON: check the URL, and what is before it"
        )
        raise RemoteError(message)
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = f"the answer of {len(body)} bytes is not JSON ({type(error).__name__})"
        raise RemoteError(message) from error
    return answer


def expect_object(value: object) -> dict[str, object]:
    """Give a JSON object as such. Raises `RemoteError` where it is something else."""
    if not isinstance(value, dict):
        message = f"the answer holds {_kind(value)} where an object was expected"
        raise RemoteError(message)
    return value


def number(value: object, path: Path) -> float:
    """Read a number at `path`; 0 where there is none: no price is better than no answer."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if path and isinstance(value, int | float) else 0.0


def _text(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None


def _wrapped(text: str, name: str | None) -> Json:
    return text if name is None else {name: text}


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _keys(table: Mapping[str, object]) -> str:
    return ", ".join(sorted(table))[:120] or "none"


def _milliseconds(value: str | None) -> float:
    try:
        return float(value or 0.0)
    except ValueError:
        return 0.0
