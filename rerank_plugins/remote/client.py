"""A pooled HTTP client on a thread of its own; the last check before text leaves."""

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
from functools import partial
from pathlib import Path
from typing import TypeVar

import certifi
import httpx

from ..errors import ClosedError, ConfigError, RemoteError
from ..scoring.runtime.process import OwnerProcess
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
class HttpResponse:
    """A whole HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How connections are made; nothing of it is read from the environment.

    connections: idle connections that are kept, at most
    max_bytes: longer bodies are refused
    ca_file: PEM certificates of authorities, instead of the bundled list
    """

    connect_s: float = 5.0
    connections: int = 64
    max_bytes: int = 32 * 2**20
    proxy: str | None = None
    ca_file: Path | None = None


class Client:
    """Posts JSON from a thread of its own. Thread-safe; `close` ends the thread.

    Each pooled connection is an HTTP client of its own, kept only after a whole response: a
    connection that a deadline, a hedge or an error broke off is closed. (In one shared pool,
    httpcore 1.0 loses such connections for good, until none is left.) `transport` makes what
    replaces the network, for tests that stand in for DNS.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self.options = options
        self._owner = OwnerProcess("the remote scorer")
        self._transport = transport
        self._tls = _tls_context(options.ca_file)
        self._http2 = importlib.util.find_spec("h2") is not None
        self._loop = asyncio.new_event_loop()
        self._idle: list[httpx.AsyncClient] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name="rerank-remote", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(
            self, _end, self._owner, self._loop, self._idle, self._thread
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
    ) -> HttpResponse:
        """Send a request and follow redirects within its origin; `check` sees the URL of every hop.

        A redirect to another origin is refused, whatever the policy says. Raises `RemoteError`, and
        what `check` raises.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            request = httpx.Request(method, url, headers={**_HEADERS, **headers}, content=body)
            await self._check_address(request.url)
            check(str(request.url))
            response = await self._exchange(request)
            if response.status not in _REDIRECTS:
                return response
            url = self._redirect_target(request.url, response.headers.get("location", ""))
        message = f"{origin_of(url)} redirects without end; check the URL"
        raise RemoteError(message)

    def warm_up(self) -> None:
        """Import what the first connection needs, which takes a tenth of a second; idempotent."""
        for name in ("anyio._backends._asyncio", "httpcore", *(("h2",) if self._http2 else ())):
            importlib.import_module(name)
        if not self._idle:
            self._idle.append(self._connect())

    def close(self) -> None:
        """Cancel the calls under way and close the connections."""
        self._finalizer()

    def _check_open(self) -> None:
        self._owner.check()
        if not self._finalizer.alive:
            message = "the remote scorer is closed; create a new one"
            raise ClosedError(message)

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            http2=self._http2,
            # Proxies, certificates and netrc of the environment could lead text elsewhere.
            trust_env=False,
            follow_redirects=False,
            verify=self._tls,
            proxy=self.options.proxy,
            transport=None if self._transport is None else self._transport(),
            timeout=httpx.Timeout(None, connect=self.options.connect_s),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def _exchange(self, request: httpx.Request) -> HttpResponse:
        """Send a request over an idle connection; close the connection unless all was read."""
        http = self._idle.pop() if self._idle else self._connect()
        whole = False
        try:
            response = await self._read(http, request)
            whole = len(self._idle) < self.options.connections
        finally:
            if whole:
                self._idle.append(http)
            else:
                task = self._loop.create_task(http.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return response

    async def _read(self, http: httpx.AsyncClient, request: httpx.Request) -> HttpResponse:
        chunks: list[bytes] = []
        size = 0
        response = await http.send(request, stream=True)
        try:
            async for chunk in response.aiter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > self.options.max_bytes:
                    message = f"the answer is longer than {self.options.max_bytes} bytes"
                    raise RemoteError(message)
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status_code, headers, b"".join(chunks))

    def _redirect_target(self, url: httpx.URL, location: str) -> str:
        try:
            target = str(url.join(location)) if location else ""
            same = bool(target) and origin_of(target) == origin_of(str(url))
        except (httpx.InvalidURL, ConfigError):
            same = False
        if not same:
            message = (
                f"{origin_of(str(url))} redirects to another origin; that is never followed: give "
                "the final URL as base_url if it is right"
            )
            raise RemoteError(message)
        return target

    async def _check_address(self, url: httpx.URL) -> None:
        """Refuse a "localhost" that resolves to another machine."""
        if url.host != "localhost":
            return
        found = await self._loop.getaddrinfo(url.host, url.port or 80)
        if not all(ipaddress.ip_address(info[4][0]).is_loopback for info in found):
            message = "localhost does not lead to this machine; give the address itself as base_url"
            raise RemoteError(message)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _end(
    owner: OwnerProcess,
    loop: asyncio.AbstractEventLoop,
    idle: list[httpx.AsyncClient],
    thread: threading.Thread,
) -> None:
    # A fork shares the loop's sockets and selector: to close them there would break them here.
    if owner.forked:
        return
    ended = asyncio.run_coroutine_threadsafe(_wind_up(idle), loop)
    ended.add_done_callback(partial(_stop, loop))
    if thread is not threading.current_thread():
        thread.join(timeout=5.0)
        if not thread.is_alive():
            loop.close()


def _stop(loop: asyncio.AbstractEventLoop, _: Future[None]) -> None:
    loop.call_soon_threadsafe(loop.stop)


async def _wind_up(idle: list[httpx.AsyncClient]) -> None:
    """Cancel all tasks and close the connections."""
    for task in _other_tasks():
        task.cancel()
    await asyncio.gather(*_other_tasks(), return_exceptions=True)
    closing = (http.aclose() for http in idle)
    await asyncio.gather(*_other_tasks(), *closing, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def _other_tasks() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    # The bundled authorities, not the environment's: SSL_CERT_FILE could vouch for anybody.
    try:
        return ssl.create_default_context(cafile=certifi.where() if ca_file is None else ca_file)
    except (OSError, ssl.SSLError) as error:
        message = f"the CA file {ca_file} cannot be used ({error}); expected PEM certificates"
        raise ConfigError(message) from error
