"""A rerank API on loopback: real sockets, the dialect of any provider, and faults on request."""

import asyncio
import itertools
import json
import math
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Self, TypeAlias

from .dialects import DIALECTS, Dialect, dump
from .fault_effects import BODIES, ECHOES, REFUSALS, HttpResponse, send, spoil
from .faults import Fault
from .kserve import runner
from .messages import Content, ParsedRequest, RefusedError, Row

Faults: TypeAlias = "Iterable[Fault | None] | Callable[[int], Fault | None]"
Score: TypeAlias = Callable[[str, str], float]
_MOVED = "/moved"


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Return the JSON object in the body."""
        value = json.loads(self.body)
        return value if isinstance(value, dict) else {}


class FakeRerankServer:
    """Answers rerank requests as `dialect`'s provider would, from a thread of its own.

    faults: how each request fails, None for success, or a function of the request's number from 0;
        requests past the end succeed
    score: returns the score in (0, 1) of a query and a text, by default their word overlap;
        dialects of logits answer its logit
    graph: an ONNX graph that answers "triton" instead
    key: requests without it are refused
    tls: speaks https with a certificate for `host`
    requests, bytes_received: what arrived

    >>> with FakeRerankServer("cohere") as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        dialect: str = "cohere",
        *,
        faults: Faults = (),
        score: Score | None = None,
        graph: Path | None = None,
        key: str | None = None,
        host: str = "127.0.0.1",
        redirect_to: str = "",
        slow_s: float = 1.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.dialect: Dialect = DIALECTS[dialect]
        self.requests: list[Received] = []
        self.bytes_received = 0
        self.redirect_to = redirect_to
        self.slow_s = slow_s
        self._score = score or overlap
        self._infer = None if graph is None else runner(graph)
        self._key = key
        self._host = host
        self._tls = tls
        self._faults = _iterated(faults)
        self._accepted = HttpResponse(404, b"{}")
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        """The base URL to send requests to."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self._port}"

    def break_with(self, faults: Faults) -> None:
        """Replace the faults; requests are counted from 0 again."""
        self._faults = _iterated(faults)

    def close(self) -> None:
        """Close every connection and free the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, self._host, 0, backlog=256, ssl=self._tls)
        )
        self._port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in self._connections:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._connections, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections.add(task)
        try:
            while (received := await self._receive(reader)) is not None:
                if not await self._serve(received, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Received | None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.bytes_received += len(head)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.bytes_received += len(body)
        received = Received(method, path, headers, body)
        self.requests.append(received)
        return received

    async def _serve(self, received: Received, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; True if the connection can be used again."""
        if received.path in self.dialect.health:
            return await send(writer, None, HttpResponse(200, b""), self.slow_s)
        if received.method != "POST":
            response, self._accepted = self._accepted, HttpResponse(404, b"{}")
            return await send(writer, None, response, self.slow_s)
        moved = received.path.startswith(_MOVED)
        fault = None if moved else next(self._faults, None)
        try:
            request = self._read(received, received.path.removeprefix(_MOVED))
            response = self._respond(received, request, fault)
        except RefusedError as error:
            response = HttpResponse(
                error.status, dump(self.dialect.error(error.status, str(error)))
            )
        return await send(writer, fault, response, self.slow_s)

    def _read(self, received: Received, path: str) -> ParsedRequest:
        dialect = self.dialect
        if not any(
            path.startswith(known) if len(known) > 1 and known.endswith("/") else path == known
            for known in dialect.paths
        ):
            raise RefusedError(404, f"no route {path}; known are {', '.join(dialect.paths)}")
        given = received.headers.get(dialect.key_header, "").removeprefix("Bearer ")
        if self._key is not None and given != self._key:
            raise RefusedError(401, f"invalid api token {given}")
        try:
            body = dialect.parse(path, received.headers, received.body)
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(400, "the body is not what was expected") from error
        request = dialect.read(body)
        if len(request.texts) > dialect.cap:
            message = dialect.too_many.format(n=len(request.texts), cap=dialect.cap)
            raise RefusedError(dialect.cap_status, message)
        return request

    def _respond(
        self, received: Received, request: ParsedRequest, fault: Fault | None
    ) -> HttpResponse:
        if fault in {Fault.REDIRECT, Fault.REDIRECT_SELF}:
            target = self.redirect_to if fault is Fault.REDIRECT else _MOVED + received.path
            return HttpResponse(307, b"", {"location": target})
        if fault in BODIES:
            return BODIES[fault]
        if fault in REFUSALS:
            return self._refusal(fault, received, request)
        rows = spoil(self._rows(request), fault)
        model = "another-model" if fault is Fault.OTHER_MODEL else request.model
        content = Content(rows, model, request, ECHOES.get(fault, "none"))
        body, headers = self.dialect.dump(self.dialect.answer(content))
        response = HttpResponse(200, body, {**self.dialect.headers, **headers})
        if fault is Fault.ACCEPTED:
            self._accepted = response
            return HttpResponse(202, b"", {"nvcf-reqid": "6c1a2b3c-0001"})
        return response

    def _rows(self, request: ParsedRequest) -> list[Row]:
        """Return the results, best first; a graph's results stay in the order of the request."""
        tensors = request.body.get("tensors")
        if self._infer is not None and isinstance(tensors, dict):
            columns = self._infer(tensors).tolist()
            return [Row(i, columns[i], text) for i, text in enumerate(request.texts)]
        scores = [self._score(request.query, text) for text in request.texts]
        if self.dialect.logits:
            scores = [math.log(score / (1.0 - score)) for score in scores]
        rows = [Row(i, score, request.texts[i]) for i, score in enumerate(scores)]
        return sorted(rows, key=lambda row: -float(str(row.score)))[: request.top_n]

    def _refusal(
        self, fault: Fault | None, received: Received, request: ParsedRequest
    ) -> HttpResponse:
        status, message, headers = REFUSALS[fault]
        if fault is Fault.RETRY_AFTER_DATE:
            headers = {"retry-after": formatdate(time.time() + 1.0, usegmt=True)}
        key = received.headers.get(self.dialect.key_header, "").removeprefix("Bearer ")
        said = message.format(key=key, text=request.texts[0])
        return HttpResponse(status, dump(self.dialect.error(status, said)), headers)


def overlap(query: str, text: str) -> float:
    """Return the share of query words in a text, in (0, 1); a hash of the text breaks ties.

    >>> overlap("red fox", "a red fox") > overlap("red fox", "a red hen")
    True
    """
    words = set(query.lower().split())
    share = len(words & set(text.lower().split())) / max(1, len(words))
    return 0.05 + 0.8 * share + 0.1 * (zlib.crc32(text.encode("utf-8", "replace")) % 997) / 997


def _iterated(faults: Faults) -> Iterator[Fault | None]:
    return map(faults, itertools.count()) if callable(faults) else iter(faults)
