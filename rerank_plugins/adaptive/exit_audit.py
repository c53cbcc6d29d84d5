"""Audits of exits: what they lose in service against what was promised, and wider margins."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ..errors import ConfigError
from ..records import Result
from ..rules import calibration, risk_control
from ..rules.calibration import Calibration

ExitLoss: TypeAlias = Literal["regret", "top-k miss"]
Adjust: TypeAlias = Literal["off", "tighten"]
_STEP = 0.02
_MOST = 8.0


@dataclass(frozen=True, slots=True)
class ExitAudit:
    """How exits are audited: some requests are scored in full too, after they were answered.

    share: of the requests, in (0, 1]
    alpha: the promised mean loss, in (0, 1)
    top_k: the hits that the loss looks at
    probability: turns scores into the gains that regret adds up
    adjust: "tighten" widens the margins where more is lost than promised
    """

    share: float
    alpha: float
    top_k: int
    loss: ExitLoss
    probability: Calibration
    adjust: Adjust = "tighten"

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0 or not 0.0 < self.alpha < 1.0:
            message = (
                f"an exit audit of share {self.share:g} for a loss of {self.alpha:g}; expected a "
                "share in (0, 1], such as 0.01, and a loss in (0, 1)"
            )
            raise ConfigError(message)


class MarginFactor:
    """The factor on the margins of exits, from 1, as certified, up to 8. Thread-safe.

    Online risk control (Feldman et al. 2022): each audited loss moves the factor by
    step (loss / alpha - 1), so that the mean loss goes to alpha, or stays below it where the factor
    is 1, for any sequence of queries.
    """

    def __init__(self, audit: ExitAudit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self.value = 1.0

    def update(self, loss: float) -> None:
        """Learn from the loss in [0, 1] of an audited request."""
        if self._audit.adjust == "tighten":
            with self._lock:
                moved = self.value + _STEP * (loss / self._audit.alpha - 1.0)
                self.value = min(_MOST, max(1.0, moved))


def realised_loss(audit: ExitAudit, early: Sequence[int], full: Result) -> float:
    """Return what the order `early` loses against the full model's result, as in calibration."""
    if audit.loss == "top-k miss":
        return risk_control.top_k_miss(early, full.order, audit.top_k)
    scores = sorted((hit.score for hit in full.hits if hit.score is not None), reverse=True)
    # Gains follow the order that is returned, which the prior takes part in.
    gains = np.zeros(len(full.order))
    values = np.array(scores, dtype=np.float32)
    gains[list(full.order[: len(scores)])] = calibration.apply(audit.probability, values)
    return risk_control.regret(early, gains, audit.top_k)
