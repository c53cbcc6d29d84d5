"""A rerank API behind TLS that offers HTTP/2, as gateways do."""

import asyncio
import ssl

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded

from rerank_plugins.testing import FakeRerankServer
from rerank_plugins.testing.server import Received


class H2Server(FakeRerankServer):
    """Answers as Cohere does, in HTTP/2 or 1.1 as the client likes.

    `versions` holds the protocol of each connection, `indexed` the names of headers with keys that
    came in a form that proxies may index. After `most` requests the next one on a
    connection is answered by a goodbye.
    """

    def __init__(self, tls: ssl.SSLContext, *, most: int = 1000) -> None:
        self.versions: list[str] = []
        self.indexed: list[str] = []
        self._most = most
        tls.set_alpn_protocols(["h2", "http/1.1"])
        super().__init__("cohere", tls=tls)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            self.versions.append("1.1")
            await super()._connected(reader, writer)
            return
        self.versions.append("2")
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        answered = 0
        while True:
            writer.write(connection.data_to_send())
            await writer.drain()
            data = await reader.read(2**16)
            if not data or answered > self._most:
                return
            for event in connection.receive_data(data):
                self._note(event)
                _take(event, connection, heads, bodies)
                if isinstance(event, StreamEnded):
                    answered += 1
                    if answered > self._most:
                        connection.close_connection()
                        break
                    number = event.stream_id
                    self._reply(connection, number, heads.pop(number), bodies.pop(number))

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            keys = [one for one in event.headers if one[0] in {"authorization", "api-key"}]
            self.indexed += [one[0] for one in keys if getattr(one, "indexable", True)]

    def _reply(
        self, connection: H2Connection, number: int, head: dict[str, str], body: bytes
    ) -> None:
        received = Received(head[":method"], head[":path"], head, body)
        self.requests.append(received)
        answer = self._respond(received, self._read(received, received.path), None)
        headers = [(":status", str(answer.status)), ("content-type", "application/json")]
        connection.send_headers(number, headers)
        connection.send_data(number, answer.body, end_stream=True)


def _take(
    event: Event,
    connection: H2Connection,
    heads: dict[int, dict[str, str]],
    bodies: dict[int, bytes],
) -> None:
    """Collect the parts of requests, by the number of their stream."""
    if isinstance(event, RequestReceived):
        heads[event.stream_id] = dict(event.headers)
        bodies[event.stream_id] = b""
    elif isinstance(event, DataReceived):
        bodies[event.stream_id] += event.data
        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
