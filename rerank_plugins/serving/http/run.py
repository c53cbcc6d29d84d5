"""Serve with uvicorn: worker processes that share only the socket."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...config.build import build_setup
from ...config.read import read_settings
from ...errors import ConfigError
from ...reranker import Reranker
from . import exporters
from .admission import Limits
from .app import Serving, build

# Workers are fresh interpreters: they read the options from this variable.
_ENVIRONMENT = "RERANK_PLUGINS_SERVE"
_HEADER_TIMEOUT_S = 10.0
_MOST_REQUESTS = 256
TOKENS_VARIABLE = "RERANK_PLUGINS_TOKENS"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the server runs.

    workers: processes
    config: settings file
    model: what to serve without a settings file
    threads, max_requests: per process; None: the file's, else a share of the cores and 256
    tokens_file: a bearer token per line; the variable RERANK_PLUGINS_TOKENS, comma separated, adds
        to it
    drain_s: seconds to finish requests after SIGTERM
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
    body_timeout_s: float = Limits().body_timeout_s
    drain_s: int = 30


class HeadTimeoutProtocol(H11Protocol):
    """uvicorn's h11 protocol that closes a connection whose request head takes too long."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Keep the timer only while the head is incomplete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEADER_TIMEOUT_S, self.transport.close)

    def _unwatch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def serve(options: ServeOptions) -> None:
    """Serve until a signal; SIGTERM finishes the requests under way first."""
    open_tokens(options)
    os.environ[_ENVIRONMENT] = json.dumps(asdict(options))
    uvicorn.run(
        f"{__name__}:application",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        http=HeadTimeoutProtocol,
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
    return build(
        Serving(
            open_reranker=partial(open_reranker, options),
            limits=Limits(options.max_body_bytes, options.max_candidates, options.body_timeout_s),
            tokens=open_tokens(options),
        )
    )


def open_reranker(options: ServeOptions) -> Reranker:
    """Return the reranker, on this worker's share of the cores unless the options say otherwise."""
    source = options.config or {
        "stages": [{"scorer": options.model}],
        "service": {"max_requests": _MOST_REQUESTS},
    }
    setup = build_setup(read_settings(source))
    share = max(1, (os.cpu_count() or 1) // options.workers)
    return Reranker(
        replace(
            setup,
            workers=options.threads or setup.workers or share,
            max_requests=options.max_requests or setup.max_requests,
        )
    )


def open_tokens(options: ServeOptions) -> Sequence[str]:
    """Return the allowed bearer tokens. Raises `ConfigError` for a tokens file without tokens."""
    tokens = [token.strip() for token in os.environ.get(TOKENS_VARIABLE, "").split(",")]
    if options.tokens_file is not None:
        try:
            lines = Path(options.tokens_file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            message = f"no tokens file at {options.tokens_file}: {error.strerror}"
            raise ConfigError(message) from error
        tokens += [line.strip() for line in lines if not line.startswith("#")]
        if not any(tokens):
            message = f"{options.tokens_file} holds no token; the server would be open to anyone"
            raise ConfigError(message)
    return tuple(token for token in tokens if token)
