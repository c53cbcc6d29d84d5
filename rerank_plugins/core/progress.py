"""What is known of each text of a request while the stages run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import RerankError, Withheld
from ..records import Code, Decision, StageRun, Timing, Usage
from ..rules import fusion


@dataclass(slots=True)
class Progress:
    """What the stages so far found out. A slot is the place of a text in the shortlist.

    depths, scores, probabilities, stages, truncated_tokens: per slot; depth counts the stages that
        scored the text, 0: none
    spreads: per depth, the standard deviation its scores would have over all texts
    withheld: slots that the residency policy kept from a stage, and the depth of that stage
    withheld_errors: stages that the policy let send nothing
    """

    depths: list[int]
    scores: list[float | None]
    probabilities: list[float | None]
    stages: list[str | None]
    truncated_tokens: list[int]
    spreads: dict[int, float] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failures: list[RerankError] = field(default_factory=list)
    withheld: dict[int, int] = field(default_factory=dict)
    withheld_errors: list[Withheld] = field(default_factory=list)
    runs: list[StageRun] = field(default_factory=list)

    @classmethod
    def start(cls, texts: int) -> "Progress":
        """Return the progress before the first stage: nothing is scored."""
        nothing: list[None] = [None] * texts
        return cls([0] * texts, [*nothing], [*nothing], [*nothing], [0] * texts)

    @property
    def scored(self) -> int:
        """How many texts have a score."""
        return sum(depth > 0 for depth in self.depths)

    @property
    def waiting(self) -> list[int]:
        """Slots that were withheld from a stage and have no score."""
        return [slot for slot in self.withheld if not self.depths[slot]]

    def skip(self, stage: str, candidates: int) -> None:
        """Record a stage that the plan leaves no time for."""
        self.decisions.append(Decision("budget", Code.STAGE_SKIPPED, candidates, stage))

    def withhold(self, slots: Iterable[int], depth: int) -> None:
        """Note slots that the policy kept from the stage at `depth`; the first stage counts."""
        for slot in slots:
            self.withheld.setdefault(slot, depth)

    def tier(self, slot: int) -> int:
        """Return the depth that a slot is ordered with: the deepest stage that scored it.

        A text that was withheld from a stage is ordered with the texts that this stage scored.
        """
        return self.withheld.get(slot, self.depths[slot]) if self.depths[slot] else 0

    def key(self, slot: int, own: float | None) -> float | None:
        """Return what orders a slot in its tier: its `own` key, or its calibrated probability.

        Scores of different models do not compare; calibrated probabilities do. They order where a
        text was withheld, so that two models scored one tier.
        """
        return self.probabilities[slot] if self.tier(slot) in self.withheld.values() else own

    def note_spread(
        self,
        scores: NDArray[np.floating],
        done: NDArray[np.bool_],
        slots: Sequence[int],
        *,
        depth: int,
    ) -> None:
        """Estimate how widely a stage's `scores` would spread had it scored every text.

        Must be called before these scores are recorded: it reads what the stage before gave the
        same texts.
        """
        scored = [slot for slot, is_done in zip(slots, done, strict=True) if is_done]
        if not scored:
            return
        known = [score for slot in scored if (score := self.scores[slot]) is not None]
        before = np.array(known, dtype=np.float64) if len(known) == len(scored) else None
        widest = self.spreads[max(self.spreads)] if self.spreads else 0.0
        self.spreads[depth] = fusion.spread(scores[done].astype(np.float64), before, widest)

    def keys(
        self, slots: list[int], priors: Sequence[float | None], prior_weight: float, depth: int
    ) -> list[float]:
        """Return what decides who goes on: scores at `depth`, the prior fused in if it counts."""
        scores = [score for slot in slots if (score := self.scores[slot]) is not None]
        known = np.array(priors, dtype=np.float64)
        if not prior_weight or not slots or not known.size or np.isnan(known[slots]).any():
            return scores
        z = fusion.standardise_known(known)[slots]
        values = np.array(scores, dtype=np.float64)
        fused = fusion.in_units(values, z, self.spreads[depth], prior_weight)
        return [float(value) for value in fused]
