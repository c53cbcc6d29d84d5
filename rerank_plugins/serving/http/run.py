"""Serve with uvicorn: worker processes that share only the socket."""

import ipaddress
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette

from ...config.build import build_setup
from ...config.read import read_settings
from ...errors import ConfigError
from ...reranker import Reranker
from ...scoring.runtime import process
from ...text_files import read_lines
from . import exporters
from .admission import Limits
from .app import Serving, build
from .connections import BoundedProtocol, ConnectionBounds

# Workers are fresh interpreters: they read the options from this variable.
_ENVIRONMENT = "RERANK_PLUGINS_SERVE"
_MOST_REQUESTS = 256
# What a worker opens besides connections.
_OTHER_FILES = 64
TOKENS_VARIABLE = "RERANK_PLUGINS_TOKENS"
Part = TypeVar("Part", Limits, ConnectionBounds)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the server runs.

    workers: processes
    config: settings file
    model: what to serve without a settings file
    threads, max_requests: per process; None: the file's, else a share of the cores and 256
    tokens_file: a bearer token per line; the variable RERANK_PLUGINS_TOKENS, comma separated, adds
        to it
    open: without tokens, serve everybody who reaches an address that is not of this machine alone
    allow_hosts: names in the Host header, besides localhost and the host to listen on
    drain_s: seconds to finish requests after SIGTERM

    The other options are those of `Limits` and `ConnectionBounds`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    config: str | None = None
    model: str = "embedded"
    threads: int | None = None
    max_requests: int | None = None
    tokens_file: str | None = None
    max_body_bytes: int = Limits().max_body_bytes
    max_candidates: int = Limits().max_candidates
    max_text_chars: int = Limits().max_text_chars
    max_held_bytes: int = Limits().max_held_bytes
    body_timeout_s: float = Limits().body_timeout_s
    default_budget_ms: float = Limits().default_budget_ms
    client_share: float = Limits().client_share
    connections: int = ConnectionBounds().connections
    per_address: int = ConnectionBounds().per_address
    head_s: float = ConnectionBounds().head_s
    write_s: float = ConnectionBounds().write_s
    connection_s: float = ConnectionBounds().connection_s
    open: bool = False
    allow_hosts: Sequence[str] = ()
    drain_s: int = 30


def serve(options: ServeOptions) -> None:
    """Serve until a signal; SIGTERM finishes the requests under way first."""
    _check_open(options, open_tokens(options.tokens_file))
    os.environ[_ENVIRONMENT] = json.dumps(asdict(options))
    uvicorn.run(
        f"{__name__}:application",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=options.drain_s,
        # Enough for a new interpreter to start on a busy machine. A worker that dies during a
        # health check is noticed only after this time.
        timeout_worker_healthcheck=30,
    )


def application() -> Starlette:
    """Return the application of a worker, from the options that `serve` put in the environment."""
    exporters.set_up()
    options = ServeOptions(**json.loads(os.environ[_ENVIRONMENT]))
    tokens = open_tokens(options.tokens_file)
    _check_open(options, tokens)
    return build(
        Serving(
            open_reranker=partial(open_reranker, options),
            limits=_of(Limits, options),
            tokens=tokens,
            hosts=_hosts(options, tokens),
            connections=_within_descriptors(_of(ConnectionBounds, options)),
        )
    )


def open_reranker(options: ServeOptions) -> Reranker:
    """Return the reranker, on this worker's share of the cores unless the options say otherwise."""
    source = options.config or {
        "stages": [{"scorer": options.model}],
        "service": {"max_requests": _MOST_REQUESTS},
    }
    setup = build_setup(read_settings(source))
    share = max(1, process.cores() // options.workers)
    return Reranker(
        replace(
            setup,
            workers=options.threads or setup.workers or share,
            max_requests=options.max_requests or setup.max_requests,
        )
    )


def open_tokens(tokens_file: str | None = None) -> Sequence[str]:
    """Return the allowed bearer tokens, none where neither a file nor the variable is given.

    Raises `ConfigError` where a file or RERANK_PLUGINS_TOKENS is given and holds no token.
    """
    tokens: list[str] = []
    variable = os.environ.get(TOKENS_VARIABLE)
    if variable is not None:
        tokens += _some(variable.replace(",", "\n").splitlines(), TOKENS_VARIABLE)
    if tokens_file is not None:
        try:
            lines = [line for _, line in read_lines(Path(tokens_file))]
        except OSError as error:
            message = f"no tokens file at {tokens_file}: {error.strerror}"
            raise ConfigError(message) from error
        except UnicodeError as error:
            message = f"the tokens file {tokens_file} is no text in UTF-8; save it as such"
            raise ConfigError(message) from error
        tokens += _some([line for line in lines if not line.startswith("#")], tokens_file)
    return tuple(tokens)


def _some(tokens: Sequence[str], source: str) -> Sequence[str]:
    found = [token.strip() for token in tokens if token.strip()]
    if not found:
        message = f"{source} holds no token; the server would be open to anyone"
        raise ConfigError(message)
    return found


def _check_open(options: ServeOptions, tokens: Sequence[str]) -> None:
    """Raise `ConfigError` where others could call without a token and nobody said that they may."""
    if tokens or options.open or is_loopback(options.host):
        return
    message = (
        f"{options.host} can be reached from elsewhere, and no tokens are given; give some with "
        f"--tokens-file or {TOKENS_VARIABLE}, or serve everybody with --open"
    )
    raise ConfigError(message)


def is_loopback(host: str) -> bool:
    """True if only this machine reaches the address.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hosts(options: ServeOptions, tokens: Sequence[str]) -> Collection[str] | None:
    # A page in a browser has no token: with tokens, a name that leads here does no harm.
    if tokens and not options.allow_hosts:
        return None
    return {"localhost", options.host.lower(), *(name.lower() for name in options.allow_hosts)}


def _within_descriptors(bounds: ConnectionBounds) -> ConnectionBounds:
    """Return the bounds with fewer connections where the process may not open as many files."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return bounds
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return bounds
    connections = min(bounds.connections, max(most - _OTHER_FILES, most // 2))
    return replace(
        bounds, connections=connections, per_address=min(bounds.per_address, connections // 2)
    )


def _of(kind: type[Part], options: ServeOptions) -> Part:
    """Return the part of the options that a record of `kind` holds."""
    return kind(**{item.name: getattr(options, item.name) for item in fields(kind)})
