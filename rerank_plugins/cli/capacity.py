"""`rerank-plugins capacity`: how much traffic this machine takes, and what it costs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..evaluation import datasets, queueing
from ..evaluation.queueing import Capacity
from ..evaluation.report import cells
from . import console
from .options import Config, DatasetFolder, Depth, Json, Model, Run, open_one

Requests = Annotated[int, typer.Option(metavar="N", min=1, help="Requests to time.")]
P95 = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        min=0.001,
        help="The 95th percentile to keep. Left out: twice that of an idle server.",
        show_default=False,
    ),
]
Servers = Annotated[int, typer.Option(metavar="N", min=1, help="Machines like this one.")]
Price = Annotated[
    float | None, typer.Option(metavar="P", min=0.0, help="What a machine costs an hour.")
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it, as SVG or PNG.")]


def capacity(  # noqa: PLR0913 - one parameter for each option
    *,
    dataset: DatasetFolder,
    run: Run = None,
    model: Model = None,
    config: Config = None,
    depth: Depth = None,
    requests: Requests = 50,
    p95_ms: P95 = None,
    servers: Servers = 1,
    price: Price = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Time requests one by one, then simulate how they queue as more come at random.

    For example:

        rerank-plugins capacity --dataset scifact --depth 40 --p95-ms 500

        rerank-plugins capacity --dataset scifact --servers 4 --price 0.09 --plot capacity.svg
    """
    topics = datasets.subset(datasets.read(dataset, run=run), depth=depth).topics
    with console.progress("timing", requests) as advance, open_one(model, config) as reranker:
        times = queueing.service_times(reranker, topics, requests, progress=advance)
    found = queueing.simulate(
        times, servers=servers, p95_s=None if p95_ms is None else p95_ms / 1e3
    )
    if plot is not None:
        _draw(found, plot)
    if as_json:
        console.print_json(found)
        return
    console.stdout().print(_table(found))
    console.stdout().print(_verdict(found, price))


def _table(found: Capacity) -> Table:
    title = f"{found.servers} x this machine, at most {found.limit_per_s:.2f} requests/s"
    table = Table(title=title)
    for name in ("load", "requests/s", *cells.PERCENTILES):
        table.add_column(name, justify="right")
    for point in found.points:
        latency = point.latency
        table.add_row(
            f"{point.load:.0%}",
            f"{point.per_s:.2f}",
            *(f"{wait * 1e3:,.0f}" for wait in (latency.p50_s, latency.p95_s, latency.p99_s)),
            style="bold" if point == found.chosen else None,
        )
    return table


def _verdict(found: Capacity, price: float | None) -> str:
    if found.chosen is None:
        return (
            f"No load keeps that: alone a request takes {found.service.p95_s * 1e3:,.0f} ms (p95). "
            "Score fewer candidates, set a budget, or calibrate exits."
        )
    chosen = found.chosen
    kept = f"{chosen.per_s:.2f} requests/s keep p95 at {chosen.latency.p95_s * 1e3:,.0f} ms"
    cost = None if price is None else found.cost_per_million(price)
    return kept + ("." if cost is None else f", a million requests cost {cost:,.0f}.")


def _draw(found: Capacity, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates = [point.per_s for point in found.points]
    for name in ("p50", "p95", "p99"):
        waits_ms = [1e3 * getattr(point.latency, f"{name}_s") for point in found.points]
        axes.plot(rates, waits_ms, marker=".", label=name)
    axes.axvline(found.limit_per_s, color="tab:red", linewidth=0.8, label="limit")
    axes.set_yscale("log")
    axes.set_xlabel("requests a second, at random times")
    axes.set_ylabel("milliseconds from arrival to answer")
    axes.legend(fontsize=8)
    figure.savefig(path)
