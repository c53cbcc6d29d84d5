"""What is the same for every request, and the checks that its parts fit together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..adaptive.exit_audit import ExitAudit
from ..adaptive.planner import Planner
from ..errors import ConfigError, PolicyError
from ..quality.guard.guard import Guard
from ..records import Budget
from ..rules.fusion import Method
from ..rules.residency import Audit, Policy
from ..rules.selection import Certain, Cut, Depth
from ..scoring import Sends
from ..telemetry import TelemetryOptions
from .stage import Stage

WhenCold: TypeAlias = Literal["wait", "pass_through"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for every request.

    prior_weight: what the prior counts in the order, in [0, 1], where every candidate has one
    fusion: how the prior is fused in; reciprocal ranks need neither weight nor priors
    depth: how many candidates are scored; None: all
    skip: when the first stage is so sure that nothing is scored
    cut, top_k: how many hits are returned; None: all
    budget: seconds a request may take unless it says otherwise
    when_cold: what a request without a budget does while the model warms up
    workers: threads that compute; None: one per usable core
    max_requests: requests under way; one more is refused
    policy: where text may be sent
    audit: receives a record of each sending and of each refusal to send
    planner: fits the work to a request's budget
    exit_audit: scores some requests in full besides, to measure what exits lose
    guard: watches for drift, and changes how requests are served where reranking hurts
    full: the stages without their exits, for when the guard disables exits
    """

    stages: tuple[Stage, ...]
    prior_weight: float = 0.0
    fusion: Method = "convex"
    depth: Depth | None = None
    skip: Certain | None = None
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
        for stage in self.stages:
            check_residency(stage, self.policy)
        if self.policy.per == "candidate":
            check_split(self.stages)

    @property
    def sends(self) -> bool:
        """True if a stage can serve while no local stage can."""
        return any(isinstance(stage.scorer, Sends) for stage in self.stages)

    @property
    def last_depth(self) -> int:
        """How many stages there are up to the last regular stage, whose scores decide."""
        places = [i for i, stage in enumerate(self.stages, start=1) if stage.when == "always"]
        return max(places, default=len(self.stages))

    @property
    def model(self) -> str:
        """The names of the stages, for results and spans."""
        return " > ".join(stage.scorer.name for stage in self.stages)


def check_residency(stage: Stage, policy: Policy) -> None:
    """Raise `PolicyError` for a stage that the policy would never let run."""
    if isinstance(stage.scorer, Sends):
        verdict = policy.verdict(stage.scorer.destination)
        if not verdict.allowed:
            message = (
                f"stage {stage.scorer.name!r} could never run: {verdict.reason}. Remove the stage, "
                "use a host whose URL proves its region, or state its region in the stage if you "
                "can answer for it"
            )
            raise PolicyError(message)


def check_split(stages: Sequence[Stage]) -> None:
    """Raise `PolicyError` where candidates cannot be split between local and remote stages."""
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
    if found:
        message = f'per = "candidate" splits candidates between models, but {found}'
        raise PolicyError(message)
