"""One request's business with a destination, and what its calls add up to."""

from dataclasses import dataclass, field

from ..rules.residency import Permit
from .dialects.json_body import Answer
from .payload import Cargo

# A call that had less than this, and less than this share of its request's time, was not given a
# chance: that it did not end says nothing.
_FAIR_S = 0.1
_FAIR_SHARE = 0.5


@dataclass(slots=True)
class Tally:
    """What an errand's calls added up to, also where they failed."""

    calls: int = 0
    retries: int = 0
    sent: set[int] = field(default_factory=set)
    tokens: int = 0
    billed_units: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def add(self, answer: Answer) -> None:
        """Count an answer; of times, the longest counts."""
        self.tokens += answer.tokens
        self.billed_units += answer.billed_units
        for step, value in answer.seconds.items():
            self.seconds[step] = max(value, self.seconds.get(step, 0.0))


@dataclass(frozen=True, slots=True)
class Errand:
    """One request's business with a destination: what to ask, until when, and by whose leave."""

    query: str
    cargo: Cargo
    permit: Permit
    started_s: float
    deadline_s: float | None
    tally: Tally = field(default_factory=Tally)

    @property
    def fair_s(self) -> float:
        """Say how long a call has to be given before its silence is the destination's fault."""
        if self.deadline_s is None:
            return _FAIR_S
        return min(_FAIR_S, _FAIR_SHARE * (self.deadline_s - self.started_s))
