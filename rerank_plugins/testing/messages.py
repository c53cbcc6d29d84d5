"""What the fake server passes around: a request as it was meant, and an answer to be laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Echo: TypeAlias = Literal["none", "string", "object"]


class RefusedError(Exception):
    """The request is not what the provider would take: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks, whatever the dialect."""

    query: str
    texts: list[str]
    model: str
    top: int | None
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an answer; `index` and `score` may be nonsense on purpose."""

    index: object
    score: object
    text: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows to be answered, and what goes with them."""

    rows: Sequence[Row]
    model: str
    asked: Asked
    echo: Echo = "none"
