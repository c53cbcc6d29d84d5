"""Set up OpenTelemetry's SDK: spans by OTLP, metrics too where a collector takes them."""

import os

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def start() -> TracerProvider:
    """Send to the endpoints that OpenTelemetry's environment variables name."""
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "rag")})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    # A trace viewer takes no metrics; a collector takes both under one endpoint.
    if {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"} & set(os.environ):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(), 10_000)
        metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    return tracers
