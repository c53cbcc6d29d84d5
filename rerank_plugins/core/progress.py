"""Where every text of a request stands while the stages run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import RerankError, Withheld
from ..records import Decision, StageRun, Timing, Usage
from ..rules import fusion


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

    def note_spread(
        self,
        scores: NDArray[np.floating],
        done: NDArray[np.bool_],
        texts: Sequence[int],
        *,
        depth: int,
    ) -> None:
        """Note how widely a stage's `scores` of `texts` would spread had it scored them all.

        Comes before its scores are recorded: what the stage before gave the same texts is read.
        """
        scored = [text for place, text in enumerate(texts) if done[place]]
        if not scored:
            return
        known = [score for text in scored if (score := self.scores[text]) is not None]
        before = np.array(known, dtype=np.float64) if len(known) == len(scored) else None
        widest = self.spreads[max(self.spreads)] if self.spreads else 0.0
        self.spreads[depth] = fusion.spread(scores[done].astype(np.float64), before, widest)

    def keys(
        self, done: list[int], priors: Sequence[float | None], prior_weight: float, depth: int
    ) -> list[float]:
        """Give what decides who goes on: scores at `depth`, the prior fused in if it has a say."""
        scores = [score for text in done if (score := self.scores[text]) is not None]
        known = np.array(priors, dtype=np.float64)
        if not prior_weight or not done or not known.size or np.isnan(known[done]).any():
            return scores
        z = fusion.standardise_known(known)[done]
        values = np.array(scores, dtype=np.float64)
        fused = fusion.in_units(values, z, self.spreads[depth], prior_weight)
        return [float(value) for value in fused]
