"""From a model's score to a calibrated probability of relevance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling (Platt 1999): P(relevant | score) = 1 / (1 + exp(-(a score + b)))."""

    a: float
    b: float


def apply(calibration: Calibration, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Map scores to probabilities in [0, 1], elementwise.

    >>> apply(Calibration(a=1.0, b=0.0), np.float32([0.0])).tolist()
    [0.5]
    """
    logits = calibration.a * scores.astype(np.float64) + calibration.b
    # exp of a negative number only: no overflow at either end.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0.0, 1.0 / (1.0 + small), small / (1.0 + small))
