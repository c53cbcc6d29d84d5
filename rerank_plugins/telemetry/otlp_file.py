"""A file of spans in OTLP/JSON, which collectors and trace viewers read."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_IDS = ("traceId", "spanId", "parentSpanId")


@contextmanager
def recording(path: Path) -> Iterator["TracerProvider"]:
    """Yield a tracer provider whose spans are written to `path` at the end, also after an error.

    Raises `ConfigError` without the extra `otel`, or where the file cannot be written.
    """
    try:
        from google.protobuf.json_format import MessageToDict
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError as error:
        message = f'traces need the SDK ({error.name}): pip install "rerank-plugins[otel]"'
        raise ConfigError(message) from error
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; give a file in a folder of yours"
        raise ConfigError(message) from error
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource.create({"service.name": "rerank-plugins"}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        yield provider
    finally:
        spans = encode_spans(exporter.get_finished_spans())
        document = _hex(MessageToDict(spans, use_integers_for_enums=True))
        path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def _hex(value: object) -> object:
    """Return ids in hexadecimal: OTLP/JSON differs from Protobuf's JSON there."""
    if isinstance(value, list):
        return [_hex(item) for item in value]
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in _IDS else _hex(item)
            for key, item in value.items()
        }
    return value
