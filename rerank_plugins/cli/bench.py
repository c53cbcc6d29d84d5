"""`rerank-plugins bench`: latency and throughput under concurrent requests."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..evaluation import datasets, loader
from ..evaluation import load as loop
from ..evaluation.load import Load
from ..telemetry import otlp_file
from . import console
from .options import Config, DatasetFolder, Depth, Json, Model, Run, open_one

_REQUESTS = 100


def bench(
    *,
    dataset: DatasetFolder,
    run: Run = None,
    model: Model = None,
    config: Config = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="Callers at the same time.")
    ] = 1,
    requests: Annotated[
        int, typer.Option("--requests", metavar="N", min=1, help="Requests in all.")
    ] = _REQUESTS,
    depth: Depth = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write every request's spans as OTLP/JSON."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a run's queries from concurrent callers and print latency percentiles and throughput.

    For example:

        rerank-plugins bench --dataset scifact --depth 50 --concurrency 8

        rerank-plugins bench --dataset scifact --requests 500 -c rerank.toml --json

        rerank-plugins bench --dataset scifact --requests 20 --trace out.json
    """
    chosen = loader.read(dataset, run=run)
    topics = (chosen if depth is None else datasets.shorten(chosen, depth)).topics
    with ExitStack() as recorded, console.progress("asking", requests) as advance:
        provider = None if trace is None else recorded.enter_context(otlp_file.recording(trace))
        reranker = open_one(model, config, tracer_provider=provider)
        load = loop.measure(
            reranker, topics, requests=requests, concurrency=concurrency, progress=advance
        )
    if as_json:
        console.print_json(load)
    else:
        console.stdout().print(_table(reranker.model, load))


def _table(model: str, load: Load) -> Table:
    table = Table(title=f"{model}: {load.requests} requests from {load.concurrency} callers")
    columns = ("p50 ms", "p95 ms", "p99 ms", "requests/s", "pairs/s", "degraded", "warm-up s")
    for name in columns:
        table.add_column(name, justify="right")
    latency = load.latency
    percentiles = () if latency is None else (latency.p50_s, latency.p95_s, latency.p99_s)
    table.add_row(
        *(f"{seconds * 1e3:.1f}" for seconds in percentiles),
        f"{load.requests_per_s:.1f}",
        f"{load.pairs_per_s:.0f}",
        str(load.degraded),
        f"{load.cold_s:.2f}",
    )
    return table
