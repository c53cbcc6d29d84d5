"""The ASGI application: its routes over one reranker, which is warm before the first request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry import context as otel_context
from opentelemetry import propagate
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...errors import ClosedError, InvalidRequest, RerankError
from ...records import Code, Result
from ...reranker import Reranker
from . import openapi
from .admission import Limits, Refused, check_token, read_body, read_budget_ms
from .dialects import Dialect, RerankBody, TeiBody, documents_answer, tei_answer
from .exporters import prometheus_text

_LOG = logging.getLogger(__name__)
_PARSE_IN_THREAD_BYTES = 256 * 2**10
Body = TypeVar("Body")
_RERANK_BODY: TypeAdapter[RerankBody] = TypeAdapter(RerankBody)
_RERANK_OR_TEI_BODY: TypeAdapter[RerankBody | TeiBody] = TypeAdapter(RerankBody | TeiBody)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Serving:
    """What the application is made of.

    open_reranker: called once, in the worker process, before the first request
    limits: bounds on a single request
    tokens: bearer tokens that are allowed; empty: no token is needed
    """

    open_reranker: Callable[[], Reranker]
    limits: Limits = field(default_factory=Limits)
    tokens: Sequence[str] = ()


def build(serving: Serving) -> Starlette:
    """Return the application; its start-up loads and warms the reranker."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        reranker = await asyncio.to_thread(serving.open_reranker)
        await asyncio.to_thread(reranker.warm_up)
        app.state.reranker = reranker
        _LOG.info("ready: %s", reranker.model)
        try:
            yield
        finally:
            await asyncio.to_thread(reranker.close)

    def post(path: str, answer: Handler) -> Route:
        return Route(path, answer, methods=["POST"])

    def get(path: str, answer: Handler) -> Route:
        return Route(path, answer, methods=["GET"])

    return Starlette(
        routes=[
            post("/v2/rerank", _rerank_route(serving, "cohere_v2")),
            post("/v1/rerank", _rerank_route(serving, "jina")),
            post("/rerank", _rerank_or_tei_route(serving)),
            get("/healthz", _healthz),
            get("/readyz", _readyz),
            get("/metrics", _metrics),
            get("/openapi.json", _openapi),
            get("/", _page),
        ],
        lifespan=lifespan,
        exception_handlers={
            Refused: _on_refused,
            HTTPException: _on_http_error,
            RerankError: _on_rerank_error,
        },
    )


def _rerank_route(serving: Serving, dialect: Dialect) -> Handler:
    async def answer(request: Request) -> Response:
        body = await _parse(request, serving, _RERANK_BODY)
        return await _answer_documents(request, serving, dialect, body)

    return answer


def _rerank_or_tei_route(serving: Serving) -> Handler:
    """Return the handler of `/rerank`: TEI clients send `texts`, all others `documents`."""

    async def answer(request: Request) -> Response:
        body = await _parse(request, serving, _RERANK_OR_TEI_BODY)
        if isinstance(body, RerankBody):
            return await _answer_documents(request, serving, "jina", body)
        result = await _rerank(request, serving, body.query, body.texts, None)
        return JSONResponse(tei_answer(body, result), headers=_headers(result))

    return answer


async def _answer_documents(
    request: Request, serving: Serving, dialect: Dialect, body: RerankBody
) -> Response:
    result = await _rerank(request, serving, body.query, body.texts, body.wanted)
    model = body.model or result.model
    return JSONResponse(documents_answer(dialect, body, result, model), headers=_headers(result))


async def _rerank(
    request: Request, serving: Serving, query: str, texts: list[str], top_n: int | None
) -> Result:
    """Run the engine under the caller's trace and deadline."""
    if len(texts) > serving.limits.max_candidates:
        limit = serving.limits.max_candidates
        raise Refused(422, f"{len(texts)} documents; at most {limit} are allowed")
    reranker: Reranker = request.app.state.reranker
    budget_ms = read_budget_ms(request)
    started = time.monotonic()
    token = otel_context.attach(propagate.extract(dict(request.headers)))
    try:
        result = await reranker.arerank(query, texts, top_k=top_n, budget_ms=budget_ms)
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
        len(texts),
        (time.monotonic() - started) * 1e3,
        ", degraded" if result.degraded else "",
    )
    return result


async def _parse(request: Request, serving: Serving, kind: TypeAdapter[Body]) -> Body:
    """Return the body as a model of `kind`. Raises `Refused`."""
    check_token(request, serving.tokens)
    data = await read_body(request, serving.limits)
    if len(data) > _PARSE_IN_THREAD_BYTES:
        return await asyncio.to_thread(_validated, data, kind)
    return _validated(data, kind)


def _validated(data: bytes, kind: TypeAdapter[Body]) -> Body:
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        # Locations and reasons only: the input may be somebody's document.
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)[:5]
        ]
        raise Refused(422, "invalid request: " + "; ".join(problems)) from error


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


async def _metrics(_: Request) -> Response:
    return Response(prometheus_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(_: Request) -> Response:
    return JSONResponse(openapi.description())


async def _page(_: Request) -> Response:
    return HTMLResponse(openapi.html_page())


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
