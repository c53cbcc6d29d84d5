"""`rerank-plugins bench`: latency and throughput under concurrent requests."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..evaluation import closed_loop, datasets
from ..evaluation.closed_loop import ClosedLoop
from ..evaluation.report import cells
from ..telemetry import otlp_file
from . import console
from .options import Config, DatasetFolder, Depth, Json, Model, Run, open_one

Concurrency = Annotated[int, typer.Option(metavar="N", min=1, help="Callers at the same time.")]
Requests = Annotated[int, typer.Option(metavar="N", min=1, help="Requests in all.")]
Trace = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write every request's spans as OTLP/JSON.")
]


def bench(
    *,
    dataset: DatasetFolder,
    run: Run = None,
    model: Model = None,
    config: Config = None,
    concurrency: Concurrency = 1,
    requests: Requests = 100,
    depth: Depth = None,
    trace: Trace = None,
    as_json: Json = False,
) -> None:
    """Send a run's queries from concurrent callers and print latency percentiles and throughput.

    For example:

        rerank-plugins bench --dataset scifact --depth 50 --concurrency 8

        rerank-plugins bench --dataset scifact --requests 500 -c rerank.toml --json

        rerank-plugins bench --dataset scifact --requests 20 --trace out.json
    """
    topics = datasets.subset(datasets.read(dataset, run=run), depth=depth).topics
    with ExitStack() as recorded, console.progress("asking", requests) as advance:
        provider = None if trace is None else recorded.enter_context(otlp_file.recording(trace))
        reranker = open_one(model, config, tracer_provider=provider)
        found = closed_loop.measure(
            reranker, topics, requests=requests, concurrency=concurrency, progress=advance
        )
    if as_json:
        console.print_json(found)
    else:
        console.stdout().print(_table(reranker.model, found))


def _table(model: str, found: ClosedLoop) -> Table:
    table = Table(title=f"{model}: {found.requests} requests from {found.concurrency} callers")
    for name in (*cells.PERCENTILES, "requests/s", "pairs/s", "degraded", "warm-up s"):
        table.add_column(name, justify="right")
    latency = found.latency
    percentiles = () if latency is None else (latency.p50_s, latency.p95_s, latency.p99_s)
    table.add_row(
        *(f"{seconds * 1e3:.1f}" for seconds in percentiles),
        f"{found.requests_per_s:.1f}",
        f"{found.pairs_per_s:.0f}",
        str(found.degraded),
        f"{found.cold_s:.2f}",
    )
    return table
