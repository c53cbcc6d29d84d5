"""One thread with an event loop and a pooled HTTP client; the last check before text leaves."""

import asyncio
import importlib
import importlib.util
import ipaddress
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import certifi
import httpx

from ..errors import ClosedError, ConfigError, RemoteError
from ..scoring.runtime.process import Home
from .destination import origin_of

_REDIRECTS = frozenset({307, 308})
_MOST_REDIRECTS = 2

_HEADERS = {
    "user-agent": "rerank-plugins",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
}

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How connections are made. Proxies come from here alone, never from the environment."""

    connect_s: float = 5.0
    connections: int = 64
    most_bytes: int = 32 * 2**20
    proxy: str | None = None
    ca_file: Path | None = None


class Client:
    """Posts JSON from a thread of its own. Thread-safe; `close` ends the thread.

    Each pooled connection is an HTTP client of its own, kept only after a whole answer: what a
    deadline, a hedge or an error broke off is thrown away. (In one shared pool, httpcore 1.0 loses
    such connections for good, until none is left.) `transport` makes what replaces the network, for
    tests that stand in for DNS.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self.options = options
        self._home = Home("the remote scorer")
        self._transport = transport
        self._trust = _trust(options.ca_file)
        self._http2 = importlib.util.find_spec("h2") is not None
        self._loop = asyncio.new_event_loop()
        self._free: list[httpx.AsyncClient] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=_turn, args=(self._loop,), daemon=True)
        self._thread.name = "rerank-remote"
        self._thread.start()
        self._finalizer = weakref.finalize(
            self, _end, self._home, self._loop, self._free, self._thread
        )

    def submit(self, coroutine: Coroutine[object, object, R]) -> Future[R]:
        """Run a coroutine on the thread; cancelling the future cancels it. Raises `ClosedError`."""
        try:
            self._check_open()
        except ClosedError:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def send(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        check: Callable[[str], None],
        method: str = "POST",
    ) -> Reply:
        """Send a request after `check` let its final URL pass; follow the host's own redirects.

        Every hop is checked. A redirect to another origin is refused, whatever the policy says.
        Raises `RemoteError`, and what `check` raises.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            request = httpx.Request(method, url, headers={**_HEADERS, **headers}, content=body)
            await self._check_address(request.url)
            check(str(request.url))
            reply = await self._exchange(request)
            if reply.status not in _REDIRECTS:
                return reply
            url = self._next(request.url, reply.headers.get("location", ""))
        message = f"{origin_of(url)} redirects without end; check the URL"
        raise RemoteError(message)

    def warm_up(self) -> None:
        """Load what the first connection would load: a tenth of a second of imports; idempotent."""
        for name in ("anyio._backends._asyncio", "httpcore", *(("h2",) if self._http2 else ())):
            importlib.import_module(name)
        if not self._free:
            self._free.append(self._connect())

    def close(self) -> None:
        """Cancel what is under way and close the connections."""
        self._finalizer()

    def _check_open(self) -> None:
        self._home.check()
        if not self._finalizer.alive:
            message = "the remote scorer is closed; create a new one"
            raise ClosedError(message)

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            http2=self._http2,
            # Proxies, certificates and netrc of the environment could lead text elsewhere.
            trust_env=False,
            follow_redirects=False,
            verify=self._trust,
            proxy=self.options.proxy,
            transport=None if self._transport is None else self._transport(),
            timeout=httpx.Timeout(None, connect=self.options.connect_s),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def _exchange(self, request: httpx.Request) -> Reply:
        """Send a request over a free connection; whatever breaks it off takes that with it."""
        http = self._free.pop() if self._free else self._connect()
        whole = False
        try:
            reply = await self._read(http, request)
            whole = len(self._free) < self.options.connections
        finally:
            if whole:
                self._free.append(http)
            else:
                task = self._loop.create_task(http.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return reply

    async def _read(self, http: httpx.AsyncClient, request: httpx.Request) -> Reply:
        chunks: list[bytes] = []
        size = 0
        response = await http.send(request, stream=True)
        try:
            async for chunk in response.aiter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > self.options.most_bytes:
                    message = f"the answer is longer than {self.options.most_bytes} bytes"
                    raise RemoteError(message)
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, b"".join(chunks))

    def _next(self, here: httpx.URL, location: str) -> str:
        try:
            there = str(here.join(location)) if location else ""
            same = bool(there) and origin_of(there) == origin_of(str(here))
        except (httpx.InvalidURL, ConfigError):
            same = False
        if not same:
            message = (
                f"{origin_of(str(here))} redirects to another origin; that is never followed: give "
                "the final URL as base_url if it is right"
            )
            raise RemoteError(message)
        return there

    async def _check_address(self, url: httpx.URL) -> None:
        """Refuse a "localhost" that look-ups place on another machine."""
        if url.host != "localhost":
            return
        found = await self._loop.getaddrinfo(url.host, url.port or 80)
        if not all(ipaddress.ip_address(one[4][0]).is_loopback for one in found):
            message = "localhost does not lead to this machine; give the address itself as base_url"
            raise RemoteError(message)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _end(
    home: Home,
    loop: asyncio.AbstractEventLoop,
    free: list[httpx.AsyncClient],
    thread: threading.Thread,
) -> None:
    # A fork shares the loop's sockets and selector: to close them there would break them here.
    if home.left:
        return
    asyncio.run_coroutine_threadsafe(_wind_up(free), loop).add_done_callback(
        lambda _: loop.call_soon_threadsafe(loop.stop)
    )
    if thread is not threading.current_thread():
        thread.join(timeout=5.0)
        if not thread.is_alive():
            loop.close()


async def _wind_up(free: list[httpx.AsyncClient]) -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.gather(*others, *(http.aclose() for http in free), return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    # The bundled authorities, not the environment's: SSL_CERT_FILE could vouch for anybody.
    try:
        return ssl.create_default_context(cafile=certifi.where() if ca_file is None else ca_file)
    except (OSError, ssl.SSLError) as error:
        message = f"the CA file {ca_file} cannot be used ({error}); expected PEM certificates"
        raise ConfigError(message) from error
