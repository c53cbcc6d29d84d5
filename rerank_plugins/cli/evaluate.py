"""`rerank-plugins eval`: quality and cost on labelled sets, before and after."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidRequest
from ..evaluation import (
    Comparison,
    adjust,
    compare,
    datasets,
    gates,
    labels,
    loader,
    measures,
    report,
)
from ..evaluation.comparison import FIRST_STAGE, require_judged, without_texts
from ..evaluation.datasets import Dataset
from ..evaluation.label_free import observe
from ..evaluation.runs import collect, first_stage
from ..reranker import Reranker
from . import console, tables
from .options import Depth, Json, Sample, Seed, open_several, split

_POOL_DEPTH = 10


def evaluate(  # noqa: PLR0913 - one parameter for each option
    *,
    dataset: Annotated[
        list[Path],
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), one with "
            "rerank/*.jsonl lines {qid, query, candidates: [{docid, text, rank, score, rel}]}, or "
            "a .csv or .jsonl table of query, passage, label; repeat it for several.",
        ),
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="The first stage: a TREC run, or one of the rerank/*.jsonl files; one for each "
            "--dataset, or none where each folder holds one only.",
        ),
    ] = None,
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
    report_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write a report: .html, .md or .json; repeat it for several.",
        ),
    ] = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts", help="Whether report and JSON may hold queries and passages."
        ),
    ] = True,
    fail_below: Annotated[
        str | None,
        typer.Option(
            "--fail-below", metavar="M=V", help="Exit 1 where a mean is below, as in nDCG@10=0.6."
        ),
    ] = None,
    no_worse_than: Annotated[
        float | None,
        typer.Option(
            "--no-worse-than",
            metavar="D",
            min=0.0,
            help="Exit 1 unless the intervals exclude a loss of more than D to the first stage.",
        ),
    ] = None,
    label_free: Annotated[
        bool,
        typer.Option("--label-free", help="Use no labels: agreement, regret, phantom hits."),
    ] = False,
    label_sample: Annotated[
        Path | None,
        typer.Option(
            "--label-sample",
            metavar="CSV",
            help="Write the pooled first ten of all systems as a table to label; --qrels reads it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rerank runs and print their measures before and after, with intervals, and the cost.

    Differences to the first stage carry a paired bootstrap 95 % interval over queries (where it
    holds 0, the data does not tell the two apart), wins/ties/losses, and the p-value of a
    permutation test, adjusted over all sets and models (Holm).

    For example:

        rerank-plugins eval --dataset scifact --run scifact/candidates/bm25_top100.trec

        rerank-plugins eval --dataset a --dataset b -m embedded -m lexical --report report.html

        rerank-plugins eval --dataset a --sample 50 --fail-below nDCG@10=0.6 --no-worse-than 0.01

        rerank-plugins eval --dataset logs --sample 40 --label-sample to-label.csv
    """
    floors = _floors(fail_below)
    names = tuple(dict.fromkeys(measures.check([*split(measure_names), *floors])))
    for place in report_file or []:
        report.check(place)
    unlabelled = label_free or label_sample is not None
    chosen = [
        _choose(
            loader.read(place, run=its_run, qrels=qrels), sample, seed, depth, unjudged=unlabelled
        )
        for place, its_run in zip(dataset, _runs(dataset, run or []), strict=True)
    ]
    rerankers = open_several(model or [], config or [])
    if label_sample is not None:
        _pool(chosen, rerankers, label_sample, seed)
        return
    if label_free:
        _observe(chosen, rerankers, seed, as_json=as_json)
        return
    found: list[Comparison] = []
    for one in chosen:
        with console.progress(one.name, len(one.topics) * len(rerankers)) as advance:
            found.append(compare(one, rerankers, measures=names, seed=seed, progress=advance))
    comparisons = adjust(found) if texts else without_texts(adjust(found))
    for place in report_file or []:
        report.write(comparisons, place)
    _show(comparisons, as_json=as_json)
    _judge(comparisons, floors, no_worse_than)


def _runs(folders: Sequence[Path], runs: Sequence[Path]) -> list[Path | None]:
    if runs and len(runs) != len(folders):
        message = (
            f"{len(folders)} --dataset but {len(runs)} --run were given; "
            "expected one run for each, in the same order, or none"
        )
        raise InvalidRequest(message)
    return list(runs) or [None] * len(folders)


def _choose(
    dataset: Dataset, sample: int | None, seed: int, depth: int | None, *, unjudged: bool
) -> Dataset:
    if not unjudged:
        dataset = require_judged(dataset)
    if sample is not None:
        dataset = datasets.sample(dataset, sample, seed=seed)
    return dataset if depth is None else datasets.shorten(dataset, depth)


def _pool(
    chosen: Sequence[Dataset], rerankers: Mapping[str, Reranker], path: Path, seed: int
) -> None:
    """Write the table to label; the first stage is pooled too."""
    if len(chosen) != 1:
        message = f"{len(chosen)} datasets were given; --label-sample pools one at a time"
        raise InvalidRequest(message)
    (dataset,) = chosen
    rankings = [first_stage(dataset, FIRST_STAGE)]
    with console.progress(dataset.name, len(dataset.topics) * len(rerankers)) as advance:
        rankings += [
            collect(name, one, dataset, progress=advance) for name, one in rerankers.items()
        ]
    rows = labels.write_pool(rankings, path, depth=_POOL_DEPTH, seed=seed)
    sys.stderr.write(
        f"{rows} passages of {len(dataset.topics)} queries in {path}: fill in the column label (0 "
        f"for not relevant, more for relevant), then give the file as --qrels\n"
    )


def _observe(
    chosen: Sequence[Dataset], rerankers: Mapping[str, Reranker], seed: int, *, as_json: bool
) -> None:
    found = []
    for one in chosen:
        with console.progress(one.name, 2 * len(one.topics) * len(rerankers)) as advance:
            found.append(observe(one, rerankers, seed=seed, progress=advance))
    if as_json:
        console.print_json({"label_free": found})
    else:
        screen = console.stdout()
        for one_set in found:
            screen.print(tables.unlabelled(one_set))


def _floors(text: str | None) -> dict[str, float]:
    floors = {}
    for part in split(text or ""):
        name, _, value = part.rpartition("=")
        try:
            floors[measures.check([name])[0]] = float(value)
        except ValueError as error:
            message = f"--fail-below reads {part[:40]!r}; expected MEASURE=VALUE, as nDCG@10=0.6"
            raise InvalidRequest(message) from error
    return floors


def _show(comparisons: Sequence[Comparison], *, as_json: bool) -> None:
    if as_json:
        console.print_json({"comparisons": comparisons})
        return
    screen = console.stdout()
    for comparison in comparisons:
        for part in tables.comparison(comparison):
            screen.print(part)


def _judge(
    comparisons: Sequence[Comparison], floors: dict[str, float], margin: float | None
) -> None:
    """Say which gates failed, on stderr, and exit 1 if one did."""
    failed = gates.below(comparisons, floors)
    if margin is not None:
        failed += gates.worse(comparisons, margin)
    if failed:
        sys.stderr.write("".join(f"failed: {one}\n" for one in failed))
        raise typer.Exit(1)
