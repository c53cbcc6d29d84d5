"""Bounds on connections: how many there may be, and how long each phase of them may last."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from .admission import address_of

# How long a client may go on sending a body that was answered without being read. To close at once
# would reset the connection, and the client would not see the answer.
_DISCARD_S = 2.0
# How long a client may hold up the end of the server.
_DRAIN_S = 3.0
_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """How many connections a worker holds, and for how long.

    per_address: from one client
    head_s: seconds until the head of a request must have arrived
    write_s: seconds until the client must have read an answer
    connection_s: seconds after which a connection takes no further request

    `Limits` bounds the time of a body and of the computing; uvicorn that of an idle connection.
    """

    connections: int = 1024
    per_address: int = 256
    head_s: float = 10.0
    write_s: float = 10.0
    connection_s: float = 600.0


class Connections:
    """The open connections of a worker, by address, oldest first."""

    def __init__(self, bounds: ConnectionBounds) -> None:
        self.bounds = bounds
        self._open: defaultdict[str, dict[BoundedProtocol, None]] = defaultdict(dict)
        self._count = 0

    def enter(self, connection: "BoundedProtocol", address: str) -> bool:
        """Take a connection in; False if there is no room.

        Where the server is full, an idle connection of the address that has the most gives way.
        """
        if len(self._open[address]) >= self.bounds.per_address:
            return False
        if self._count >= self.bounds.connections:
            crowd = max(self._open.values(), key=len)
            idle = next((other for other in crowd if other.idle), None)
            if idle is None:
                return False
            idle.give_way()
        self._open[address][connection] = None
        self._count += 1
        return True

    def leave(self, connection: "BoundedProtocol", address: str) -> None:
        """Forget a connection."""
        if connection in self._open[address]:
            del self._open[address][connection]
            self._count -= 1
        if not self._open[address]:
            del self._open[address]


class BoundedProtocol(H11Protocol):
    """uvicorn's h11 protocol with a deadline for each phase of a connection.

    The application's lifespan state holds the worker's `Connections` as "connections".
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        connections = app_state["connections"]
        if not isinstance(connections, Connections):
            raise TypeError("the lifespan state has no Connections")
        self._all = connections
        self._bounds = connections.bounds
        self._address = ""
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    @property
    def idle(self) -> bool:
        """True if no request is under way."""
        # uvicorn has no cycle before the first request, and does not say so.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection too many; start the deadlines of all others."""
        super().connection_made(transport)
        self._address = address_of(self.client[0] if self.client else None)
        if not self._all.enter(self, self._address):
            transport.write(_TOO_MANY)
            self._close()
            return
        self._within("head", self._bounds.head_s)
        self._within("connection", self._bounds.connection_s)

    def data_received(self, data: bytes) -> None:
        """Keep the deadline of the head only while the head is incomplete."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.idle and self.conn.their_state is h11.IDLE:
            self._within("head", self._bounds.head_s)
        else:
            self._done("head")
        self._flush_if_closing()

    def on_response_complete(self) -> None:
        """Watch that the client reads the last answer of a connection."""
        super().on_response_complete()
        self._flush_if_closing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._flush_if_closing()

    def pause_writing(self) -> None:
        """Start the deadline of an answer that the client does not read."""
        super().pause_writing()
        self._within("write", self._bounds.write_s)

    def resume_writing(self) -> None:
        """End that deadline."""
        super().resume_writing()
        self._done("write")

    def shutdown(self) -> None:
        """Finish the request under way, unless the client holds it up."""
        super().shutdown()
        if self.transport.get_write_buffer_size() or not (self.idle or not self.cycle.more_body):
            self._within("drain", _DRAIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all deadlines."""
        for phase in list(self._deadlines):
            self._done(phase)
        self._all.leave(self, self._address)
        super().connection_lost(exc)

    def give_way(self) -> None:
        """End an idle connection at once, for a new one."""
        self._all.leave(self, self._address)
        self.transport.abort()

    def _within(self, phase: str, seconds: float) -> None:
        if phase not in self._deadlines:
            self._deadlines[phase] = self.loop.call_later(seconds, self._expire, phase)

    def _done(self, phase: str) -> None:
        if phase in self._deadlines:
            self._deadlines.pop(phase).cancel()

    def _expire(self, phase: str) -> None:
        if phase in {"head", "connection"}:
            # A request under way has deadlines of its own.
            if self.idle:
                self._close()
            else:
                self.cycle.keep_alive = False
        else:
            self.transport.abort()

    def _close(self) -> None:
        self.transport.close()
        self._flush_if_closing()

    def _flush_if_closing(self) -> None:
        if self.transport.is_closing():
            self._within("flush", self._bounds.write_s)


class CloseUnread:
    """Closes a connection after an answer to a request whose body was not read to its end.

    Nobody would know where on such a connection the next request begins.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        unread = True
        closing = False

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body", False))
            return message

        async def sent(message: Message) -> None:
            nonlocal closing
            if unread and message["type"] == "http.response.start":
                closing = True
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            if not closing or message.get("more_body", message["type"] != "http.response.body"):
                await send(message)
                return
            await send({**message, "more_body": True})
            await _discard(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, received, sent)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


async def _discard(receive: Receive) -> None:
    """Read what the client still sends of a body, for a short time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (await receive()).get("more_body", False):
                pass
