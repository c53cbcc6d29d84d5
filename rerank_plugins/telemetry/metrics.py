"""The metrics of a request, recorded from its result."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from opentelemetry.context import Context
from opentelemetry.metrics import Meter

from .. import semconv
from ..quality.drift.canaries import TOLERANCE
from ..quality.drift.verdict import Verdict
from ..quality.guard.guard import State
from ..records import Code, Result, StageRun, stages_s
from ..scoring import Breakable, BreakerState
from ..semconv import Metric
from .spans import padding_share
from .timeline import total_s

Recorder: TypeAlias = Callable[[float, Mapping[str, str], Context], None]
_HEAD = 10
_BREAKER_STATES: Mapping[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}
_VERDICTS: Mapping[Verdict, int] = {"ok": 0, "watch": 1, "harmful": 2}
# Few and coarse: each range multiplies the number of time series.
_CANDIDATES = (10, 20, 50, 100, 200, 500)
_TOKENS = (1_000, 4_000, 16_000, 64_000)


class Instruments:
    """The instruments of one meter, and how requests are recorded with them."""

    def __init__(self, meter: Meter) -> None:
        self._recorders = {metric.name: _recorder(meter, metric) for metric in semconv.METRICS}

    def request(
        self,
        seconds: float,
        attributes: Mapping[str, str],
        *,
        candidates: int,
        tokens: int,
        context: Context,
    ) -> None:
        """Record a request, in its own context: exemplars then point to its trace."""
        buckets = {
            semconv.CANDIDATES_BUCKET: bucket(candidates, _CANDIDATES),
            semconv.TOKENS_BUCKET: bucket(tokens, _TOKENS),
        }
        self._record(semconv.DURATION, seconds, {**attributes, **buckets}, context)

    def result(self, result: Result, *, budget_s: float | None, context: Context) -> None:
        """Record the steps, stages and decisions of a result."""
        model = {semconv.REQUEST_MODEL: result.model}
        self._steps(result, model, context)
        for place, run in enumerate(result.stages):
            self._stage(run, context)
            if len(result.stages) > 1:
                next_run = result.stages[place + 1 : place + 2]
                exits = max(0, run.scored - sum(later.candidates for later in next_run))
                self._record(semconv.EXITS, exits, {semconv.STAGE: run.stage}, context)
        for decision in result.decisions:
            code = {semconv.CODE: decision.code.code}
            self._record(semconv.DECISION_COUNT, decision.count, code, context)
        if budget_s is not None and missed(result, budget_s):
            self._record(semconv.BUDGET_MISSES, 1, model, context)
        self._record(semconv.FALLBACK, fallback_state(result), model, context)
        self._signals(result, model, context)

    def breakers(self, scorers: Sequence[Breakable], context: Context) -> None:
        """Record the state of each destination's circuit breaker."""
        for scorer in scorers:
            labels = {semconv.DESTINATION: scorer.destination.origin}
            self._record(semconv.BREAKER, _BREAKER_STATES[scorer.breaker_state], labels, context)

    def guard(self, state: State, model: Mapping[str, str], context: Context) -> None:
        """Record the guard's state, and how far the last window is from the snapshot."""
        self._record(semconv.GUARD_STATE, _VERDICTS[state.verdict], model, context)
        self._record(semconv.GUARD_ACTING, int(state.acting), model, context)
        for found in () if state.report is None else state.report.findings:
            labels: dict[str, str] = {semconv.FEATURE: found.feature, semconv.TEST: found.test}
            self._record(semconv.DRIFT, found.value / found.critical, labels, context)
            self._record(
                semconv.DRIFT_SHIFT, found.shift, {semconv.FEATURE: found.feature}, context
            )
        if state.canaries is not None:
            labels = {semconv.FEATURE: "canaries", semconv.TEST: "canaries"}
            self._record(semconv.DRIFT, state.canaries / TOLERANCE, labels, context)

    def feedback(self, score: float, model: Mapping[str, str], context: Context) -> None:
        """Record the score in [0, 1] that an evaluator gave to an answer."""
        self._record(semconv.FEEDBACK, score, model, context)

    def audit(self, loss: float, margin_factor: float, model: str) -> None:
        """Record what an audited request lost by its exits, and the factor on the margins."""
        attributes = {semconv.REQUEST_MODEL: model}
        self._record(semconv.AUDIT_LOSS, loss, attributes, Context())
        self._record(semconv.AUDIT_CARE, margin_factor, attributes, Context())

    def _signals(self, result: Result, model: Mapping[str, str], context: Context) -> None:
        """Record what moves when something is wrong that raises no error."""
        took = stages_s(result.timings)
        if result.predicted_s is not None and took > 0.0:
            self._record(semconv.PREDICTION_RATIO, result.predicted_s / took, model, context)
        if result.usage.pairs and len(result.order) > _HEAD:
            stayed = sum(index < _HEAD for index in result.order[:_HEAD])
            self._record(semconv.AGREEMENT, stayed / _HEAD, model, context)
        if result.hits and result.hits[0].probability is not None:
            self._record(semconv.TOP_PROBABILITY, result.hits[0].probability, model, context)

    def _steps(self, result: Result, model: Mapping[str, str], context: Context) -> None:
        """Record each step's time; repeated steps of a stage are added up."""
        seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        for timing in result.timings:
            seconds[timing.step, timing.stage or ""] += timing.seconds
        for (step, stage), took in seconds.items():
            if step == "queue":
                self._record(semconv.QUEUE_DURATION, took, model, context)
            elif step not in {"stage", "total"}:
                labels = {semconv.STEP: step, semconv.STAGE: stage}
                self._record(semconv.STEP_DURATION, took, labels, context)

    def _stage(self, run: StageRun, context: Context) -> None:
        usage, stage = run.usage, {semconv.STAGE: run.stage}
        if run.error is not None:
            self._record(semconv.FAILURES, 1, {**stage, semconv.ERROR_TYPE: run.error}, context)
        self._record(semconv.PAIR_COUNT, usage.pairs, stage, context)
        self._record(semconv.TOKEN_COUNT, usage.tokens, stage, context)
        self._record(semconv.TRUNCATED_COUNT, usage.truncated_tokens, stage, context)
        hits = {"tokens": usage.token_cache_hits, "scores": usage.score_cache_hits}
        for cache, count in hits.items():
            self._record(semconv.CACHE_HITS, count, {**stage, semconv.CACHE: cache}, context)
        if usage.batches:
            mean = (usage.tokens + usage.padding_tokens) / usage.batches
            self._record(semconv.BATCH_TOKENS, mean, stage, context)
            self._record(semconv.BATCH_PADDING, padding_share(usage), stage, context)

    def _record(
        self, metric: Metric, value: float, attributes: Mapping[str, str], context: Context
    ) -> None:
        self._recorders[metric.name](value, attributes, context)


