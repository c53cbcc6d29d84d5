"""The ASGI application: its routes over one reranker, which is warm before the first request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry import context as otel_context
from opentelemetry import propagate
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...errors import ClosedError, InvalidRequest, RerankError
from ...records import Candidate, Code, Result
from ...reranker import Reranker
from ..shared_engine import loses_labels
from . import openapi
from .admission import (
    Limits,
    Queue,
    Refused,
    check_content_type,
    check_host,
    check_token,
    read_body,
    read_budget_ms,
)
from .bodies import Bodies
from .connections import CloseUnread, ConnectionBounds, Connections
from .dialects import Dialect, RerankBody, TeiBody, documents_answer, tei_answer
from .exporters import prometheus_text

_LOG = logging.getLogger(__name__)
_PARSE_IN_THREAD_BYTES = 256 * 2**10
# Less text is scored long before any default deadline; and without a deadline the scheduler lets a
# small request overtake large ones.
_LITTLE_TEXT_CHARS = 16_384
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Serving:
    """What the application is made of.

    open_reranker: called once, in the worker process, before the first request
    limits: bounds on requests
    tokens: bearer tokens that are allowed; empty: no token is needed
    hosts: names under which clients may call; None: any
    connections: bounds on connections, where uvicorn runs with `BoundedProtocol`
    """

    open_reranker: Callable[[], Reranker]
    limits: Limits = field(default_factory=Limits)
    tokens: Sequence[str] = ()
    hosts: Collection[str] | None = None
    connections: ConnectionBounds = field(default_factory=ConnectionBounds)


def build(serving: Serving) -> Starlette:
    """Return the application; its start-up loads and warms the reranker."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        reranker = await asyncio.to_thread(serving.open_reranker)
        await asyncio.to_thread(reranker.warm_up)
        setup = reranker.setup
        # Where the local queue is full, a stage that sends may still serve.
        places = setup.max_requests * (2 if setup.sends else 1)
        app.state.queue = Queue(serving.limits, places)
        app.state.bodies = Bodies(serving.limits, setup.policy.residency_key)
        app.state.reranker = reranker
        _LOG.info("ready: %s", reranker.model)
        try:
            yield {"connections": Connections(serving.connections)}
        finally:
            await asyncio.to_thread(reranker.close)

    app = Starlette(
        routes=[
            Route("/v2/rerank", _rerank_route(serving, "cohere_v2"), methods=["POST"]),
            Route("/v1/rerank", _rerank_route(serving, "jina"), methods=["POST"]),
            Route("/rerank", _rerank_or_tei_route(serving), methods=["POST"]),
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/readyz", _readyz, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            Route("/info", _private(serving, _info), methods=["GET"]),
            Route("/metrics", _private(serving, _metrics), methods=["GET"]),
            Route("/openapi.json", _private(serving, _openapi), methods=["GET"]),
            Route("/", _private(serving, _page), methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=[Middleware(CloseUnread)],
        exception_handlers={
            Refused: _on_refused,
            HTTPException: _on_http_error,
            RerankError: _on_rerank_error,
        },
    )
    # A redirection would repeat the caller's Host.
    app.router.redirect_slashes = False
    app.state.limits = serving.limits
    return app


def _private(serving: Serving, answer: Handler) -> Handler:
    """Return a handler that answers those only who may rerank, too."""

    async def private(request: Request) -> Response:
        check_host(request, serving.hosts)
        check_token(request, serving.tokens)
        return await answer(request)

    return private


def _rerank_route(serving: Serving, dialect: Dialect) -> Handler:
    async def answer(request: Request) -> Response:
        client = _admit(request, serving)
        with request.app.state.queue.place(client) as place:
            data = await read_body(request, serving.limits, place)
            body, candidates = await _parsed(request.app.state.bodies.rerank, data)
            return await _answer_documents(request, dialect, body, candidates)

    return answer


def _rerank_or_tei_route(serving: Serving) -> Handler:
    """Return the handler of `/rerank`: TEI clients send `texts`, all others `documents`."""

    async def answer(request: Request) -> Response:
        client = _admit(request, serving)
        with request.app.state.queue.place(client) as place:
            data = await read_body(request, serving.limits, place)
            body, candidates = await _parsed(request.app.state.bodies.rerank_or_tei, data)
            if isinstance(body, RerankBody):
                return await _answer_documents(request, "jina", body, candidates)
            return await _answer_texts(request, body, candidates)

    return answer


def _admit(request: Request, serving: Serving) -> str:
    """Return the client's name. Raises `Refused` where it may not call."""
    check_host(request, serving.hosts)
    client = check_token(request, serving.tokens)
    check_content_type(request)
    return client


async def _parsed(parse: Callable[[bytearray], T], data: bytearray) -> T:
    if len(data) > _PARSE_IN_THREAD_BYTES:
        return await asyncio.to_thread(parse, data)
    return parse(data)


async def _answer_documents(
    request: Request, dialect: Dialect, body: RerankBody, candidates: Sequence[Candidate]
) -> Response:
    result = await _rerank(request, body.query, candidates, body.wanted)
    answer = documents_answer(dialect, body, candidates, result)
    return JSONResponse(answer, headers=_headers(result))


async def _answer_texts(
    request: Request, body: TeiBody, candidates: Sequence[Candidate]
) -> Response:
    if loses_labels(request.app.state.reranker.setup):
        message = (
            "texts cannot carry residency labels, and the policy needs them; send documents as "
            'objects, or set policy.unlabelled = "deny"'
        )
        raise Refused(422, message)
    result = await _rerank(request, body.query, candidates, None)
    return JSONResponse(tei_answer(body, candidates, result), headers=_headers(result))


async def _rerank(
    request: Request, query: str, candidates: Sequence[Candidate], top_n: int | None
) -> Result:
    """Run the engine under the caller's trace and deadline."""
    reranker: Reranker = request.app.state.reranker
    budget_ms = read_budget_ms(request) or _default_budget_ms(request, candidates)
    started = time.monotonic()
    token = otel_context.attach(propagate.extract(dict(request.headers)))
    try:
        work = reranker.arerank(query, candidates, top_k=top_n, budget_ms=budget_ms)
        result = await _while_connected(request, work)
    except asyncio.CancelledError as error:
        # The time to finish requests is over; a client that is told so can ask another server.
        raise Refused(503, "the server is ending; retry elsewhere") from error
    finally:
        otel_context.detach(token)
    if any(decision.code is Code.OVERLOADED for decision in result.decisions):
        raise Refused(429, "the queue is full; retry later")
    _LOG.debug(
        "rerank %s: %d candidates, %.1f ms%s",
        result.request_id,
        len(candidates),
        (time.monotonic() - started) * 1e3,
        ", degraded" if result.degraded else "",
    )
    return result


def _default_budget_ms(request: Request, candidates: Sequence[Candidate]) -> float | None:
    """Return the deadline of a request that names none; None leaves it to the settings."""
    if request.app.state.reranker.setup.budget.time_s is not None:
        return None
    chars = sum(len(candidate.text or "") for candidate in candidates)
    limits: Limits = request.app.state.limits
    return limits.default_budget_ms if chars > _LITTLE_TEXT_CHARS else None


async def _while_connected(request: Request, work: Coroutine[object, object, Result]) -> Result:
    """Return the result of `work`, which is dropped if the client leaves. Raises `Refused`."""
    result = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_disconnect(request))
    try:
        await asyncio.wait({result, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise Refused(499, "the client closed the connection")
        return result.result()
    finally:
        result.cancel()
        leaving.cancel()


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(result: Result) -> dict[str, str]:
    """Return timings as text-embeddings-inference names them (whole ms), and as Server-Timing."""
    seconds: dict[str, float] = {}
    for timing in result.timings:
        seconds[timing.step] = seconds.get(timing.step, 0.0) + timing.seconds
    names = {"total": "total", "tokenise": "tokenization", "queue": "queue", "score": "inference"}
    headers = {
        f"x-{name}-time": str(round(seconds.get(step, 0.0) * 1e3)) for step, name in names.items()
    }
    headers["server-timing"] = ", ".join(
        f"{step};dur={value * 1e3:.2f}" for step, value in seconds.items()
    )
    headers["x-compute-tokens"] = str(result.usage.tokens)
    headers["rerank-request-id"] = result.request_id
    headers["rerank-degraded"] = "true" if result.degraded else "false"
    return headers


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _readyz(request: Request) -> Response:
    ready = request.app.state.reranker.ready
    return PlainTextResponse("ready" if ready else "warming up", status_code=200 if ready else 503)


async def _health(request: Request) -> Response:
    """Answer as text-embeddings-inference does: the status alone tells."""
    return Response(status_code=200 if request.app.state.reranker.ready else 503)


async def _info(request: Request) -> Response:
    """Return what clients of text-embeddings-inference ask first: what runs, and its limits."""
    limits: Limits = request.app.state.limits
    return JSONResponse(
        {
            "model_id": request.app.state.reranker.model,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_client_batch_size": limits.max_candidates,
            "max_concurrent_requests": request.app.state.reranker.setup.max_requests,
            "auto_truncate": True,
        }
    )


async def _metrics(_: Request) -> Response:
    return Response(prometheus_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi.description(request.app.state.limits))


async def _page(request: Request) -> Response:
    return HTMLResponse(openapi.html_page(request.app.state.limits))


async def _on_refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    headers = {"retry-after": "1"} if error.status == 429 else None  # noqa: PLR2004 - HTTP
    return _error(error.status, error.message, headers)


async def _on_http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _error(error.status_code, error.detail, dict(error.headers or {}))


async def _on_rerank_error(_: Request, error: Exception) -> Response:
    if isinstance(error, InvalidRequest):
        return _error(422, f"invalid request: {error}", None)
    if isinstance(error, ClosedError):
        return _error(503, "the server is shutting down", {"retry-after": "1"})
    _LOG.error("rerank failed: %s", type(error).__name__)
    return _error(503, "the model could not serve this request", {"retry-after": "1"})


def _error(status: int, message: str, headers: dict[str, str] | None) -> JSONResponse:
    """Return an error with the keys of all dialects, so that every client finds its own."""
    kinds = {429: "Overloaded", 503: "Unhealthy", 401: "Unauthorized"}
    content = {
        "message": message,
        "detail": message,
        "error": message,
        "error_type": kinds.get(status, "Validation"),
    }
    return JSONResponse(content, status_code=status, headers=headers)
