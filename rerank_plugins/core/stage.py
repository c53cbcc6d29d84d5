"""A stage: a scorer, who enters it, and who goes on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import ConfigError
from ..rules import keep
from ..rules.calibration import Calibration
from ..rules.keep import Keep
from ..scoring import Scorer

When: TypeAlias = Literal["always", "fallback"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A scorer, who enters, and its keep rule.

    At most the best `enter` of those who come are scored (None: all). `keep` says who goes on to
    the next stage (a number: that many; None: all). A "fallback" stage runs only where no stage
    before it could score; its scores order and are not shown, because they may be on another scale
    than a caller's threshold expects. Its calibrated probabilities are.
    """

    scorer: Scorer
    keep: Keep | None = None
    when: When = "always"
    calibration: Calibration | None = None
    enter: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.keep, keep.READS_PROBABILITIES) and self.calibration is None:
            message = (
                f"stage {self.scorer.name!r} keeps by probability and is not calibrated; give it a "
                "calibration, or keep by count, share, score or margin"
            )
            raise ConfigError(message)
