"""The data path, top to bottom: from a request to an order."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from . import answer, cascade, detour, fusion, shortlist
from .budget import FINISH_S
from .cascade import Course, Stage
from .errors import ConfigError, DeadlineExceeded, InvalidRequest, PolicyError
from .fidelity import ExitAudit
from .fusion import Method
from .guard import Guard
from .planning import Effort, Planner
from .policy import Audit, Label, Permit, Policy
from .records import (
    DEGRADING,
    Budget,
    Candidate,
    Code,
    Decision,
    Hit,
    Request,
    Result,
    Timing,
    stages_s,
)
from .scorers import RELATIVE, Sends
from .scorers.claims import Share
from .selection import Certain, Cut, Depth, NullCut, Sequential
from .shortlist import Shortlist
from .standing import Standing
from .telemetry import TelemetryOptions

WhenCold: TypeAlias = Literal["wait", "pass_through"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for every request.

    `prior_weight` in [0, 1] fuses the prior in where every candidate has one; `fusion` says how,
    and reciprocal ranks need neither weight nor priors. `depth` bounds how
    many candidates are scored, `skip` and `stop` say when none or no more are worth it; `cut` and
    `top_k` bound how many are returned. `when_cold` says what a request does while the model warms
    up. `policy` bounds where text may be sent; `audit` receives a record of each sending and
    refusal. `planner` fits the work to a request's budget. `exit_audit` scores some requests in
    full besides, to see what exits lose. `guard` watches for drift; `full` are
    the stages without their exits, for when it disables those.
    """

    stages: tuple[Stage, ...]
    prior_weight: float = 0.0
    fusion: Method = "convex"
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
    planner: Planner = field(default_factory=Planner)
    exit_audit: ExitAudit | None = None
    guard: Guard | None = None
    full: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            message = "no stages: give at least one, such as Stage(scorer)"
            raise ConfigError(message)
        if isinstance(self.depth, int) and self.depth < 1:
            message = f"depth is {self.depth}; expected at least 1, or None for all candidates"
            raise ConfigError(message)
        first = self.stages[0].scorer
        if self.stop is not None and first.score_kind in RELATIVE:
            message = (
                f"stop scores the first stage's candidates in parts, and the scores of "
                f"{first.name!r} compare within one call only; put a pointwise model first, or "
                "leave stop out"
            )
            raise ConfigError(message)
        for stage in self.stages:
            check_residency(stage, self.policy)
        if self.policy.per == "candidate":
            check_parting(self.stages, self.cut)

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


def check_parting(stages: Sequence[Stage], cut: Cut | None) -> None:
    """Refuse stages between which candidates cannot be split. Raises `PolicyError`."""
    sends = [isinstance(stage.scorer, Sends) for stage in stages]
    regular = [sends[i] for i, stage in enumerate(stages) if stage.when == "always"]
    bare = [stage.scorer.name for stage in stages if stage.calibration is None]
    found = ""
    if any(sends) and bare:
        found = f"{bare[0]!r} is not calibrated: its scores compare with no other model's"
    elif any(sends) and all(sends):
        found = "there is no local stage for the candidates that have to stay"
    elif any(regular[:-1]):
        found = "a stage comes behind a remote one, which those that have to stay do not reach"
    elif any(sends) and isinstance(cut, NullCut):
        found = "the cut reads scores; give one that reads probabilities"
    if found:
        message = f'per = "candidate" splits candidates between models, but {found}'
        raise PolicyError(message)


def permit(setup: Setup, candidates: Sequence[Candidate], request_id: str) -> Permit:
    """Say what a request may do with its text, by what all its candidates say of themselves."""
    told = [(one.text, setup.policy.label(one.metadata)) for one in candidates]
    labels = {label: None for _, label in told if label is not None}
    of_text: dict[str, tuple[Label, ...]] = {}
    for text, label in told:
        if isinstance(text, str):
            of_text[text] = (*of_text.get(text, ()), *([] if label is None else [label]))
    return Permit(setup.policy, tuple(labels), request_id, setup.audit, of_text)


