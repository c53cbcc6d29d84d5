"""What the guard may do, and how one request is served because of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ...records import Code, Decision
from ..drift import Report, Verdict, Watch

Action: TypeAlias = Literal["first_stage", "raise_prior", "disable_exits", "fallback"]
"""What is done where reranking hurts."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """How the guard watches and acts.

    `window` requests are judged together; `learn` is how many make a snapshot where none is given.
    It acts after `patience` harmful windows in a row, unless `do_no_harm` is False, and stops after
    `relief` windows in a row that are not. Where it answers without the model, one request in
    `probe_every` is still scored, unseen, to know when to stop. `control_share` in [0, 0.5] of all
    requests is answered in first-stage order to compare feedback with. For one request in
    `null_every` (0: none) a passage of an earlier one is scored too, off the path. After every
    `canary_every` windows (0: never) the fixed pairs are scored again, in spare time. `log`
    receives JSON lines.
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
    watch: Watch = field(default_factory=Watch)
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Stance:
    """How one request is served.

    `action` None is as configured. `scored` False spares the model; `control` marks the requests
    that feedback is compared with. `reason` goes into the decision.
    """

    action: Action | None = None
    scored: bool = True
    control: bool = False
    moved: bool = False
    reason: str = ""
    prior_weight: float = 0.0

    @property
    def in_first_order(self) -> bool:
        """Tell whether the first stage's order is the answer."""
        return self.control or self.action == "first_stage"

    def decision(self, candidates: int) -> Decision | None:
        """Say what the guard had a say in; None where it had none."""
        if self.control:
            return Decision("guard", Code.CONTROL, candidates)
        if self.action is not None:
            return Decision("guard", Code.GUARD, candidates, f"{self.action}: {self.reason}")
        return Decision("guard", Code.DRIFT, candidates, self.reason) if self.moved else None


CONFIGURED = Stance()


@dataclass(slots=True)
class Resolve:
    """Counts windows in a row.

    What drift did, clean windows undo; what the canaries or feedback showed stays until they show
    otherwise.
    """

    patience: int
    relief: int
    harmful: int = 0
    clean: int = 0
    acting: bool = False
    lasting: list[str] = field(default_factory=list)
    reasons: tuple[str, ...] = ()
    moved: bool = False

    def hear(self, report: Report) -> None:
        """Take in the report on one more window."""
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

    def insist(self, cause: str, *, on: bool) -> None:
        """Act for a cause of its own, or no longer."""
        if on:
            self.lasting += [] if cause in self.lasting else [cause]
        else:
            self.lasting = [one for one in self.lasting if one != cause]

    @property
    def harm(self) -> bool:
        """Tell whether there is reason to act."""
        return self.acting or bool(self.lasting)

    @property
    def verdict(self) -> Verdict:
        """Sum up: harmful once there is reason to act."""
        return "harmful" if self.harm else "watch" if self.moved else "ok"

    @property
    def reason(self) -> str:
        """Name what there is to act on."""
        return ", ".join([*self.lasting, *(self.reasons if self.acting else ())])
