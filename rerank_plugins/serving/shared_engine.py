"""For adapters: one engine for all components of a process that have the same settings.

The names here and in `adapter_support` are documented and stay: adapters of other frameworks may
import them.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from pathlib import PurePath

from ..core.hits import cut
from ..core.request import check_request, make_request
from ..core.run import new_request_id
from ..core.setup import Setup
from ..errors import (
    ConfigError,
    DeadlineExceeded,
    ModelError,
    ModelUnavailable,
    PolicyError,
    RerankError,
)
from ..records import Budget, Candidate, Code, Decision, Request, Result
from ..reranker import Reranker
from ..rules.deadline import FINISH_S, LOADING_SHARE
from ..scoring.models.files import EMBEDDED, LEXICAL, local_path
from .engines import Source, engines, read

__all__ = [
    "ComponentOptions",
    "ModelUnavailable",
    "SharedReranker",
    "loses_labels",
    "shared_reranker",
]

_log = logging.getLogger(__name__)
_STILL_LOADING = (
    "the model is still loading; allow more time, or call warm_up before the first request"
)
# The options that are keys of another table than the stage's.
_TABLES: Mapping[str, str] = {"depth": "selection", "prior_weight": "fusion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentOptions:
    """The options by which a framework's component chooses its engine.

    model: "embedded", "lexical", a hub id, a folder, or an .onnx file
    config: path of a settings file, or settings; instead of all other options

    The other options are keys of the settings file; None leaves them at their default.

    >>> ComponentOptions(model="lexical", depth=20).source()
    {'stages': [{'scorer': 'lexical'}], 'selection': {'depth': 20}}
    """

    model: str | PurePath = EMBEDDED
    config: Source | PurePath | None = None
    max_tokens: int | None = None
    precision: str | None = None
    provider: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    token_env: str | None = None
    depth: int | None = None
    prior_weight: float | None = None

    @classmethod
    def of(cls, component: object, *, token_env: str | None = None) -> "ComponentOptions":
        """Return the options of a component that has them as attributes, all but `token_env`."""
        names = [field.name for field in fields(cls) if field.name != "token_env"]
        return cls(**{name: getattr(component, name) for name in names}, token_env=token_env)

    def source(self) -> Source:
        """Return what `load` takes; only options that were set are written.

        Raises `ConfigError` where `config` and another option are given.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {field.name for field in fields(self) if values[field.name] != field.default}
        if self.config is None:
            stage: dict[str, object] = {"scorer": str(self.model)}
            tables: dict[str, object] = {"stages": [stage]}
            for name in (name for name in values if name in given - {"model"}):
                if name in _TABLES:
                    tables[_TABLES[name]] = {name: values[name]}
                else:
                    stage[name] = values[name]
            return tables
        if others := sorted(given - {"config"}):
            message = (
                f"config is given and {', '.join(others)} beside it; expected one or the other: "
                "write everything into the configuration, or give no config"
            )
            raise ConfigError(message)
        return str(self.config) if isinstance(self.config, PurePath) else self.config