async def rerank(
    setup: Setup,
    request: Request,
    *,
    deadline_s: float | None,
    submitted_s: float,
    outage: Code | None = None,
    share: Callable[[], Share] | None = None,
    claim: Callable[[float], None] = lambda _: None,
    care: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Answer a checked request. Raises only in strict mode.

    An `outage` says why no local stage can serve. `share` tells what this request may count on,
    others being under way (None: it is alone); `claim` hears of the worker seconds it plans. `care`
    widens the margins of exits.
    """
    started = clock()
    request_id = uuid.uuid4().hex
    chosen = shortlist.choose(request.candidates, setup.depth, skip=setup.skip)
    strict = setup.strict if request.strict is None else request.strict
    if deadline_s is not None:
        deadline_s -= FINISH_S
    left_s = None if deadline_s is None or strict else max(0.0, deadline_s - started)
    entering = cascade.entry(setup.stages[0], len(chosen.texts), care)
    effort = _plan(setup, chosen.texts[:entering], left_s, share)
    if effort.worker_s is not None:
        claim(effort.worker_s)
    selected = clock()
    chosen, standing = await detour.run(
        setup.stages,
        request.query,
        chosen,
        permit=permit(setup, request.candidates, request_id),
        outage=outage,
        course=Course(
            effort.counts,
            stop=setup.stop,
            prior_weight=setup.prior_weight if setup.fusion == "convex" else 0.0,
            care=care,
            short_tokens=effort.short_tokens,
        ),
        deadline_s=deadline_s,
        clock=clock,
    )
    if standing.scored and not any(one.code in DEGRADING for one in standing.decisions):
        setup.planner.learn(effort, stages_s(standing.timings))
    _raise_if_strict(setup, request, chosen, standing)
    fusing = clock()
    hits, fused = answer.assemble(
        request.candidates, chosen, standing, prior_weight=setup.prior_weight, method=setup.fusion
    )
    order = fusion.merge(*answer.orders(chosen, standing, hits))
    hits = answer.without_foreign_scores(setup.stages, hits)
    ended = clock()
    decisions = _decisions(len(request.candidates), chosen, effort, standing, outage, fused)
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
        decisions=decisions,
        usage=standing.usage,
        degraded=any(decision.code in DEGRADING for decision in decisions),
        stages=tuple(standing.runs),
        predicted_s=effort.predicted_s,
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


def _plan(
    setup: Setup, texts: Sequence[str], left_s: float | None, share: Callable[[], Share] | None
) -> Effort:
    """Plan the regular stages; fallbacks take what is left when their turn comes."""
    places = [i for i, stage in enumerate(setup.stages) if stage.when == "always"]
    effort = setup.planner.plan(
        [(setup.stages[i].scorer, setup.stages[i].keep) for i in places],
        [len(text) for text in texts],
        left_s=left_s,
        share=None if left_s is None or share is None else share(),
    )
    counts: list[int | None] = [None] * len(setup.stages)
    for i, count in zip(places, effort.counts, strict=True):
        counts[i] = count
    return replace(effort, counts=tuple(counts))


def _decisions(  # noqa: PLR0917 - all that decided, in the order of the data path
    candidates: int,
    chosen: Shortlist,
    effort: Effort,
    standing: Standing,
    outage: Code | None,
    fused: int,
) -> tuple[Decision, ...]:
    """Put in order what was decided on the way, `fused` candidates having got a fused score."""
    scored = bool(standing.scored) or not chosen.texts
    return (
        *(() if outage is None else (Decision("queue", outage, candidates),)),
        *chosen.decisions,
        *effort.decisions,
        *standing.decisions,
        *((Decision("fuse", Code.FUSED, fused),) if fused else ()),
        *(() if scored else (Decision("fuse", Code.PASS_THROUGH, candidates),)),
    )


def _raise_if_strict(setup: Setup, request: Request, chosen: Shortlist, standing: Standing) -> None:
    if not (setup.strict if request.strict is None else request.strict):
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