def _recorder(meter: Meter, metric: Metric) -> Recorder:
    """Return the function that records a value of a metric, of a new instrument."""
    if metric.kind == "gauge":
        return meter.create_gauge(metric.name, metric.unit, metric.meaning).set
    if metric.kind == "counter":
        add = meter.create_counter(metric.name, metric.unit, metric.meaning).add
        return partial(_add, add)
    return meter.create_histogram(
        metric.name,
        metric.unit,
        metric.meaning,
        explicit_bucket_boundaries_advisory=list(metric.buckets),
    ).record


def _add(add: Recorder, count: float, attributes: Mapping[str, str], context: Context) -> None:
    """Count, unless there is nothing to count: a series of zeros tells nobody anything."""
    if count:
        add(count, attributes, context)


def bucket(value: int, bounds: tuple[int, ...]) -> str:
    """Return the name of the range that a count lies in.

    >>> bucket(10, (10, 20)), bucket(11, (10, 20)), bucket(21, (10, 20))
    ('0-10', '11-20', '21+')
    """
    low = 0
    for bound in bounds:
        if value <= bound:
            return f"{low}-{bound}"
        low = bound + 1
    return f"{low}+"


def fallback_state(result: Result) -> int:
    """Return who answered: 0 the regular stages, 1 a fallback, 2 only the first stage."""
    states = {Code.PASS_THROUGH: 2, Code.FALLBACK: 1}
    return max((states.get(decision.code, 0) for decision in result.decisions), default=0)


def missed(result: Result, budget_s: float) -> bool:
    """True if a budget was overrun, or kept by leaving candidates unscored."""
    return total_s(result.timings) > budget_s or any(
        decision.code is Code.DEADLINE for decision in result.decisions
    )
