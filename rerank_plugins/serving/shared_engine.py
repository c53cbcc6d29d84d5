"""For adapters: one engine for all components of a process that have the same settings.

The names here and in `adapter_support` are documented and stay: adapters of other frameworks may
import them.
"""

import asyncio
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from ..core.request import check_request, make_request
from ..core.setup import Setup
from ..errors import ConfigError, PolicyError, RerankError
from ..records import Candidate, Code, Decision, Request, Result
from ..reranker import Reranker
from ..scoring.models.files import EMBEDDED

if TYPE_CHECKING:
    from ..config.schema import Settings

__all__ = ["ComponentOptions", "SharedReranker", "loses_labels", "shared_reranker"]

Source: TypeAlias = str | Mapping[str, object]
"""The path of a settings file, or settings."""

_log = logging.getLogger(__name__)
# Frameworks copy, pickle and re-create their components freely, and forbid that pipelines share a
# component; a model for each copy would waste memory. An engine ends with its last holder.
_engines: WeakValueDictionary[str, Reranker] = WeakValueDictionary()
# Neither threads nor the holder of a lock survive a fork: each process has its own of both.
_making: dict[int, threading.Lock] = {}
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

    model: str = EMBEDDED
    config: Source | None = None
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
            stage = {"scorer": self.model}
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
        return self.config


class SharedReranker:
    """A reranker made at first use and shared by all in the process that give the same settings.

    Where the model cannot be loaded, the first-stage order comes back, degraded, unless `strict`.
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
            self._engine = engine = _engine_for(self.source)
            self._process = os.getpid()
        return engine

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
            settings = _read(self.source)
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
        self.engine().warm_up()

    def close(self) -> None:
        """Release the engine, which ends with its last holder; the next use makes it again."""
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
        request = make_request(query, candidates, top_k=top_k, budget_ms=budget_ms, strict=strict)
        if not request.candidates:
            return self._nothing()
        try:
            engine = self._found()
            if engine is None:
                engine = await asyncio.to_thread(self.engine)
        except RerankError as error:
            return self._without_engine(request, error, started)
        return await asyncio.wrap_future(engine.submit(request))

    def _found(self) -> Reranker | None:
        return self._engine if self._process == os.getpid() else None

    def _nothing(self) -> Result:
        return Result.first_stage((), request_id=uuid.uuid4().hex, model=self.model, degraded=False)

    def _without_engine(self, request: Request, error: RerankError, started: float) -> Result:
        """Return the first-stage order, or raise `error` where it must not be hidden."""
        if isinstance(error, ConfigError) or self._strict(request):
            raise error
        check_request(request)
        _log.warning("reranking is off, the first-stage order is kept: %s", error)
        n = len(request.candidates)
        decisions = [
            Decision("load", Code.STAGE_FAILED, n, str(error)),
            Decision("fuse", Code.PASS_THROUGH, n),
        ]
        if request.top_k is not None and request.top_k < n:
            decisions.append(Decision("cut", Code.CUT, n - request.top_k))
        result = Result.first_stage(
            request.candidates,
            request_id=uuid.uuid4().hex,
            model=self.model,
            decisions=tuple(decisions),
            seconds=time.monotonic() - started,
        )
        return replace(result, hits=result.hits[: request.top_k])

    def _strict(self, request: Request) -> bool:
        return _read(self.source).strict if request.strict is None else request.strict


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


def _engine_for(source: Source) -> Reranker:
    from ..config.build import build_setup

    process, settings = os.getpid(), _read(source)
    key = json.dumps([process, settings.model_dump(mode="json")], sort_keys=True)
    with _making.setdefault(process, threading.Lock()):
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = Reranker(build_setup(settings))
    return engine


def _read(source: Source) -> "Settings":
    # Here, because pydantic is a third of the import time.
    from ..config.read import read_settings

    return read_settings(source)


def _scorer(stage: object) -> str:
    return str(stage.get("scorer", EMBEDDED)) if isinstance(stage, Mapping) else str(stage)
