"""How the guard has a request served, the options of the guard, and when it starts and stops."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ...records import Code, Decision
from ..drift.verdict import DriftReport, DriftThresholds, Verdict

Action: TypeAlias = Literal["first_stage", "raise_prior", "disable_exits", "fallback"]
"""What is done where reranking hurts."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """How the guard watches and acts.

    do_no_harm: whether it acts at all
    prior_weight: of "raise_prior", in [0, 1]
    window: requests that are judged together
    learn: requests that become the snapshot where none is given
    patience: harmful windows in a row before it acts
    relief: windows in a row that are not harmful before it stops
    probe_every: while it answers without the model, one request in so many is still scored, unseen
    control_share: of all requests, in [0, 0.5], answered in first-stage order to compare feedback
    null_every: for one request in so many, a passage of an earlier request is scored; 0: never
    canary_every: windows after which the fixed pairs are scored again, by idle workers; 0: never
    log: a file of JSON lines
    """

    do_no_harm: bool = True
    action: Action = "first_stage"
    prior_weight: float = 0.7
    window: int = 100
    learn: int = 300
    patience: int = 2
    relief: int = 3
    probe_every: int = 10
    control_share: float = 0.0
    null_every: int = 4
    canary_every: int = 10
    thresholds: DriftThresholds = field(default_factory=DriftThresholds)
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Stance:
    """How one request is served.

    action: None: as configured
    scored: whether the model scores it
    control: whether it is in the control group of feedback
    moved: whether requests drifted
    reason: what the guard acts on, for the decision
    prior_weight: of "raise_prior"
    """

    action: Action | None = None
    scored: bool = True
    control: bool = False
    moved: bool = False
    reason: str = ""
    prior_weight: float = 0.0

    @property
    def in_first_order(self) -> bool:
        """True if the first stage's order is the answer."""
        return self.control or self.action == "first_stage"

    def decision(self, candidates: int) -> Decision | None:
        """Return the decision to record; None: the request is served as configured."""
        if self.control:
            return Decision("guard", Code.CONTROL, candidates)
        if self.action is not None:
            return Decision("guard", Code.GUARD, candidates, f"{self.action}: {self.reason}")
        return Decision("guard", Code.DRIFT, candidates, self.reason) if self.moved else None


CONFIGURED = Stance()


@dataclass(slots=True)
class Hysteresis:
    """Decides when the guard starts and stops to act.

    `patience` harmful windows in a row start it, `relief` other windows in a row stop it. A cause
    of another kind, canaries or feedback, holds until it is taken back.
    """

    patience: int
    relief: int
    harmful: int = 0
    clean: int = 0
    acting: bool = False
    causes: list[str] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    moved: bool = False

    def add_report(self, report: DriftReport) -> None:
        """Count another window."""
        self.moved = report.verdict != "ok"
        if report.verdict == "harmful":
            self.harmful, self.clean = self.harmful + 1, 0
            self.reasons = report.reasons
        else:
            self.harmful, self.clean = 0, self.clean + 1
        if self.harmful >= self.patience:
            self.acting = True
        elif self.clean >= self.relief:
            self.acting = False

    def set_cause(self, cause: str, *, on: bool) -> None:
        """Add a cause to act, or take it back."""
        if on and cause not in self.causes:
            self.causes.append(cause)
        elif not on and cause in self.causes:
            self.causes.remove(cause)

    @property
    def harm(self) -> bool:
        """True if there is a reason to act."""
        return self.acting or bool(self.causes)

    @property
    def verdict(self) -> Verdict:
        """Return the verdict: harmful once there is a reason to act."""
        return "harmful" if self.harm else "watch" if self.moved else "ok"

    @property
    def reason(self) -> str:
        """Return what there is to act on."""
        return ", ".join([*self.causes, *(self.reasons if self.acting else ())])
