"""Spans, metrics and the log of slow requests; none holds text, unless asked to."""

from .options import Redact, TelemetryOptions
from .timeline import Step, layout
from .trace import Telemetry, Trace

__all__ = ["Redact", "Step", "Telemetry", "TelemetryOptions", "Trace", "layout"]
