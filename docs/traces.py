"""The tables of spans, attributes and metrics, from the module that names them."""

from rerank_plugins import semconv


def tables() -> list[str]:
    """Give the lines of the telemetry reference."""
    return [
        "# Spans and metrics",
        "",
        "What [telemetry](telemetry.md) records, name by name. `gen_ai.*` follows OpenTelemetry's",
        "GenAI conventions (where an operation `rerank` is proposed), `reranker.*` and",
        "`openinference.*` follow OpenInference, `rerank.*` is our own.",
        "",
        "## Spans",
        "",
        "| span | what it covers |",
        "|---|---|",
        *(f"| `{one.name}` | {one.meaning} |" for one in semconv.SPANS),
        "",
        "## Attributes",
        "",
        "Those set at *start* can decide sampling; *content* is opted into.",
        "",
        "| attribute | type | set | on | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{one.name}` | {one.type} | {one.when} | {one.spans} | {one.meaning} |"
            for one in semconv.ATTRIBUTES
        ),
        "",
        "## Metrics",
        "",
        "| metric | kind | unit | by | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{one.name}` | {one.kind} | `{one.unit}` | "
            f"{', '.join(f'`{name}`' for name in one.attributes)} | {one.meaning} |"
            for one in semconv.METRICS
        ),
    ]
