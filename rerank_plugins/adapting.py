"""What every framework adapter needs: one engine per settings, priors, and facts as plain data."""

import asyncio
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, SupportsFloat, TypeAlias
from weakref import WeakValueDictionary

from opentelemetry import context, trace

from . import semconv
from .errors import ConfigError, RerankError
from .records import Budget, Candidate, Code, Decision, Hit, Request, Result, Timing

if TYPE_CHECKING:
    from .reranker import Reranker
    from .settings import Settings

Source: TypeAlias = str | Mapping[str, object]
"""The path of a settings file, or settings."""

_log = logging.getLogger(__name__)

# Frameworks copy, pickle and re-create their components freely, and forbid that two pipelines share
# one; a model per copy would be waste. Engines nobody holds any more end by themselves.
_engines: "WeakValueDictionary[str, Reranker]" = WeakValueDictionary()
_making = threading.Lock()


class SharedReranker:
    """A reranker made at first use and shared by all in the process that give the same settings.

    Degrades to the first-stage order, visibly, when the model cannot be loaded, unless `strict`.
    Thread-safe; a copy or an unpickled one makes or finds its engine again.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._engine: Reranker | None = None

    def __reduce__(self) -> tuple[type["SharedReranker"], tuple[Source]]:
        return type(self), (self.source,)

    @property
    def model(self) -> str:
        """Name what scores, stage by stage; before it is loaded, what was asked for."""
        if self._engine is not None:
            return self._engine.model
        if isinstance(self.source, str):
            return self.source
        stages = self.source.get("stages")
        names = [_scorer(one) for one in stages] if isinstance(stages, list) else []
        return " > ".join(names) or "embedded"

    def engine(self) -> "Reranker":
        """Give the engine, loading it if nobody has. Raises `ConfigError` and `ModelError`."""
        if (engine := self._engine) is None:
            self._engine = engine = _engine_for(self.source)
        return engine

    def warm_up(self) -> None:
        """Load the model and run real shapes; idempotent. Raises `ConfigError`, `ModelError`."""
        self.engine().warm_up()

    def close(self) -> None:
        """Let go of the engine, which ends with its last holder; the next use makes it again."""
        self._engine = None

    def rerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        *,
        top_k: int | None = None,
        budget_ms: float | None = None,
        strict: bool | None = None,
    ) -> Result:
        """Order candidates; with none, nothing is loaded.

        Raises `InvalidRequest` and `ConfigError`, and in strict mode `RerankError`.
        """
        started = time.monotonic()
        request = _request(query, candidates, top_k=top_k, budget_ms=budget_ms, strict=strict)
        if not request.candidates:
            return self._nothing()
        try:
            engine = self.engine()
        except RerankError as error:
            return self._without_engine(request, error, started)
        return engine.submit(request).result()

    async def arerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        *,
        top_k: int | None = None,
        budget_ms: float | None = None,
        strict: bool | None = None,
    ) -> Result:
        """Do what `rerank` does without blocking the event loop, not even to load the model."""
        started = time.monotonic()
        request = _request(query, candidates, top_k=top_k, budget_ms=budget_ms, strict=strict)
        if not request.candidates:
            return self._nothing()
        try:
            engine = self._engine
            if engine is None:
                engine = await asyncio.to_thread(self.engine)
        except RerankError as error:
            return self._without_engine(request, error, started)
        return await asyncio.wrap_future(engine.submit(request))

    def _nothing(self) -> Result:
        return Result((), (), request_id=uuid.uuid4().hex, model=self.model)

    def _without_engine(self, request: Request, error: RerankError, started: float) -> Result:
        from .validity import check

        if isinstance(error, ConfigError) or self._strict(request):
            raise error
        check(request)
        _log.warning("reranking is off, the first-stage order is kept: %s", error)
        n = len(request.candidates)
        decisions = [
            Decision("load", Code.STAGE_FAILED, n, str(error)),
            Decision("fuse", Code.PASS_THROUGH, n),
        ]
        hits = tuple(Hit(i, None, prior=one.prior) for i, one in enumerate(request.candidates))
        if request.top_k is not None and request.top_k < n:
            decisions.append(Decision("cut", Code.CUT, n - request.top_k))
        return Result(
            hits[: request.top_k],
            tuple(range(n)),
            request_id=uuid.uuid4().hex,
            model=self.model,
            timings=(Timing("total", time.monotonic() - started),),
            decisions=tuple(decisions),
            degraded=True,
        )

    def _strict(self, request: Request) -> bool:
        return _read(self.source).strict if request.strict is None else request.strict


def settings(  # noqa: PLR0913 - the options that every adapter spells as its own fields
    *,
    model: str = "embedded",
    config: Source | None = None,
    max_tokens: int | None = None,
    precision: str | None = None,
    provider: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token_env: str | None = None,
    depth: int | None = None,
    prior_weight: float | None = None,
) -> Source:
    """Turn an adapter's options into what `load` takes; `config` stands alone.

    Raises `ConfigError` where `config` and another option contradict each other.

    >>> settings(model="lexical", depth=20)
    {'stages': [{'scorer': 'lexical'}], 'selection': {'depth': 20}}
    """
    stage: dict[str, object] = {
        "max_tokens": max_tokens,
        "precision": precision,
        "provider": provider,
        "revision": revision,
        "local_files_only": local_files_only or None,
        "token_env": token_env,
    }
    stage = {name: value for name, value in stage.items() if value is not None}
    tables: dict[str, dict[str, object]] = {}
    if depth is not None:
        tables["selection"] = {"depth": depth}
    if prior_weight is not None:
        tables["fusion"] = {"prior_weight": prior_weight}
    if config is None:
        return {"stages": [{"scorer": model, **stage}], **tables}
    named = {"model": model} if model != "embedded" else {}
    beside = sorted({*named, *stage, *(name for table in tables.values() for name in table)})
    if beside:
        message = (
            f"config is given and {', '.join(beside)} beside it; expected one or the other: write "
            "everything into the configuration, or give no config"
        )
        raise ConfigError(message)
    return config


def prior(score: object) -> float | None:
    """Give a retriever's score as a prior; None where it is no finite number.

    >>> prior(0.5), prior(float("nan")), prior(None), prior("high")
    (0.5, None, None, None)
    """
    if isinstance(score, SupportsFloat) and math.isfinite(number := float(score)):
        return number
    return None


def shown(hit: Hit, *, scale: bool = False) -> float | None:
    """Give the score to show beside a document: what orders, or with `scale` a probability.

    `scale` gives the calibrated probability, or the logistic function of the score where the model
    is not calibrated. None: not scored.
    """
    if hit.score is None:
        return None
    if not scale:
        return hit.score if hit.fused is None else hit.fused
    if hit.probability is not None:
        return hit.probability
    # Half of a tanh: the logistic function without overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * hit.score)


def facts(result: Result) -> dict[str, object]:
    """Give what a result says about the request, as JSON-ready data; times in milliseconds."""
    return {
        "request_id": result.request_id,
        "model": result.model,
        "degraded": result.degraded,
        "decisions": [
            {"step": one.step, "code": one.code.code, "count": one.count, "detail": one.detail}
            for one in result.decisions
        ],
        "timings_ms": [
            {"step": one.step, "stage": one.stage, "ms": round(one.seconds * 1e3, 3)}
            for one in result.timings
        ],
        "usage": {name: getattr(result.usage, name) for name in result.usage.__slots__},
    }


def hit_facts(hit: Hit) -> dict[str, object]:
    """Give what a result says about one candidate, as JSON-ready data."""
    names = ("score", "probability", "fused", "prior", "stage", "depth", "truncated_tokens")
    return {name: getattr(hit, name) for name in names}


@contextmanager
def counted(component: str) -> Iterator[None]:
    """Count a reranking once where an OpenInference instrumentor's span around it is a RERANKER.

    `component` begins that span's name; the engine's span inside then is a CHAIN.
    """
    span = trace.get_current_span()
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    name = getattr(span, "name", "")
    if not (scope.startswith("openinference.") and name.startswith(component)):
        yield
        return
    token = context.attach(context.set_value(semconv.COUNTED, True))
    try:
        yield
    finally:
        context.detach(token)


def _engine_for(source: Source) -> "Reranker":
    from .reranker import load

    key = json.dumps(_read(source).model_dump(mode="json"), sort_keys=True)
    with _making:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = load(source)
    return engine


def _read(source: Source) -> "Settings":
    from . import config

    return config.read(source)


def _request(
    query: str,
    candidates: Sequence[Candidate],
    *,
    top_k: int | None,
    budget_ms: float | None,
    strict: bool | None,
) -> Request:
    budget = Budget(None if budget_ms is None else budget_ms / 1e3)
    return Request(query, tuple(candidates), top_k=top_k, budget=budget, strict=strict)


def _scorer(stage: object) -> str:
    return str(stage.get("scorer", "embedded")) if isinstance(stage, Mapping) else str(stage)
