"""A stage: a scorer, who enters it, and who goes on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import ConfigError
from ..rules.calibration import Calibration
from ..rules.keep import Keep, ProbabilityKeep
from ..scoring import Scorer

When: TypeAlias = Literal["always", "fallback"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A scorer, who enters it, and who goes on.

    scorer: gives the scores
    keep: who goes on to the next stage: a number (so many, best first) or a rule; None: all
    when: "always", or "fallback": only for what no stage before could score. Scores of a fallback
        order the candidates and are not shown, because they may be on another scale than a
        caller's threshold expects; its calibrated probabilities are shown
    calibration: turns scores into probabilities; None: not calibrated
    enter: at most so many of those who come are scored, best first; None: all
    """

    scorer: Scorer
    keep: Keep | None = None
    when: When = "always"
    calibration: Calibration | None = None
    enter: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.keep, ProbabilityKeep) and self.calibration is None:
            message = (
                f"stage {self.scorer.name!r} keeps by probability and is not calibrated; give it a "
                "calibration, or keep by count, share or margin"
            )
            raise ConfigError(message)
