"""A pooled HTTP client on a thread of its own; the last check before text leaves."""

import asyncio
import importlib
import importlib.util
import ipaddress
import logging
import re
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import certifi
import httpx

from ..errors import ClosedError, ConfigError, RemoteError
from ..scoring.runtime.process import OwnerProcess
from .destination import is_address, is_private, normalised, origin_of

_REDIRECTS = frozenset({307, 308})
_MOST_REDIRECTS = 2

_HEADERS = {
    "user-agent": "rerank-plugins",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
}

# Libraries that write headers into their debug logs: what we send, and what comes back of it.
_TALKATIVE = (
    "botocore.auth",
    "hpack.hpack",
    "hpack.table",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "httpx",
)
_THREAD = "rerank-remote"
_PORTS = 2**16
_PROXY_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")

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
    insecure: plain http may leave this machine and private networks
    """

    connect_s: float = 5.0
    connections: int = 64
    max_bytes: int = 32 * 2**20
    # It may hold a password.
    proxy: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    insecure: bool = False


class _Discretion(logging.Filter):
    """Keeps headers of this client's thread out of the logs; other threads log as ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True if a record may be logged."""
        if threading.current_thread().name != _THREAD:
            return True
        if record.name == "httpx" and isinstance(record.args, tuple) and record.args:
            # The reason behind the status is the other side's own words; a query may hold a key.
            values = [
                v.copy_with(query=None) if isinstance(v, httpx.URL) else v for v in record.args
            ]
            record.args = (*values[:-1], "")
        return record.levelno >= logging.INFO


_DISCRETION = _Discretion()


class Client:
    """Posts JSON from a thread of its own. Thread-safe; `close` ends the thread.

    Each pooled connection is an HTTP client of its own, kept only after a whole response: a
    connection that a deadline, a hedge or an error broke off is closed. (In one shared pool,
    httpcore 1.0 loses such connections for good, until none is left.) `transport` makes what
    replaces the network, for tests that stand in for DNS. `http2` False keeps to HTTP/1.1, for keys
    in headers that HTTP/2 would keep in its table of headers. Raises `ConfigError` for authorities
    or a proxy that cannot be used.
    """

    def __init__(
        self,
        options: ClientOptions,
        *,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        http2: bool = True,
    ) -> None:
        self.options = options
        self._owner = OwnerProcess("the remote scorer")
        self._transport = transport
        self._tls = _tls_context(options.ca_file)
        self._proxy = _proxy(options)
        self._http2 = http2 and importlib.util.find_spec("h2") is not None
        self._reached = ""
        for logger in map(logging.getLogger, _TALKATIVE):
            logger.addFilter(_DISCRETION)
        self._loop = asyncio.new_event_loop()
        self._idle: list[httpx.AsyncClient] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name=_THREAD, daemon=True
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
            addresses = await self._addresses(request.url)
            check(str(request.url))
            response = await self._exchange_at(addresses, request)
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
            proxy=self._proxy,
            transport=None if self._transport is None else self._transport(),
            timeout=httpx.Timeout(None, connect=self.options.connect_s),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def _exchange_at(self, addresses: list[str], request: httpx.Request) -> HttpResponse:
        """Send a request to the first address that takes connections."""
        for address in addresses:
            try:
                response = await self._exchange(_to(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
            else:
                self._reached = address
                return response
        message = f"{origin_of(str(request.url))} has no address"
        raise RemoteError(message)

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
            target = normalised(str(url.join(location))) if location else ""
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

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Return where to connect to: the host, or its addresses if those have to be checked.

        A name counts as what it resolves to here and now, once: connections go to these addresses
        and to no others. TLS proves every other name. Raises `RemoteError` for a "localhost" that
        is another machine, and for plain http that would leave private networks.
        """
        host, local = url.host, url.host == "localhost"
        plain = url.scheme == "http" and not self.options.insecure
        if self._proxy is not None or is_address(host) or not (local or plain):
            return [host]
        found = await self._loop.getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if local and not all(ipaddress.ip_address(one).is_loopback for one in addresses):
            message = "localhost does not lead to this machine; give the address itself as base_url"
            raise RemoteError(message)
        if not all(map(is_private, addresses)):
            message = (
                f"{origin_of(str(url))} has no TLS and leads out of private networks; use https, "
                "or write insecure = true in the stage"
            )
            raise RemoteError(message)
        return sorted(addresses, key=lambda address: address != self._reached)


def _to(address: str, request: httpx.Request) -> httpx.Request:
    """Return a request to an address under the name that it was for, which TLS proves."""
    if address == request.url.host:
        return request
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


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


def _tls_context(*files: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of some files, None for the bundled ones.

    Nothing of it comes from the environment: SSL_CERT_FILE could vouch for anybody, and with
    SSLKEYLOGFILE anybody could read along.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    for path in files:
        try:
            context.load_verify_locations(certifi.where() if path is None else path)
        except (OSError, ssl.SSLError) as error:
            message = f"the CA file {path} cannot be used ({error}); expected PEM certificates"
            raise ConfigError(message) from error
    return context


def _proxy(options: ClientOptions) -> httpx.Proxy | None:
    if options.proxy is None:
        return None
    secured = options.proxy.lower().startswith("https:")
    tls = _tls_context(*{None, options.ca_file}) if secured else None
    try:
        proxy = httpx.Proxy(options.proxy, ssl_context=tls)
        port = proxy.url.port
        fine = bool(_PROXY_HOST.fullmatch(proxy.url.host)) and (port is None or 0 < port < _PORTS)
    except (httpx.InvalidURL, ValueError):
        fine = False
    if not fine:
        message = "the proxy is no URL of a proxy; expected http://[user:password@]host:port"
        raise ConfigError(message)
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        message = "a SOCKS proxy needs the package socksio: pip install 'httpx[socks]'"
        raise ConfigError(message)
    return proxy
