"""The data path, top to bottom: from a request to an order."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from . import cascade, fusion, shortlist
from .cascade import Stage, Standing
from .errors import ConfigError, DeadlineExceeded, InvalidRequest, PolicyError
from .policy import Audit, Permit, Policy
from .records import Budget, Candidate, Code, Decision, Hit, Request, Result, Timing
from .scorers import Sends
from .selection import Certain, Cut, Depth, Sequential
from .shortlist import Shortlist
from .telemetry import TelemetryOptions

WhenCold: TypeAlias = Literal["wait", "pass_through"]

_DEGRADING = frozenset(
    {
        Code.DEADLINE,
        Code.FALLBACK,
        Code.NOT_WARM,
        Code.OVERLOADED,
        Code.PASS_THROUGH,
        Code.STAGE_FAILED,
        Code.TOO_LONG,
    }
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for every request.

    `prior_weight` in [0, 1] fuses the prior in where every candidate has one. `depth` bounds how
    many candidates are scored, `skip` and `stop` say when none or no more are worth it; `cut` and
    `top_k` bound how many are returned. `when_cold` says what a request does while the model warms
    up. `policy` bounds where text may be sent; `audit` receives a record of each sending and
    refusal.
    """

    stages: tuple[Stage, ...]
    prior_weight: float = 0.0
    depth: Depth | None = None
    skip: Certain | None = None
    stop: Sequential | None = None
    cut: Cut | None = None
    top_k: int | None = None
    budget: Budget = field(default_factory=Budget)
    strict: bool = False
    when_cold: WhenCold = "wait"
    workers: int | None = None
    max_requests: int = 1024
    policy: Policy = field(default_factory=Policy)
    audit: Callable[[Audit], None] | None = None
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)

    def __post_init__(self) -> None:
        if not self.stages:
            message = "no stages: give at least one, such as Stage(scorer)"
            raise ConfigError(message)
        if isinstance(self.depth, int) and self.depth < 1:
            message = f"depth is {self.depth}; expected at least 1, or None for all candidates"
            raise ConfigError(message)
        for stage in self.stages:
            check_residency(stage, self.policy)

    @property
    def sends(self) -> bool:
        """Tell whether a stage can serve while no local one can."""
        return any(isinstance(stage.scorer, Sends) for stage in self.stages)

    @property
    def last_depth(self) -> int:
        """Count the stages up to the last regular one, whose scores decide."""
        places = [i for i, stage in enumerate(self.stages, start=1) if stage.when == "always"]
        return max(places, default=len(self.stages))

    @property
    def model(self) -> str:
        """Name the stages, for results and spans."""
        return " > ".join(stage.scorer.name for stage in self.stages)


def check_residency(stage: Stage, policy: Policy) -> None:
    """Refuse a stage that the policy would never let run. Raises `PolicyError`."""
    if isinstance(stage.scorer, Sends):
        verdict = policy.verdict(stage.scorer.destination)
        if not verdict.allowed:
            message = (
                f"stage {stage.scorer.name!r} could never run: {verdict.reason}. Remove the stage, "
                "use a host whose URL proves its region, or state its region in the stage if you "
                "can answer for it"
            )
            raise PolicyError(message)


def permit(setup: Setup, candidates: Sequence[Candidate], request_id: str) -> Permit:
    """Say what a request may do with its text: one candidate that has to stay keeps all of it."""
    labels = {setup.policy.label(one.metadata): None for one in candidates}
    return Permit(
        setup.policy, tuple(one for one in labels if one is not None), request_id, setup.audit
    )


