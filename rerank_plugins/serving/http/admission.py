"""What the server refuses before it reads text: strangers, floods and endless bodies."""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

BUDGET_HEADER = "rerank-budget-ms"
_MAX_BUDGET_MS = 1e8


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may ask of the server.

    `body_timeout_s` bounds how long a body may take to arrive, which ends slow senders.
    """

    max_body_bytes: int = 16 * 2**20
    max_candidates: int = 10_000
    body_timeout_s: float = 30.0


class Refused(Exception):
    """A request that is answered with an error status and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def authorise(request: Request, tokens: Sequence[str]) -> None:
    """Check the bearer token against every allowed one, in constant time; none allowed: open."""
    if not tokens:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    presented = given.strip().encode() if scheme.lower() == "bearer" else b""
    # Every token is compared, so that time tells nothing about which one came near.
    matches = [hmac.compare_digest(presented, token.encode()) for token in tokens]
    if not any(matches):
        raise Refused(401, "invalid api token: expected 'Authorization: Bearer TOKEN'")


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body within its bounds. Raises `Refused` with 408, 411 or 413."""
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


def budget_ms(request: Request) -> float | None:
    """Read the caller's deadline, milliseconds from now. Raises `Refused` for nonsense."""
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
