"""How a fault shows: another status, spoiled rows, or a connection that does not do its part."""

import asyncio
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from types import MappingProxyType

from .faults import Fault
from .messages import Echo, Row

_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_DRIPS = 50
_WILD = 1e9


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer before it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


REFUSALS: Mapping[Fault | None, tuple[int, str]] = MappingProxyType(
    {
        Fault.UNAUTHORIZED: (401, "invalid api token {key}"),
        Fault.OUT_OF_CREDIT: (402, "your account is out of credit"),
        Fault.FORBIDDEN: (403, "not allowed"),
        Fault.NOT_FOUND: (404, "model 'xyz' not found"),
        Fault.TOO_LARGE: (413, "payload too large"),
        Fault.INVALID: (422, "input is invalid: {text}"),
        Fault.RATE_LIMITED: (429, "slow down"),
        Fault.RETRY_AFTER_INT: (429, "slow down"),
        Fault.RETRY_AFTER_FLOAT: (429, "slow down"),
        Fault.RETRY_AFTER_DATE: (429, "slow down"),
        Fault.RETRY_AFTER_MS: (429, "slow down"),
        Fault.RETRY_AFTER_LONG: (429, "slow down"),
        Fault.SERVER_ERROR: (500, "internal error"),
        Fault.UNAVAILABLE: (503, "overloaded"),
    }
)
"""Faults that are a status; {key} and {text} are what a careless server repeats."""

BODIES: Mapping[Fault | None, Answer] = MappingProxyType(
    {
        Fault.NULL_BODY: Answer(200, b"null"),
        Fault.NOT_JSON: Answer(200, b'{"results": [{"index": 0'),
        Fault.HTML: Answer(200, _HTML, {"content-type": "text/html"}),
        Fault.BAD_GATEWAY: Answer(502, _HTML, {"content-type": "text/html"}),
    }
)
"""Faults that are a whole answer."""

ECHOES: Mapping[Fault | None, Echo] = MappingProxyType(
    {Fault.ECHO_TEXT: "string", Fault.ECHO_OBJECT: "object"}
)


def hints(fault: Fault | None, now_s: float) -> dict[str, str]:
    """Give the headers that say when to come back; `now_s` is Unix time."""
    if fault is Fault.RETRY_AFTER_DATE:
        return {"retry-after": formatdate(now_s + 1.0, usegmt=True)}
    return dict([_HINTS[fault]]) if fault in _HINTS else {}


_HINTS: Mapping[Fault | None, tuple[str, str]] = MappingProxyType(
    {
        Fault.RETRY_AFTER_INT: ("retry-after", "1"),
        Fault.RETRY_AFTER_FLOAT: ("retry-after", "0.05"),
        Fault.RETRY_AFTER_MS: ("retry-after-ms", "50"),
        Fault.RETRY_AFTER_LONG: ("retry-after", "3600"),
    }
)


def spoil(rows: Sequence[Row], fault: Fault | None) -> list[Row]:
    """Give the rows that a fault leaves of good ones, which come best first."""
    spoiled = list(rows)
    first = spoiled[0]
    match fault:
        case Fault.SHUFFLED:
            spoiled = spoiled[1::2] + spoiled[::2]
        case Fault.DUPLICATE_INDEX:
            spoiled = [*spoiled[:-1], first] if len(rows) > 1 else [first, first]
        case Fault.INDEX_OUT_OF_RANGE:
            spoiled[0] = replace(first, index=len(rows))
        case Fault.MISSING_INDEX | Fault.EMPTY_RESULTS:
            spoiled = [] if fault is Fault.EMPTY_RESULTS else spoiled[:-1]
        case Fault.TIES:
            spoiled = [replace(row, score=0.5) for row in spoiled]
        case _ if fault in _SCORES:
            spoiled[0] = replace(first, score=_SCORES[fault])
    return spoiled


_SCORES: Mapping[Fault | None, object] = MappingProxyType(
    {
        Fault.NAN_SCORE: math.nan,
        Fault.INFINITE_SCORE: math.inf,
        Fault.TEXT_SCORE: "0.9",
        Fault.WILD_SCORE: _WILD,
    }
)


async def perform(
    writer: asyncio.StreamWriter, fault: Fault | None, answer: Answer, slow_s: float
) -> bool:
    """Send an answer the way a fault wants it; tell whether the connection lives on."""
    if fault is Fault.CLOSED:
        return False
    if fault is Fault.GZIP:
        headers = {**answer.headers, "content-encoding": "gzip"}
        answer = Answer(answer.status, gzip.compress(answer.body), headers)
    if fault is Fault.SLOW_HEADERS:
        await asyncio.sleep(slow_s)
    if fault is Fault.HUGE:
        await _flood(writer)
        return False
    writer.write(_head(answer))
    if fault is Fault.RESET:
        writer.write(answer.body[: len(answer.body) // 2])
        await writer.drain()
        writer.transport.abort()
        return False
    if fault is Fault.DRIP:
        await _drip(writer, answer.body, slow_s)
        return True
    writer.write(answer.body)
    await writer.drain()
    return True


def _head(answer: Answer, *, length: int | None = None) -> bytes:
    size = len(answer.body) if length is None else length
    headers = {"content-type": "application/json", "content-length": str(size), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Faked", *(f"{a}: {b}" for a, b in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _drip(writer: asyncio.StreamWriter, body: bytes, slow_s: float) -> None:
    step = max(1, len(body) // _DRIPS)
    for start in range(0, len(body), step):
        writer.write(body[start : start + step])
        await writer.drain()
        await asyncio.sleep(slow_s / _DRIPS)


async def _flood(writer: asyncio.StreamWriter) -> None:
    """Send up to a gigabyte of blanks, as long as anybody listens."""
    writer.write(_head(Answer(200, b""), length=2**30))
    for _ in range(2**14):
        writer.write(b" " * 2**16)
        await writer.drain()
