"""`rerank-plugins eval`: quality and cost on a labelled set, before and after."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..evaluation import Comparison, System, compare, datasets, measures
from ..evaluation.datasets import Dataset
from . import console
from .options import DatasetFolder, Depth, Json, Run, Sample, Seed, open_several, split


def evaluate(  # noqa: PLR0913 - one parameter for each option
    *,
    dataset: DatasetFolder,
    run: Run = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", metavar="F", help="Judgements from another place.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="M", help="A model; repeat it to compare."),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", metavar="C", help="A settings file; repeat it to compare."),
    ] = None,
    measure_names: Annotated[
        str, typer.Option("--measures", help="Measures as ir-measures writes them, by comma.")
    ] = ",".join(measures.DEFAULT),
    sample: Sample = None,
    seed: Seed = 0,
    depth: Depth = None,
    as_json: Json = False,
) -> None:
    """Rerank a run and print its measures before and after, with intervals, and its cost.

    Differences to the first stage carry a paired bootstrap 95 % interval over queries: where it
    holds 0, the data does not tell the two apart.

    For example:

        rerank-plugins eval --dataset scifact --run scifact/candidates/bm25_top100.trec

        rerank-plugins eval --dataset scifact --sample 50 -m embedded -m lexical --json
    """
    names = measures.check(split(measure_names))
    chosen = _choose(datasets.read(dataset, run=run, qrels=qrels), sample, seed, depth)
    rerankers = open_several(model or [], config or [])
    total = len(chosen.topics) * len(rerankers)
    with console.progress(f"reranking {chosen.name}", total) as advance:
        found = compare(chosen, rerankers, measures=names, seed=seed, progress=advance)
    if as_json:
        console.print_json(found)
    else:
        console.stdout().print(_table(found))


def _choose(dataset: Dataset, sample: int | None, seed: int, depth: int | None) -> Dataset:
    dataset = dataset.judged
    if sample is not None:
        dataset = datasets.sample(dataset, sample, seed=seed)
    return dataset if depth is None else datasets.shorten(dataset, depth)


def _table(found: Comparison) -> Table:
    title = f"{found.dataset}: {found.queries:,} queries, {found.candidates:,} candidates"
    table = Table(title=title, caption="[...]: 95 % interval of the difference to the first stage")
    table.add_column("")
    for name in (*found.measures, "p50 ms", "p95 ms", "p99 ms", "pairs/s", "truncated"):
        table.add_column(name, justify="right")
    for system in found.systems:
        table.add_row(system.name, *_quality(found, system), *_cost(system))
    return table


def _quality(found: Comparison, system: System) -> list[str]:
    cells = []
    for name in found.measures:
        cell, difference = f"{system.means[name]:.3f}", system.differences.get(name)
        if difference is not None:
            cell += f"\n{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        cells.append(cell.replace("[", r"\["))
    return cells


def _cost(system: System) -> list[str]:
    cost = system.cost
    if cost is None or cost.latency is None:
        return ["-"] * 5
    latency = cost.latency
    percentiles = (latency.p50_s, latency.p95_s, latency.p99_s)
    return [
        *(f"{seconds * 1e3:.0f}" for seconds in percentiles),
        f"{cost.pairs_per_s:.0f}",
        f"{cost.truncated_share:.1%}",
    ]
