"""The tables of spans, attributes and metrics, from the module that names them."""

from rerank_plugins import semconv


def tables() -> list[str]:
    """Return the lines of the telemetry reference."""
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
        *(f"| `{entry.name}` | {entry.meaning} |" for entry in semconv.SPANS),
        "",
        "## Attributes",
        "",
        "Those set at *start* can decide sampling; *content* is opted into.",
        "",
        "| attribute | type | set | on | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{entry.name}` | {entry.type} | {entry.when} | {entry.spans} | {entry.meaning} |"
            for entry in semconv.ATTRIBUTES
        ),
        "",
        "## Metrics",
        "",
        "| metric | kind | unit | by | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{entry.name}` | {entry.kind} | `{entry.unit}` | "
            f"{', '.join(f'`{name}`' for name in entry.attributes)} | {entry.meaning} |"
            for entry in semconv.METRICS
        ),
    ]
