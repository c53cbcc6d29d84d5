"""What the server refuses before it parses a body: wrong tokens, large and slow bodies."""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

BUDGET_HEADER = "rerank-budget-ms"
_MAX_BUDGET_MS = 1e8


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a single request.

    body_timeout_s: seconds until the whole body must have arrived
    """

    max_body_bytes: int = 16 * 2**20
    max_candidates: int = 10_000
    body_timeout_s: float = 30.0


class Refused(Exception):
    """Raised to answer a request with an error status and a message for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check_token(request: Request, tokens: Sequence[str]) -> None:
    """Raise `Refused` unless the bearer token is allowed; without tokens everybody is."""
    if not tokens:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    presented = given.strip().encode() if scheme.lower() == "bearer" else b""
    # In constant time, and with every token: the time must not show which token came near.
    matches = [hmac.compare_digest(presented, token.encode()) for token in tokens]
    if not any(matches):
        raise Refused(401, "invalid api token: expected 'Authorization: Bearer TOKEN'")


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body. Raises `Refused` for a body that is too large (413) or slow (408)."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise Refused(413, _too_large(limits))
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise Refused(413, _too_large(limits))
    except TimeoutError as error:
        message = f"the body did not arrive within {limits.body_timeout_s:g} s"
        raise Refused(408, message) from error
    except ClientDisconnect as error:
        raise Refused(499, "the client closed the connection") from error
    return bytes(body)


def read_budget_ms(request: Request) -> float | None:
    """Return the milliseconds that the caller allows, None for no limit. Raises `Refused`."""
    value = request.headers.get(BUDGET_HEADER)
    if value is None:
        return None
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = 0.0
    if not 0.0 < milliseconds <= _MAX_BUDGET_MS:
        raise Refused(400, f"{BUDGET_HEADER} is {value[:20]!r}; expected milliseconds above 0")
    return milliseconds


def _too_large(limits: Limits) -> str:
    return f"the body is over {limits.max_body_bytes} bytes; send fewer or shorter documents"
