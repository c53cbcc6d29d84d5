"""How a fault shows: another status, spoiled rows, or a connection that breaks."""

import asyncio
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .faults import Fault
from .messages import Echo, Row

_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_DRIPS = 50


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response before it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


REFUSALS: Mapping[Fault | None, tuple[int, str, Mapping[str, str]]] = MappingProxyType(
    {
        Fault.UNAUTHORIZED: (401, "invalid api token {key}", {}),
        Fault.OUT_OF_CREDIT: (402, "your account is out of credit", {}),
        Fault.FORBIDDEN: (403, "not allowed", {}),
        Fault.NOT_FOUND: (404, "model 'xyz' not found", {}),
        Fault.TOO_LARGE: (413, "payload too large", {}),
        Fault.INVALID: (422, "input is invalid: {text}", {}),
        Fault.RATE_LIMITED: (429, "slow down", {}),
        Fault.RETRY_AFTER_INT: (429, "slow down", {"retry-after": "1"}),
        Fault.RETRY_AFTER_FLOAT: (429, "slow down", {"retry-after": "0.05"}),
        Fault.RETRY_AFTER_DATE: (429, "slow down", {}),
        Fault.RETRY_AFTER_MS: (429, "slow down", {"retry-after-ms": "50"}),
        Fault.RETRY_AFTER_LONG: (429, "slow down", {"retry-after": "3600"}),
        Fault.SERVER_ERROR: (500, "internal error", {}),
        Fault.UNAVAILABLE: (503, "overloaded", {}),
    }
)
"""Status, message and headers of faults that refuse; careless servers repeat {key} and {text}."""

BODIES: Mapping[Fault | None, HttpResponse] = MappingProxyType(
    {
        Fault.NULL_BODY: HttpResponse(200, b"null"),
        Fault.NOT_JSON: HttpResponse(200, b'{"results": [{"index": 0'),
        Fault.HTML: HttpResponse(200, _HTML, {"content-type": "text/html"}),
        Fault.BAD_GATEWAY: HttpResponse(502, _HTML, {"content-type": "text/html"}),
    }
)
"""Faults that are a whole response."""

ECHOES: Mapping[Fault | None, Echo] = MappingProxyType(
    {Fault.ECHO_TEXT: "string", Fault.ECHO_OBJECT: "object"}
)

_SCORES: Mapping[Fault | None, object] = MappingProxyType(
    {
        Fault.NAN_SCORE: math.nan,
        Fault.INFINITE_SCORE: math.inf,
        Fault.TEXT_SCORE: "0.9",
        Fault.WILD_SCORE: 1e9,
    }
)


def spoil(rows: Sequence[Row], fault: Fault | None) -> list[Row]:
    """Return good rows, which come best first, as a fault changes them."""
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


async def send(
    writer: asyncio.StreamWriter, fault: Fault | None, response: HttpResponse, slow_s: float
) -> bool:
    """Send a response as a fault changes it; True if the connection can be used again."""
    if fault is Fault.CLOSED:
        return False
    if fault is Fault.GZIP:
        headers = {**response.headers, "content-encoding": "gzip"}
        response = HttpResponse(response.status, gzip.compress(response.body), headers)
    if fault is Fault.SLOW_HEADERS:
        await asyncio.sleep(slow_s)
    if fault is Fault.HUGE:
        await _flood(writer)
        return False
    writer.write(_head(response))
    if fault is Fault.RESET:
        writer.write(response.body[: len(response.body) // 2])
        await writer.drain()
        writer.transport.abort()
        return False
    if fault is Fault.DRIP:
        await _drip(writer, response.body, slow_s)
        return True
    writer.write(response.body)
    await writer.drain()
    return True


def _head(response: HttpResponse, *, length: int | None = None) -> bytes:
    size = len(response.body) if length is None else length
    headers = {"content-type": "application/json", "content-length": str(size), **response.headers}
    lines = [f"HTTP/1.1 {response.status} Faked", *(f"{a}: {b}" for a, b in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _drip(writer: asyncio.StreamWriter, body: bytes, slow_s: float) -> None:
    step = max(1, len(body) // _DRIPS)
    for start in range(0, len(body), step):
        writer.write(body[start : start + step])
        await writer.drain()
        await asyncio.sleep(slow_s / _DRIPS)


async def _flood(writer: asyncio.StreamWriter) -> None:
    """Send up to a gigabyte of spaces, until the client closes the connection."""
    writer.write(_head(HttpResponse(200, b""), length=2**30))
    for _ in range(2**14):
        writer.write(b" " * 2**16)
        await writer.drain()
