"""Connections to a server that do what no client library would."""

import socket
from urllib.parse import urlsplit

from tests.serving.http.serving import Server

HEAD = b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\n"


def connect(server: Server, *, source: str = "127.0.0.1") -> socket.socket:
    """Open a connection from a loopback address."""
    address = urlsplit(server.url)
    return socket.create_connection(
        (address.hostname, address.port), timeout=30.0, source_address=(source, 0)
    )


def received(line: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
