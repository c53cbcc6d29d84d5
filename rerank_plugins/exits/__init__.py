"""Early exit for any cross-encoder, fitted on its own scores and certified without labels."""

from .calibrate import Plan, calibrate
from .observe import Observed, Question, observe
from .simulate import Outcome, simulate

__all__ = ["Observed", "Outcome", "Plan", "Question", "calibrate", "observe", "simulate"]
