"""Record what a pipeline traces, plain and instrumented, and print it as JSON."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

QUESTION = "where does the red fox live"
TEXTS = ["the blue hen lives in a barn", "the red fox lives in a den", "nothing of the kind"]


def record(ask: Callable[[], Any], aask: Callable[[], Awaitable[Any]], instrumentor: Any) -> None:
    """Ask under a span of the caller's, then under the instrumentor's alone, both ways each."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracer = provider.get_tracer("app")
    found: dict[str, list[dict[str, object]]] = {}

    def spans() -> list[dict[str, object]]:
        ended: Sequence[Any] = exporter.get_finished_spans()
        exporter.clear()
        return [
            {
                "name": one.name,
                "id": one.context.span_id,
                "parent": None if one.parent is None else one.parent.span_id,
                "trace": one.context.trace_id,
                "kind": one.attributes.get("openinference.span.kind"),
            }
            for one in ended
        ]

    async def under_a_span() -> None:
        with tracer.start_as_current_span("app"):
            await aask()

    with tracer.start_as_current_span("app"):
        ask()
    found["plain sync"] = spans()
    asyncio.run(under_a_span())
    found["plain async"] = spans()
    instrumentor.instrument(tracer_provider=provider)
    ask()
    found["instrumented sync"] = spans()
    asyncio.run(_awaited(aask))
    found["instrumented async"] = spans()
    sys.stdout.write(json.dumps(found))


async def _awaited(aask: Callable[[], Awaitable[Any]]) -> None:
    await aask()
