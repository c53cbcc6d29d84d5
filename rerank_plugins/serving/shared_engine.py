"""One engine for all framework components of a process that ask for the same settings."""

import asyncio
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias
from weakref import WeakValueDictionary

from ..errors import ConfigError, RerankError
from ..records import Budget, Candidate, Code, Decision, Hit, Request, Result, Timing

if TYPE_CHECKING:
    from ..config.schema import Settings
    from ..reranker import Reranker

Source: TypeAlias = str | Mapping[str, object]
"""The path of a settings file, or settings."""

_log = logging.getLogger(__name__)
# Frameworks copy, pickle and re-create their components freely, and forbid that two pipelines share
# one; a model per copy would be waste. Engines nobody holds any more end by themselves.
_engines: "WeakValueDictionary[str, Reranker]" = WeakValueDictionary()
# Neither an engine's threads nor who holds a lock survive a fork: each process has its own of both.
_making: dict[int, threading.Lock] = {}


class SharedReranker:
    """A reranker made at first use and shared by all in the process that give the same settings.

    Degrades to the first-stage order, visibly, when the model cannot be loaded, unless `strict`.
    Thread-safe; a copy, an unpickled one, or one in a fork makes or finds its engine again.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._engine: Reranker | None = None
        self._process = os.getpid()

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
        if (engine := self._found()) is None:
            self._engine = engine = _engine_for(self.source)
            self._process = os.getpid()
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
            engine = self._found()
            if engine is None:
                engine = await asyncio.to_thread(self.engine)
        except RerankError as error:
            return self._without_engine(request, error, started)
        return await asyncio.wrap_future(engine.submit(request))

    def _found(self) -> "Reranker | None":
        return self._engine if self._process == os.getpid() else None

    def _nothing(self) -> Result:
        return Result((), (), request_id=uuid.uuid4().hex, model=self.model)

    def _without_engine(self, request: Request, error: RerankError, started: float) -> Result:
        from ..core.request import check_request

        if isinstance(error, ConfigError) or self._strict(request):
            raise error
        check_request(request)
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


class Choice(Protocol):
    """The fields by which a framework's component says what it wants, as `settings` explains."""

    @property
    def model(self) -> str:
        """What scores."""

    @property
    def config(self) -> Source | None:
        """Settings, instead of all the others."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens a pair."""

    @property
    def precision(self) -> str | None:
        """Which of a model's graphs to prefer."""

    @property
    def provider(self) -> str | None:
        """Where ONNX Runtime computes."""

    @property
    def revision(self) -> str | None:
        """Which version of a hub's model."""

    @property
    def local_files_only(self) -> bool:
        """Whether never to ask the hub."""

    @property
    def depth(self) -> int | None:
        """Candidates scored, at most."""

    @property
    def prior_weight(self) -> float | None:
        """Weight of the retriever's scores."""


def kept(held: SharedReranker | None, chosen: Choice) -> SharedReranker:
    """Give what a component holds, or what replaces it where its fields have changed since.

    Raises `ConfigError` as `settings` does.
    """
    source = settings(
        model=chosen.model,
        config=chosen.config,
        max_tokens=chosen.max_tokens,
        precision=chosen.precision,
        provider=chosen.provider,
        revision=chosen.revision,
        local_files_only=chosen.local_files_only,
        depth=chosen.depth,
        prior_weight=chosen.prior_weight,
    )
    return held if held is not None and held.source == source else SharedReranker(source)


def _engine_for(source: Source) -> "Reranker":
    from ..reranker import load

    process = os.getpid()
    key = json.dumps([process, _read(source).model_dump(mode="json")], sort_keys=True)
    with _making.setdefault(process, threading.Lock()):
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = load(source)
    return engine


def _read(source: Source) -> "Settings":

    from ..config.read import read_settings  # pydantic is a third of the import time

    return read_settings(source)


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
