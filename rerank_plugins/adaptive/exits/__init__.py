"""Early exit for any cross-encoder, fitted on its own scores and certified without labels."""

from .calibrate import Calibrated, CalibrationOptions, calibrate, certify
from .collect import Observed, Question, observe
from .simulate import SimulatedOrder, simulate
from .tradeoff import Gain, Point, draw, gain
from .truncated_plans import MEASURED, with_short_plans

__all__ = [
    "MEASURED",
    "Calibrated",
    "CalibrationOptions",
    "Gain",
    "Observed",
    "Point",
    "Question",
    "SimulatedOrder",
    "calibrate",
    "certify",
    "draw",
    "gain",
    "observe",
    "simulate",
    "with_short_plans",
]
