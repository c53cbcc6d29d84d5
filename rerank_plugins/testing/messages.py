"""What the fake server passes around: a parsed request, and the content of a response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Echo: TypeAlias = Literal["none", "string", "object"]
"""How results repeat their document."""


class RefusedError(Exception):
    """The provider would not take the request: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What a request asks, in any dialect; `top_n` None asks for all results."""

    query: str
    texts: list[str]
    model: str
    top_n: int | None
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One result; faults put nonsense into `index` and `score`."""

    index: object
    score: object
    text: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a response says, before a dialect lays it out."""

    rows: Sequence[Row]
    model: str
    request: ParsedRequest
    echo: Echo = "none"
