"""Spans, metrics and the slow-request log: every rerank explained, its text kept out of it."""

from .layout import Step, layout
from .options import Redact, TelemetryOptions
from .trace import Telemetry, Trace

__all__ = ["Redact", "Step", "Telemetry", "TelemetryOptions", "Trace", "layout"]
