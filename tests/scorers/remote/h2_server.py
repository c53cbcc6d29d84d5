"""A rerank API behind TLS that offers HTTP/2, as gateways do."""

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from hypercorn.asyncio import serve
from hypercorn.config import Config

from rerank_plugins.testing.server import overlap


class H2Server:
    """Answers as Cohere does, in HTTP/2 or 1.1 as the client likes. `pem` is key and certificates.

    `versions` holds the protocol of each request, `clients` the address each came from.
    """

    def __init__(self, pem: Path, *, requests_a_connection: int = 1000) -> None:
        self.versions: list[str] = []
        self.clients: set[tuple[str, int]] = set()
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        self._config = Config()
        self._config.bind = [f"fd://{listening.detach()}"]
        self._config.certfile = self._config.keyfile = str(pem)
        self._config.keep_alive_max_requests = requests_a_connection
        self._config.graceful_timeout = 0.1
        self._config.errorlog = self._config.accesslog = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(
            serve(self._answer, self._config, shutdown_trigger=self._stop.wait)
        )
        self._loop.close()

    async def _answer(self, scope: Mapping[str, object], receive, send) -> None:
        if scope["type"] != "http":
            return
        self.versions.append(scope["http_version"])
        self.clients.add(scope["client"])
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        asked = json.loads(body)
        rows = [
            {"index": i, "relevance_score": overlap(asked["query"], text)}
            for i, text in enumerate(asked["documents"])
        ]
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"results": rows}).encode()})
