"""What the server refuses before it parses a body: wrong tokens, large and slow bodies, a queue."""

import asyncio
import hmac
import ipaddress
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request

BUDGET_HEADER = "rerank-budget-ms"
_MAX_BUDGET_MS = 1e8
# What a page of another site may post without being asked for permission first.
_FORM_TYPES = {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a single request, and on all together.

    max_text_chars: characters of a document
    body_timeout_s: seconds until the whole body must have arrived
    default_budget_ms: milliseconds for a request with much text that names no deadline; its answer
        may be degraded
    client_share: part of the queue that a single client may hold, in (0, 1]
    max_held_bytes: bodies of all requests under way
    """

    max_body_bytes: int = 16 * 2**20
    max_candidates: int = 10_000
    max_text_chars: int = 2_000_000
    body_timeout_s: float = 30.0
    default_budget_ms: float = 30_000.0
    client_share: float = 0.5
    max_held_bytes: int = 128 * 2**20


class Refused(Exception):
    """Raised to answer a request with an error status and a message for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Place:
    """A request's place in the queue, and the bytes of its body."""

    queue: "Queue"
    held_bytes: int = 0

    def hold(self, size: int) -> None:
        """Count bytes that have arrived. Raises `Refused`."""
        if self.queue.held_bytes + size > self.queue.limits.max_held_bytes:
            raise Refused(429, "the bodies of other requests fill the memory; retry later")
        self.held_bytes += size
        self.queue.held_bytes += size


@dataclass(slots=True)
class Queue:
    """The places for requests under way; a request takes its place before its body is read.

    places: for all clients
    """

    limits: Limits
    places: int
    held_bytes: int = 0
    _clients: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def place(self, client: str) -> Iterator[Place]:
        """Hold a place while the block runs. Raises `Refused` where there is none."""
        if self._clients.total() >= self.places:
            raise Refused(429, "the queue is full; retry later")
        share = math.ceil(self.places * self.limits.client_share)
        if self._clients[client] >= share:
            raise Refused(429, f"{share} requests of this client are under way; retry later")
        self._clients[client] += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.held_bytes -= place.held_bytes
            self._clients[client] -= 1
            self._clients += Counter()


def check_token(request: Request, tokens: Sequence[str]) -> str:
    """Return a name of the client: its token where there are several, else its address.

    Raises `Refused` unless the bearer token is allowed; without tokens everybody is.
    """
    address = address_of(None if request.client is None else request.client.host)
    if not tokens:
        return address
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    presented = given.strip().encode() if scheme.lower() == "bearer" else b""
    # In constant time, and with every token: the time must not show which token came near.
    matches = [hmac.compare_digest(presented, token.encode()) for token in tokens]
    if not any(matches):
        raise Refused(401, "invalid api token: expected 'Authorization: Bearer TOKEN'")
    return address if len(tokens) == 1 else f"token {matches.index(True)}"


def address_of(host: str | None) -> str:
    """Return the address that a bound for one client counts: of IPv6, the network of the client.

    >>> address_of("10.1.2.3"), address_of("2001:db8::1:2:3:4")
    ('10.1.2.3', '2001:db8::/64')
    """
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    if address.version == 4:  # noqa: PLR2004 - IPv4
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def check_host(request: Request, hosts: Collection[str] | None) -> None:
    """Raise `Refused` for a name that is not ours, and for what a page of another site sends.

    hosts: the names; None: any. Addresses are always ours: only a name can be made to lead here
        after a browser has loaded a page from elsewhere under it.
    """
    host = request.headers.get("host")
    if hosts is None or host is None:
        return
    name = host.partition(":")[0].rstrip(".").lower()
    if name not in hosts and not host.startswith("[") and not _is_address(name):
        raise Refused(421, "unknown Host; name it with --allow-host, or call the server by address")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise Refused(403, "a page of another site may not call this server without a token")


def check_content_type(request: Request) -> None:
    """Raise `Refused` for the types that a page of another site may post unasked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORM_TYPES:
        raise Refused(415, "the content type is a form's; expected application/json")


async def read_body(request: Request, limits: Limits, place: Place) -> bytearray:
    """Return the body. Raises `Refused`: too large (413), too slow (408), no memory (429)."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise Refused(413, _too_large(limits))
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.max_body_bytes:
                    raise Refused(413, _too_large(limits))
                place.hold(len(chunk))
                body += chunk
    except TimeoutError as error:
        message = f"the body did not arrive within {limits.body_timeout_s:g} s"
        raise Refused(408, message) from error
    except ClientDisconnect as error:
        raise Refused(499, "the client closed the connection") from error
    return body


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


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _too_large(limits: Limits) -> str:
    return f"the body is over {limits.max_body_bytes} bytes; send fewer or shorter documents"
