"""What users hold: a reranker, from a model name, a file of settings, or stages of their own."""

import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn, Self

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .config import arguments
from .core import pipeline, with_guard
from .core.exit_auditor import ExitAuditor
from .core.request import Resolved, check_feedback, check_request, make_request, resolve
from .core.run import Run
from .core.setup import Setup, WhenCold
from .core.stage import Stage
from .core.warm_up import Readiness, until_warm
from .errors import Overloaded
from .records import Candidate, Code, Request, Result
from .rules.deadline import FINISH_S
from .rules.residency import Policy
from .rules.windows import Fold
from .scoring.models.files import EMBEDDED, Precision
from .scoring.onnx.session import Provider
from .scoring.runtime import process
from .scoring.runtime.scheduler import Scheduler
from .scoring.text.pairs import LongPassages
from .telemetry import Redact, Telemetry, Trace


class Reranker:
    """Orders candidates by how well they answer a query. Thread-safe; one per process is enough.

    model: "embedded" (ships with the package, needs no network), a hub id such as
        "cross-encoder/ms-marco-MiniLM-L6-v2", a folder, an .onnx file, or a whole `Setup`
    stages: scorers of your own, instead of a model
    policy: where text may be sent
    budget_ms: milliseconds that a request may take; a missed budget costs quality, never an error
    strict: raise an error instead of returning a degraded result
    when_cold: a request without a budget waits while the model warms up; with "pass_through" it
        gets the first-stage order back, and starts the warm-up if nobody has
    tracer_provider, meter_provider: where spans and metrics go; None: OpenTelemetry's global ones
    redact: rewrites texts before they go onto spans

    The other arguments are keys of the settings file, which `load` reads. Raises `ModelError` and
    `ConfigError`.

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
        long: LongPassages = "window",
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
        setup = arguments.setup_of(locals(), Reranker.__init__.__kwdefaults__ or {})
        self.setup = setup
        self._clock = clock
        workers = setup.workers or process.cores()
        self._scheduler = Scheduler(workers, max_requests=setup.max_requests, clock=clock)
        self._readiness = Readiness([stage.scorer for stage in setup.stages])
        self._telemetry = Telemetry(
            setup.telemetry,
            stages=[stage.scorer for stage in setup.stages],
            regions=setup.policy.regions,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            redact=redact,
            guard=setup.guard,
            clock=clock,
        )
        self._auditor = ExitAuditor.of(setup, on_audit=self._telemetry.on_audit, clock=clock)
        # Worker threads must not outlive a reranker that nobody closed.
        self._finalizer = weakref.finalize(self, self._scheduler.close)
        self._attach_guard()

    @property
    def model(self) -> str:
        """The names of the stages' scorers."""
        return self.setup.model

    @property
    def ready(self) -> bool:
        """True if every stage has run real shapes."""
        return self._readiness.ready

    def warm_up(self) -> None:
        """Run real shapes on every stage and learn what they cost here; later calls do nothing."""
        self._scheduler.owner.check()
        self._readiness.warm_up()
        with_guard.check_canaries(self.setup, self._scheduler)

    def feedback(self, request_id: str, score: float) -> None:
        """Note how good the answer was that was built on a result.

        request_id: the result's
        score: in [0, 1], 1 is best; for example a faithfulness score from an evaluator

        It becomes a metric and, where there is a guard, evidence for it. Costs microseconds.
        Raises `InvalidRequest`.
        """
        self._scheduler.owner.check()
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
        """Return the best `top_k` of the passages, best first.

        passages: texts in first-stage order; `Candidate`s where the first stage has scores

        Raises `InvalidRequest`; any other fault degrades the result visibly, unless strict.
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
        """Return what `rerank` does, without blocking the event loop; cancelling drops the work."""
        import asyncio

        request = make_request(query, passages, top_k=top_k, budget_ms=budget_ms, strict=strict)
        return await asyncio.wrap_future(self.submit(request))

    def submit(self, request: Request) -> Future[Result]:
        """Start a request and return its future; cancel the future to drop the work."""
        self._scheduler.owner.check()
        asked = resolve(request, self.setup)
        with self._telemetry.request(request, top_k=asked.top_k, budget_s=asked.time_s) as trace:
            check_request(request)
            return trace.end_with(self._start(asked, trace))

    def _start(self, asked: Resolved, trace: Trace) -> Future[Result]:
        """Start a checked request, or answer it without local stages where they cannot serve."""
        now_s = self._clock()
        deadline_s = None if asked.time_s is None else now_s + asked.time_s
        claim = self._scheduler.claim(deadline_s)
        run = Run(
            now_s,
            deadline_s=None if deadline_s is None else deadline_s - FINISH_S,
            claim=claim,
            share=partial(self._scheduler.share, claim),
            margin_factor=1.0 if self._auditor is None else self._auditor.margin_factor.value,
            clock=self._clock,
        )
        passing = self.setup.when_cold == "pass_through" and not asked.strict
        if passing and not self.ready and self._readiness.begin():
            return self._without_local(asked, run, trace, Code.NOT_WARM)
        try:
            return self._enqueue(asked, run, trace)
        except Overloaded as error:
            if asked.strict:
                raise
            return self._without_local(asked, run, trace, Code.OVERLOADED, detail=str(error))

    def _enqueue(self, asked: Resolved, run: Run, trace: Trace) -> Future[Result]:
        """Put a request into the workers' queue. Raises `Overloaded`."""
        # A budget is spent on scoring, warm or not.
        warming = self._readiness.under_way if run.deadline_s is None else None
        answer = self._answer(asked, run, warming, trace)
        remote = run.local_outage is not None
        future = self._scheduler.submit(answer, claim=run.claim, remote=remote)
        if self._auditor is not None:
            self._auditor.watch(asked, future, self._scheduler)
        return future

    async def _answer(
        self, asked: Resolved, run: Run, warming: Future[None] | None, trace: Trace
    ) -> Result:
        """Answer a request on a worker; its span ends before anyone can see the result."""
        try:
            await until_warm(warming)
            result = await with_guard.rerank(self.setup, asked, run)
        except Exception as error:
            trace.end(error=error)
            raise
        trace.end(result)
        return result

    def _without_local(
        self, asked: Resolved, run: Run, trace: Trace, outage: Code, *, detail: str = ""
    ) -> Future[Result]:
        """Answer by remote stages where there are any, or else in first-stage order."""
        if self.setup.sends:
            try:
                return self._enqueue(asked, replace(run, local_outage=outage), trace)
            except Overloaded as error:
                detail = str(error)
        done: Future[Result] = Future()
        done.set_result(pipeline.pass_through(self.setup, asked, run, outage, detail=detail))
        return done

    def _attach_guard(self) -> None:
        """Let the guard, if there is one, score pairs and canaries on our workers."""
        if self.setup.guard is not None:
            self.setup.guard.attach(
                with_guard.pair_scorer(self.setup, self._scheduler),
                canaries=with_guard.idle_canaries(self.setup, self._scheduler),
            )
            weakref.finalize(self, self.setup.guard.close)

    def close(self) -> None:
        """End the workers and release the models; requests under way fail with `ClosedError`."""
        self._finalizer()
        if self.setup.guard is not None:
            self.setup.guard.close()
        for stage in self.setup.stages:
            stage.scorer.close()

    def __reduce__(self) -> NoReturn:
        message = (
            "a Reranker cannot be pickled or copied, since threads and sessions are of one "
            "process; make one per process from its settings, as in the initializer of a pool"
        )
        raise TypeError(message)

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
