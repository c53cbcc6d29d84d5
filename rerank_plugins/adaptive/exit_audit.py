"""What exits lose in service, against what was promised, and margins that follow it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ..errors import ConfigError
from ..records import Result
from ..rules import calibration, risk_control
from ..rules.calibration import Calibration

Loss: TypeAlias = Literal["regret", "top-k miss"]
Adjust: TypeAlias = Literal["off", "tighten", "both"]
# How far the margins may go from the certified ones, and how fast.
_LEAST, _MOST = 0.25, 8.0
_STEP = 0.02


@dataclass(frozen=True, slots=True)
class ExitAudit:
    """Which share of requests is scored in full besides, and what becomes of what is found.

    `alpha` is the mean `loss` over the best `top_k` that was promised, in gains by `probability`.
    To "tighten" widens the margins where more is lost, and takes that back; "both" also narrows
    them below the certified ones where less is lost.
    """

    share: float
    alpha: float
    top_k: int
    loss: Loss
    probability: Calibration
    adjust: Adjust = "tighten"

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0 or not 0.0 < self.alpha < 1.0:
            message = (
                f"an exit audit of share {self.share:g} for a loss of {self.alpha:g}; expected a "
                "share in (0, 1], such as 0.01, and a loss in (0, 1)"
            )
            raise ConfigError(message)


class Care:
    """A factor on the margins of exits: 1 as certified, more is more careful. Thread-safe.

    Online risk control (Feldman et al. 2022): after each audited loss the factor moves by
    step (loss / alpha - 1), so that the mean loss goes to alpha, or below it at the bound, for any
    sequence of queries.
    """

    def __init__(self, audit: ExitAudit) -> None:
        self._audit = audit
        self._least = _LEAST if audit.adjust == "both" else 1.0
        self._lock = threading.Lock()
        self.factor = 1.0
        self.audited = 0
        self.mean = 0.0

    def note(self, loss: float) -> None:
        """Learn from an audited request's loss in [0, 1]."""
        with self._lock:
            self.audited += 1
            self.mean += (loss - self.mean) / self.audited
            if self._audit.adjust != "off":
                moved = self.factor + _STEP * (loss / self._audit.alpha - 1.0)
                self.factor = min(_MOST, max(self._least, moved))


def realised(audit: ExitAudit, early: Sequence[int], full: Result) -> float:
    """Measure what an `early` order lost against the full model's result, as calibration does."""
    if audit.loss == "top-k miss":
        return risk_control.top_k_miss(early, full.order, audit.top_k)
    scores = sorted((hit.score for hit in full.hits if hit.score is not None), reverse=True)
    # Gains follow the order that is returned, which the prior has a say in.
    gains = np.zeros(len(full.order))
    values = np.array(scores, dtype=np.float32)
    gains[list(full.order[: len(scores)])] = calibration.apply(audit.probability, values)
    return risk_control.regret(early, gains, audit.top_k)
