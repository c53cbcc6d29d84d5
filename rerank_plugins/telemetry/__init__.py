"""Spans, metrics and the slow-request log: every rerank explained, its text kept out of it."""

from .options import Redact, TelemetryOptions
from .timeline import Step, layout
from .trace import Telemetry, Trace

__all__ = ["Redact", "Step", "Telemetry", "TelemetryOptions", "Trace", "layout"]
