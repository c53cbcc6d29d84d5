"""What users hold: a reranker, from a model name, a file of settings, or stages of their own."""

import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .config import arguments
from .core import exit_auditor, pipeline, with_guard
from .core.request import check_feedback, check_request, make_request
from .core.setup import Setup, WhenCold
from .core.stage import Stage
from .core.warm_up import Readiness, once_warm
from .errors import Overloaded
from .records import Candidate, Code, Request, Result
from .rules.residency import Policy
from .rules.windows import Fold
from .scoring.models.files import EMBEDDED, Precision
from .scoring.onnx.session import Provider
from .scoring.runtime import process
from .scoring.runtime.scheduler import Scheduler
from .scoring.text.pairs import Long
from .telemetry import Redact, Telemetry, Trace


class Reranker:
    """Orders candidates by how well they answer a query.

    Thread-safe; one per process is enough. `model` is "embedded" (ships with the package, needs no
    network), a hub id such as "cross-encoder/ms-marco-MiniLM-L6-v2", a folder, an .onnx file, or a
    whole `Setup`; `stages` replaces it by scorers of your own. `policy` bounds where text may be
    sent. `load` reads everything else from a file.

    `budget_ms` bounds every request in time: it then costs quality, never an error. `strict` raises
    instead of degrading. While the model warms up a request without a budget waits; with
    `when_cold="pass_through"` it gets the first-stage order back, and starts the warm-up if nobody
    has. Spans and metrics go to the given providers, or to OpenTelemetry's global ones; `redact`
    rewrites texts that go onto spans. Raises `ModelError`, `ConfigError`.

    >>> reranker = Reranker("lexical")
    >>> [hit.index for hit in reranker.rerank("red fox", ["blue hen", "a red fox"], top_k=1)]
    [1]
    """

    def __init__(  # noqa: PLR0913 - the common options of a settings file, each once
        self,
        model: str | Path | Setup = EMBEDDED,
        *,
        stages: Sequence[Stage] | None = None,
        policy: Policy | None = None,
        max_tokens: int | None = None,
        long: Long = "window",
        fold: Fold = "max",
        instruction: str | None = None,
        precision: Precision = "auto",
        provider: Provider = "cpu",
        revision: str | None = None,
        local_files_only: bool = False,
        cache_dir: Path | None = None,
        prior_weight: float | None = None,
        depth: int | None = None,
        top_k: int | None = None,
        budget_ms: float | None = None,
        strict: bool = False,
        when_cold: WhenCold = "wait",
        workers: int | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        redact: Redact | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # pydantic is a third of the import time

        # Here, because pydantic is a third of the import time.
        from .config.build import build_setup
        from .config.read import parse_settings

        arguments.check(locals(), Reranker.__init__.__kwdefaults__ or {})
        common: dict[str, object] = {
            "budget": {"time_ms": budget_ms},
            "selection": {"depth": depth, "top_k": top_k},
            "fusion": {"prior_weight": prior_weight},
            "service": {"workers": workers, "when_cold": when_cold},
            "strict": strict,
        }
        if isinstance(model, Setup):
            self.setup = model
        elif stages is not None:
            settings = parse_settings(common, "Reranker(...)")
            self.setup = build_setup(settings, stages=tuple(stages), policy=policy)
        else:
            stage = {
                "scorer": str(model),
                "max_tokens": max_tokens,
                "long": long,
                "fold": fold,
                "instruction": instruction,
                "precision": precision,
                "provider": provider,
                "revision": revision,
                "local_files_only": local_files_only,
                "cache_dir": cache_dir,
            }
            settings = parse_settings({**common, "stages": [stage]}, "Reranker(...)")
            self.setup = build_setup(settings, policy=policy)
        self._clock = clock
        self._scheduler = Scheduler(
            self.setup.workers or process.count(),
            max_requests=self.setup.max_requests,
            clock=clock,
        )
        self._readiness = Readiness([stage.scorer for stage in self.setup.stages])
        self._telemetry = Telemetry(
            self.setup.telemetry,
            stages=[stage.scorer for stage in self.setup.stages],
            regions=self.setup.policy.regions,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            redact=redact,
            guard=self.setup.guard,
            clock=clock,
        )
        self._auditor = exit_auditor.made(self.setup, told=self._telemetry.audited, clock=clock)
        # Worker threads must not outlive a reranker that nobody closed.
        self._finalizer = weakref.finalize(self, self._scheduler.close)
        if self.setup.guard is not None:
            self.setup.guard.attach(
                with_guard.apart(self.setup, self._scheduler),
                canaries=with_guard.at_leisure(self.setup, self._scheduler),
            )
            weakref.finalize(self, self.setup.guard.close)

    @property
    def model(self) -> str:
        """Name what scores, stage by stage."""
        return self.setup.model

    @property
    def ready(self) -> bool:
        """Tell whether every stage has run real shapes."""
        return self._readiness.ready

    def warm_up(self) -> None:
        """Run real shapes on every stage and learn what they cost here; later calls do nothing."""
        self._scheduler.home.check()
        self._readiness.warm_up()
        with_guard.recognise(self.setup, self._scheduler)

    def feedback(self, request_id: str, score: float) -> None:
        """Tell how good the answer built on a result was, in [0, 1], 1 being best.

        `request_id` is the result's. An evaluator downstream, such as one of faithfulness, is where
        it comes from; it becomes a metric and, where there is a guard, moves it. Costs
        microseconds. Raises `InvalidRequest`.
        """
        self._scheduler.home.check()
        check_feedback(score)
        self._telemetry.feedback(score)
        if self.setup.guard is not None:
            self.setup.guard.feedback(request_id, score)

    def rerank(
        self,
        query: str,
        passages: Iterable[str | Candidate | None],
        *,
        top_k: int | None = None,
        budget_ms: float | None = None,
        strict: bool | None = None,
    ) -> Result:
        """Order `passages`, which come in first-stage order, and return the best `top_k`.

        Give `Candidate`s where the first stage has scores. Raises `InvalidRequest`; anything else
        degrades the result visibly, unless strict.
        """
        request = make_request(query, passages, top_k=top_k, budget_ms=budget_ms, strict=strict)
        return self.submit(request).result()

    async def arerank(
        self,
        query: str,
        passages: Iterable[str | Candidate | None],
        *,
        top_k: int | None = None,
        budget_ms: float | None = None,
        strict: bool | None = None,
    ) -> Result:
        """Do what `rerank` does without blocking the event loop; cancelling drops the work."""
        import asyncio

        request = make_request(query, passages, top_k=top_k, budget_ms=budget_ms, strict=strict)
        return await asyncio.wrap_future(self.submit(request))

    def submit(self, request: Request) -> Future[Result]:
        """Start a request and return its future; cancel the future to drop the work."""
        self._scheduler.home.check()
        top_k = request.top_k or self.setup.top_k
        budget_s = request.budget.time_s or self.setup.budget.time_s
        with self._telemetry.request(request, top_k=top_k, budget_s=budget_s) as trace:
            return trace.watch(self._submit(request, trace))

    def _submit(self, request: Request, trace: Trace) -> Future[Result]:
        now = self._clock()
        check_request(request)
        strict = self.setup.strict if request.strict is None else request.strict
        passing = self.setup.when_cold == "pass_through" and not strict
        if passing and not self.ready and self._readiness.begin():
            return self._without_local(request, trace, Code.NOT_WARM, now_s=now)
        try:
            return self._start(request, trace, now_s=now)
        except Overloaded as error:
            if strict:
                raise
            return self._without_local(
                request, trace, Code.OVERLOADED, now_s=now, detail=str(error)
            )

    def _start(
        self, request: Request, trace: Trace, *, now_s: float, outage: Code | None = None
    ) -> Future[Result]:
        time_s = request.budget.time_s or self.setup.budget.time_s
        deadline_s = None if time_s is None else now_s + time_s
        # A budget is spent on scoring, warm or not.
        warming = self._readiness.under_way if deadline_s is None else None
        claim = self._scheduler.claim(deadline_s)
        answer = trace.observe(
            lambda: once_warm(
                warming,
                lambda: with_guard.rerank(
                    self.setup,
                    request,
                    lambda setup, request: pipeline.rerank(
                        setup,
                        request,
                        deadline_s=deadline_s,
                        submitted_s=now_s,
                        outage=outage,
                        share=lambda: self._scheduler.share(claim),
                        claim=claim.plan,
                        care=1.0 if self._auditor is None else self._auditor.care.factor,
                        clock=self._clock,
                    ),
                ),
            )
        )
        future = self._scheduler.submit(answer, claim=claim, spare=outage is not None)
        if self._auditor is not None:
            self._auditor.watch(request, future, self._scheduler)
        return future

    def _without_local(
        self, request: Request, trace: Trace, outage: Code, *, now_s: float, detail: str = ""
    ) -> Future[Result]:
        """Answer by remote stages where there are any, or else in first-stage order."""
        if self.setup.sends:
            try:
                return self._start(request, trace, now_s=now_s, outage=outage)
            except Overloaded as error:
                detail = str(error)
        seconds = self._clock() - now_s
        result = pipeline.pass_through(self.setup, request, outage, seconds=seconds, detail=detail)
        done: Future[Result] = Future()
        done.set_result(result)
        return done

    def close(self) -> None:
        """End the workers and release the models; requests under way fail with `ClosedError`."""
        self._finalizer()
        if self.setup.guard is not None:
            self.setup.guard.close()
        for stage in self.setup.stages:
            stage.scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        self.close()
        return False


def load(
    source: str | os.PathLike[str] | Mapping[str, object],
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    redact: Redact | None = None,
) -> Reranker:
    """Build a reranker from a TOML or JSON file, or a dict. Raises `ConfigError`, `ModelError`."""
    from .config.build import build_setup
    from .config.read import read_settings

    return Reranker(
        build_setup(read_settings(source)),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        redact=redact,
    )
