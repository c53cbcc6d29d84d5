"""Early exit for any cross-encoder, fitted on its own scores and certified without labels."""

from .calibrate import Calibrated, Plan, calibrate, certify
from .gain import Gain, Point, gain
from .observe import Observed, Question, observe
from .plot import draw
from .shorter import MEASURED, with_short_plans
from .simulate import Outcome, simulate

__all__ = [
    "MEASURED",
    "Calibrated",
    "Gain",
    "Observed",
    "Outcome",
    "Plan",
    "Point",
    "Question",
    "calibrate",
    "certify",
    "draw",
    "gain",
    "observe",
    "simulate",
    "with_short_plans",
]
