"""From verdicts to whether to act: neither at the first sign, nor for ever."""

from dataclasses import dataclass, field

from ..drift import Report, Verdict


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