class SharedReranker:
    """A reranker made at first use and shared by all in the process that give the same settings.

    Frameworks copy, pickle and re-create their components freely, and forbid that pipelines share
    a component: a model for each copy would waste memory. Where the model cannot be had now, or is
    still loading when the budget ends, the first-stage order comes back, degraded, unless `strict`.
    Thread-safe. Copies, unpickled objects and forks find the engine or make it again.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._engine: Reranker | None = None
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type["SharedReranker"], tuple[Source]]:
        return type(self), (self.source,)

    @property
    def model(self) -> str:
        """The names of the stages' scorers; before they are loaded, those in the settings."""
        if self._engine is not None:
            return self._engine.model
        if isinstance(self.source, str):
            return self.source
        stages = self.source.get("stages")
        names = [_scorer(stage) for stage in stages] if isinstance(stages, list) else []
        return " > ".join(names) or EMBEDDED

    def engine(self) -> Reranker:
        """Return the engine, loaded if need be. Raises `ConfigError` and `ModelError`."""
        if (engine := self._found()) is None:
            engine = self._hold(engines().load(read(self.source)).result())
        return engine

    def check(self) -> None:
        """Raise what no load could mend, without a load: wrong settings, a path to nothing.

        Raises `ConfigError` and `ModelError`.
        """
        settings = read(self.source)
        helped = any(stage.when == "fallback" for stage in settings.stages)
        for stage in settings.stages:
            named = isinstance(stage.scorer, str) and stage.scorer not in {EMBEDDED, LEXICAL}
            if named and (settings.strict or not helped):
                local_path(str(stage.scorer))

    def refuse_bare_texts(self) -> None:
        """Raise `PolicyError` where a text that has lost its label could be sent.

        For components that get texts without their documents. It asks the engine or, before there
        is one, the settings. Raises `ConfigError` for settings that are wrong.
        """
        if (engine := self._found()) is not None:
            loses = loses_labels(engine.setup)
        elif isinstance(self.source, Mapping) and "policy" not in self.source:
            return
        else:
            settings = read(self.source)
            sends = any(not isinstance(stage.scorer, str) for stage in settings.stages)
            loses = sends and settings.policy.policy().needs_labels
        if loses:
            message = (
                "texts without their documents carry no residency label, a stage sends text, and "
                'the policy restricts where to; set policy.unlabelled = "deny", leave out the '
                "stage, or use a component that gets whole documents"
            )
            raise PolicyError(message)

    def warm_up(self) -> None:
        """Load the model and run real shapes; idempotent. Raises `ConfigError`, `ModelError`."""
        if (engine := self._found()) is None:
            engine = self._hold(engines().load(read(self.source), again=True).result())
        engine.warm_up()

    def close(self) -> None:
        """Release the engine, which ends with its last holder; the next use makes it again."""
        if (engine := self._found()) is not None:
            engines().release(engine)
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
        request = make_request(query, candidates, top_k=top_k, budget_ms=budget_ms, strict=strict)
        if not request.candidates:
            return self._nothing()
        if (engine := self._found()) is None:
            load = self._load(request)
            try:
                engine = self._hold(load.engine.result(load.wait_s(started)))
            except (RerankError, TimeoutError) as error:
                return self._without_engine(load, error, started)
            request = load.rest(started)
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
        request = make_request(query, candidates, top_k=top_k, budget_ms=budget_ms, strict=strict)
        if not request.candidates:
            return self._nothing()
        if (engine := self._found()) is None:
            load = self._load(request)
            try:
                if not load.engine.done():
                    waiting = asyncio.wrap_future(load.engine)
                    await asyncio.wait_for(waiting, load.wait_s(started))
                engine = self._hold(load.engine.result())
            except (RerankError, TimeoutError) as error:
                return self._without_engine(load, error, started)
            request = load.rest(started)
        return await asyncio.wrap_future(engine.submit(request))

    def _found(self) -> Reranker | None:
        return self._engine if self._process == os.getpid() else None

    def _nothing(self) -> Result:
        return Result.first_stage((), request_id=new_request_id(), model=self.model, degraded=False)

    def _hold(self, engine: Reranker) -> Reranker:
        self._engine, self._process = engine, os.getpid()
        return engine

    def _load(self, request: Request) -> "_Load":
        """Begin to load the engine for a request. Raises `InvalidRequest`, `ConfigError`."""
        check_request(request)
        settings = read(self.source)
        asked = replace(
            request,
            budget=Budget(request.budget.time_s or settings.budget.time_s),
            strict=settings.strict if request.strict is None else request.strict,
        )
        waits = settings.service.when_cold == "wait" or bool(asked.strict)
        return _Load(asked, engines().load(settings), waits=waits)

    def _without_engine(
        self, load: "_Load", error: RerankError | TimeoutError, started: float
    ) -> Result:
        """Return the first-stage order, or raise `error` where it must not be hidden."""
        request, code, reason = load.request, Code.STAGE_FAILED, str(error)
        lasting = isinstance(error, ConfigError | ModelError)
        if lasting and not isinstance(error, ModelUnavailable):
            raise error
        if isinstance(error, TimeoutError):
            code, reason = Code.NOT_WARM, _STILL_LOADING
            error = DeadlineExceeded(reason)
        if request.strict:
            raise error
        _log.warning("reranking is off, the first-stage order is kept: %s", reason)
        n = len(request.candidates)
        result = Result.first_stage(
            request.candidates,
            request_id=new_request_id(),
            model=self.model,
            decisions=(
                Decision("load", code, n, reason),
                Decision("fuse", Code.PASS_THROUGH, n),
            ),
            seconds=time.monotonic() - started,
        )
        return cut(result, request.top_k)


@dataclass(frozen=True, slots=True)
class _Load:
    """A request that waits for its engine.

    request: with the settings' budget and strictness where it has none
    waits: False where the settings say that requests pass through while the model is cold
    """

    request: Request
    engine: Future[Reranker]
    waits: bool

    def wait_s(self, started: float) -> float | None:
        """Return for how many seconds the request may wait, None for as long as it takes."""
        if not self.waits:
            return 0.0
        budget_s = self.request.budget.time_s
        if budget_s is None:
            return None
        return max(0.0, started + LOADING_SHARE * budget_s - time.monotonic())

    def rest(self, started: float) -> Request:
        """Return the request with what is left of its budget."""
        budget_s = self.request.budget.time_s
        if budget_s is None:
            return self.request
        left_s = started + budget_s - time.monotonic()
        return replace(self.request, budget=Budget(max(left_s, FINISH_S)))


def shared_reranker(
    options: ComponentOptions, held: SharedReranker | None = None
) -> SharedReranker:
    """Return a shared reranker for these options: `held`, if its settings are still the same.

    Raises `ConfigError` as `ComponentOptions.source` does.
    """
    source = options.source()
    return held if held is not None and held.source == source else SharedReranker(source)


def loses_labels(setup: Setup) -> bool:
    """True if a text that was separated from its label could be sent against it."""
    return setup.sends and setup.policy.needs_labels


def _scorer(stage: object) -> str:
    return str(stage.get("scorer", EMBEDDED)) if isinstance(stage, Mapping) else str(stage)
