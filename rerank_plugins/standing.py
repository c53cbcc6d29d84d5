"""Where every text of a request stands while the stages run."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import RerankError, Withheld
from .records import Decision, StageRun, Timing, Usage


@dataclass(slots=True)
class Standing:
    """Where every text stands after the stages so far; lists are per text.

    `held` are texts that the policy kept from a stage, and that stage's depth.
    """

    depths: list[int]
    scores: list[float | None]
    probabilities: list[float | None]
    stages: list[str | None]
    truncated_tokens: list[int]
    settled: list[bool]
    spreads: dict[int, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failures: list[RerankError] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    runs: list[StageRun] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)

    @classmethod
    def start(cls, texts: int) -> "Standing":
        """Give the standing before the first stage: nothing scored."""
        nothing: list[None] = [None] * texts
        return cls([0] * texts, [*nothing], [*nothing], [*nothing], [0] * texts, [False] * texts)

    @property
    def scored(self) -> int:
        """How many texts have a score."""
        return sum(depth > 0 for depth in self.depths)

    @property
    def waiting(self) -> list[int]:
        """Name the texts that were kept from a stage and have no score."""
        return [text for text in self.held if not self.depths[text]]

    def hold(self, texts: Iterable[int], depth: int) -> None:
        """Note texts that the policy kept from the stage at `depth`; the first one counts."""
        for text in texts:
            self.held.setdefault(text, depth)

    def tier(self, text: int) -> int:
        """Rank a text among the stages: the deepest that scored it; settled ones come above all.

        What was kept from a stage ranks with what that stage scored.
        """
        if self.settled[text]:
            return max(self.depths) + 1
        return self.held.get(text, self.depths[text]) if self.depths[text] else 0

    def key(self, text: int, own: float | None) -> float | None:
        """Give what orders a text in its tier: its `own` key, or where models meet its probability.

        Scores of different models do not compare; calibrated probabilities do.
        """
        return self.probabilities[text] if self.tier(text) in self.held.values() else own