async def rerank(
    setup: Setup,
    request: Request,
    *,
    deadline_s: float | None,
    submitted_s: float,
    outage: Code | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Answer a checked request. Raises only in strict mode.

    An `outage` says why no local stage can serve.
    """
    started = clock()
    request_id = uuid.uuid4().hex
    chosen = shortlist.choose(request.candidates, setup.depth, skip=setup.skip)
    selected = clock()
    standing = await cascade.run(
        setup.stages,
        request.query,
        chosen.texts,
        permit=permit(setup, request.candidates, request_id),
        outage=outage,
        priors=chosen.priors,
        stop=setup.stop,
        deadline_s=deadline_s,
        clock=clock,
    )
    _raise_if_strict(setup, request, chosen, standing)
    fusing = clock()
    hits, fused = _hits(setup, request.candidates, chosen, standing)
    keys = [hit.fused if hit.fused is not None else hit.score for hit in hits]
    tiers = [0 if text is None else standing.tier(text) for text in chosen.text_of]
    order = fusion.merge(tiers, keys)
    hits = _without_foreign_scores(setup.stages, hits)
    ended = clock()
    decisions = [*chosen.decisions, *standing.decisions]
    if outage is not None:
        decisions.insert(0, Decision("queue", outage, len(request.candidates)))
    if fused:
        decisions.append(Decision("fuse", Code.FUSED, fused))
    if chosen.texts and not standing.scored:
        decisions.append(Decision("fuse", Code.PASS_THROUGH, len(request.candidates)))
    timings = (
        Timing("queue", started - submitted_s),
        Timing("select", selected - started),
        *standing.timings,
        Timing("fuse", ended - fusing),
        Timing("total", ended - submitted_s),
    )
    result = Result(
        tuple(hits[i] for i in order),
        order,
        request_id=request_id,
        model=setup.model,
        timings=timings,
        decisions=tuple(decisions),
        usage=standing.usage,
        degraded=any(decision.code in _DEGRADING for decision in decisions),
        stages=tuple(standing.runs),
    )
    return shortlist.cut(result, request.top_k or setup.top_k, setup.cut, depth=setup.last_depth)


def pass_through(
    setup: Setup, request: Request, code: Code, *, seconds: float, detail: str = ""
) -> Result:
    """Give the first-stage order, without scores, and say why."""
    n = len(request.candidates)
    hits = tuple(Hit(i, None, prior=one.prior) for i, one in enumerate(request.candidates))
    result = Result(
        hits,
        tuple(range(n)),
        request_id=uuid.uuid4().hex,
        model=setup.model,
        timings=(Timing("total", seconds),),
        decisions=(Decision("queue", code, n, detail), Decision("fuse", Code.PASS_THROUGH, n)),
        degraded=True,
    )
    return shortlist.cut(result, request.top_k or setup.top_k, setup.cut, depth=setup.last_depth)


def _hits(
    setup: Setup, candidates: Sequence[Candidate], chosen: Shortlist, standing: Standing
) -> tuple[list[Hit], int]:
    hits: list[Hit] = []
    for index, candidate in enumerate(candidates):
        text = chosen.text_of[index]
        if text is None:
            hits.append(Hit(index, None, prior=candidate.prior))
            continue
        hits.append(
            Hit(
                index,
                standing.scores[text],
                probability=standing.probabilities[text],
                prior=candidate.prior,
                stage=standing.stages[text],
                depth=standing.depths[text],
                truncated_tokens=standing.truncated_tokens[text],
            )
        )
    return _fuse(hits, setup.prior_weight)


def _fuse(hits: list[Hit], prior_weight: float) -> tuple[list[Hit], int]:
    """Fuse the prior in, depth by depth; only where every scored candidate has a prior."""
    scored = [hit for hit in hits if hit.depth > 0]
    if prior_weight == 0.0 or not scored or any(hit.prior is None for hit in scored):
        return hits, 0
    for depth in {hit.depth for hit in scored}:
        group = [hit for hit in scored if hit.depth == depth]
        values = fusion.fuse(
            np.array([hit.score for hit in group], dtype=np.float64),
            np.array([hit.prior for hit in group], dtype=np.float64),
            prior_weight,
        )
        for hit, value in zip(group, values.tolist(), strict=True):
            hits[hit.index] = replace(hit, fused=value)
    return hits, len(scored)


def _without_foreign_scores(stages: Sequence[Stage], hits: Sequence[Hit]) -> list[Hit]:
    """Take the scores of fallback stages out: no threshold of the caller's is on their scale."""
    foreign = {place + 1 for place, stage in enumerate(stages) if stage.when == "fallback"}
    return [replace(hit, score=None) if hit.depth in foreign else hit for hit in hits]


def _raise_if_strict(setup: Setup, request: Request, chosen: Shortlist, standing: Standing) -> None:
    strict = setup.strict if request.strict is None else request.strict
    if not strict:
        return
    if standing.failures:
        raise standing.failures[0]
    if standing.withheld and not standing.scored:
        raise standing.withheld[0]
    missed, long = (
        sum(one.count for one in standing.decisions if one.code is code)
        for code in (Code.DEADLINE, Code.TOO_LONG)
    )
    if long:
        message = (
            f"{long} of {len(chosen.texts)} candidates are over the token limit and long is "
            '"error"; shorten them, raise max_tokens, or choose long="window" or "truncate"'
        )
        raise InvalidRequest(message)
    if missed:
        message = (
            f"{missed} of {len(chosen.texts)} candidates were not scored when the budget of "
            f"{request.budget.time_s or setup.budget.time_s} s ended; allow more time, fewer "
            "candidates, or strict=False for the best order so far"
        )
        raise DeadlineExceeded(message)
