"""A rerank API on loopback, over real sockets, that speaks any provider's dialect and can fail."""

import asyncio
import itertools
import json
import math
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from .dialects import DIALECTS, Dialect, dump
from .fault_effects import BODIES, ECHOES, REFUSALS, Answer, hints, perform, spoil
from .faults import Fault
from .kserve import runner
from .messages import Asked, Layout, RefusedError, Row

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
        """Read the body."""
        value = json.loads(self.body)
        return value if isinstance(value, dict) else {}


class FakeRerankServer:
    """Answers rerank requests as `dialect`'s provider would, from a thread of its own.

    `faults` says how the requests fail, one after the other (None: not at all; past the end: not
    at all), or is asked with the number of each. `score` gives the score in (0, 1) of a query and a
    text, word overlap unless said otherwise; dialects of logits answer its logit. `graph` is an
    ONNX graph that answers "triton" instead. With a `key`, requests without it are refused. With
    `tls`, whose certificate is for `host`, it speaks https. `requests` and `bytes_received` hold
    what arrived.

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
        self._fault = _asker(faults)
        self._accepted = Answer(404, b"{}")
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        """Give the base URL to send requests to."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self._port}"

    def break_with(self, faults: Faults) -> None:
        """Replace the faults; their count starts anew."""
        self._fault = _asker(faults)

    def close(self) -> None:
        """Break off every connection and free the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        self.close()
        return False

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
        """Answer one request; tell whether the connection lives on."""
        if received.path in self.dialect.health:
            return await perform(writer, None, Answer(200, b""), self.slow_s)
        if received.method != "POST":
            answer, self._accepted = self._accepted, Answer(404, b"{}")
            return await perform(writer, None, answer, self.slow_s)
        moved = received.path.startswith(_MOVED)
        fault = None if moved else self._fault()
        try:
            asked = self._read(received, received.path.removeprefix(_MOVED))
            answer = self._answer(received, asked, fault)
        except RefusedError as error:
            answer = Answer(error.status, dump(self.dialect.error(error.status, str(error))))
        return await perform(writer, fault, answer, self.slow_s)

    def _read(self, received: Received, path: str) -> Asked:
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
            body = dialect.decode(path, received.headers, received.body)
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(400, "the body is not what was expected") from error
        asked = dialect.read(body)
        if len(asked.texts) > dialect.cap:
            message = dialect.too_many.format(n=len(asked.texts), cap=dialect.cap)
            raise RefusedError(dialect.cap_status, message)
        return asked

    def _answer(self, received: Received, asked: Asked, fault: Fault | None) -> Answer:
        if fault in {Fault.REDIRECT, Fault.REDIRECT_SELF}:
            there = self.redirect_to if fault is Fault.REDIRECT else _MOVED + received.path
            return Answer(307, b"", {"location": there})
        if fault in BODIES:
            return BODIES[fault]
        if fault in REFUSALS:
            return self._refusal(fault, received, asked)
        rows = spoil(self._rows(asked), fault)
        model = "another-model" if fault is Fault.OTHER_MODEL else asked.model
        layout = Layout(rows, model, asked, ECHOES.get(fault, "none"))
        body, headers = self.dialect.pack(self.dialect.answer(layout))
        answer = Answer(200, body, {**self.dialect.headers, **headers})
        if fault is Fault.ACCEPTED:
            self._accepted = answer
            return Answer(202, b"", {"nvcf-reqid": "6c1a2b3c-0001"})
        return answer

    def _rows(self, asked: Asked) -> list[Row]:
        """Score what was asked, best first; a graph's columns stay in their order."""
        tensors = asked.body.get("tensors")
        if self._infer is not None and isinstance(tensors, dict):
            columns = self._infer(tensors).tolist()
            return [Row(i, columns[i], text) for i, text in enumerate(asked.texts)]
        scores = [self._score(asked.query, text) for text in asked.texts]
        if self.dialect.logits:
            scores = [math.log(score / (1.0 - score)) for score in scores]
        rows = [Row(i, score, asked.texts[i]) for i, score in enumerate(scores)]
        return sorted(rows, key=lambda row: -float(str(row.score)))[: asked.top]

    def _refusal(self, fault: Fault | None, received: Received, asked: Asked) -> Answer:
        status, message = REFUSALS[fault]
        key = received.headers.get(self.dialect.key_header, "").removeprefix("Bearer ")
        said = message.format(key=key, text=asked.texts[0])
        return Answer(status, dump(self.dialect.error(status, said)), hints(fault, time.time()))


def overlap(query: str, text: str) -> float:
    """Score by the share of query words in a text, in (0, 1); a hash of the text parts ties.

    >>> overlap("red fox", "a red fox") > overlap("red fox", "a red hen")
    True
    """
    words = set(query.lower().split())
    share = len(words & set(text.lower().split())) / max(1, len(words))
    return 0.05 + 0.8 * share + 0.1 * (zlib.crc32(text.encode("utf-8", "replace")) % 997) / 997


def _asker(faults: Faults) -> Callable[[], Fault | None]:
    if callable(faults):
        numbers = itertools.count()
        return lambda: faults(next(numbers))
    following = iter(faults)
    return lambda: next(following, None)
