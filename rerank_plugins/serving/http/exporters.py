"""OpenTelemetry providers of the server: Prometheus for /metrics, OTLP if the environment says so.

A library must not install providers; the server is an application, so it does.
"""

import os
from importlib.util import find_spec

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def set_up() -> None:
    """Install a meter provider for `prometheus_text`, and an OTLP exporter of spans.

    Spans are exported where OTEL_EXPORTER_OTLP_ENDPOINT (or its variant for traces) is set and the
    `otel` extra is installed; every other OTEL_ variable is the SDK's own. Providers that are
    already there are left alone.
    """
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    name = os.environ.get("OTEL_SERVICE_NAME", "rerank-plugins")
    resource = Resource.create({SERVICE_NAME: name})
    if not isinstance(metrics.get_meter_provider(), MeterProvider):
        metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], resource))
    exports = any(os.environ.get(variable) for variable in _ENDPOINTS)
    if exports and not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(_otlp_exporter()))
        trace.set_tracer_provider(provider)


def prometheus_text() -> bytes:
    """Return the process's metrics in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest()


def _otlp_exporter() -> SpanExporter:
    if find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        message = (
            f"{_ENDPOINTS[0]} is set, but the OTLP exporter is not installed: "
            "pip install 'rerank-plugins[otel]', or unset it"
        )
        raise ImportError(message)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
