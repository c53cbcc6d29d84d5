"""`rerank-plugins eval`: quality and cost on labelled sets, before and after."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidRequest
from ..evaluation import Comparison, adjust, compare, comparison, datasets, measures, report
from ..evaluation.comparison import FIRST_STAGE, require_judged, without_texts
from ..evaluation.datasets import Dataset
from ..evaluation.label_free import compare_label_free, write_pool
from ..evaluation.rankings import first_stage, rerank_all
from ..reranker import Reranker
from . import console, tables
from .options import Depth, Json, Sample, Seed, open_several, split

_POOL_DEPTH = 10
_MEASURES = ",".join(measures.DEFAULT)


DatasetOption = Annotated[
    list[Path],
    typer.Option(
        metavar="DIR",
        help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), one with "
        "rerank/*.jsonl lines {qid, query, candidates: [{docid, text, rank, score, rel}]}, or "
        "a .csv or .jsonl table of query, passage, label; repeat it for several.",
    ),
]
RunOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN",
        help="The first stage: a TREC run, or one of the rerank/*.jsonl files; one for each "
        "--dataset, or none where each folder holds one only.",
    ),
]
Qrels = Annotated[Path | None, typer.Option(metavar="F", help="Judgements from another place.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="M", help="A model; repeat it to compare."),
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="C", help="A settings file; repeat it to compare."),
]
Measures = Annotated[
    str, typer.Option("--measures", help="Measures as ir-measures writes them, by comma.")
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a report: .html, .md or .json; repeat it for several.",
    ),
]
Texts = Annotated[
    bool,
    typer.Option(
        "--texts/--no-texts", help="Whether report and JSON may hold queries and passages."
    ),
]
FailBelow = Annotated[
    str | None, typer.Option(metavar="M=V", help="Exit 1 where a mean is below, as in nDCG@10=0.6.")
]
NoWorseThan = Annotated[
    float | None,
    typer.Option(
        metavar="D",
        min=0.0,
        help="Exit 1 unless the intervals exclude a loss of more than D to the first stage.",
    ),
]
LabelFree = Annotated[
    bool, typer.Option("--label-free", help="Use no labels: agreement, regret, phantom hits.")
]
LabelSample = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Write the pooled first ten of all systems as a table to label; --qrels reads it.",
    ),
]


def evaluate(  # noqa: PLR0913 - one parameter for each option
    *,
    dataset: DatasetOption,
    run: RunOption = None,
    qrels: Qrels = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    measure_names: Measures = _MEASURES,
    sample: Sample = None,
    seed: Seed = 0,
    depth: Depth = None,
    report_file: Reports = None,
    texts: Texts = True,
    fail_below: FailBelow = None,
    no_worse_than: NoWorseThan = None,
    label_free: LabelFree = False,
    label_sample: LabelSample = None,
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
    whole = _read(dataset, run or [], qrels, judged=not (label_free or label_sample))
    chosen = [datasets.subset(found, n=sample, seed=seed, depth=depth) for found in whole]
    rerankers = open_several(model or [], config or [])
    if label_sample is not None:
        _write_pool(chosen, rerankers, label_sample, seed)
    elif label_free:
        _show_label_free(chosen, rerankers, seed, as_json=as_json)
    else:
        compared = _compare(chosen, rerankers, names, seed)
        _show(compared if texts else without_texts(compared), report_file or [], as_json=as_json)
        _judge(compared, floors, no_worse_than)


def _read(
    folders: Sequence[Path], runs: Sequence[Path], qrels: Path | None, *, judged: bool
) -> Iterator[Dataset]:
    """Yield every dataset with its run; only its judged topics if `judged`."""
    if runs and len(runs) != len(folders):
        raise InvalidRequest(
            f"{len(folders)} --dataset but {len(runs)} --run were given; "
            "expected one run for each, in the same order, or none"
        )
    for folder, run in zip_longest(folders, runs):
        found = datasets.read(folder, run=run, qrels=qrels)
        yield require_judged(found) if judged else found


def _compare(
    chosen: Sequence[Dataset], rerankers: Mapping[str, Reranker], names: Sequence[str], seed: int
) -> tuple[Comparison, ...]:
    found = []
    for dataset in chosen:
        with console.progress(dataset.name, len(dataset.topics) * len(rerankers)) as advance:
            found.append(compare(dataset, rerankers, measures=names, seed=seed, progress=advance))
    return adjust(found)


def _write_pool(
    chosen: Sequence[Dataset], rerankers: Mapping[str, Reranker], path: Path, seed: int
) -> None:
    """Write a table to label of what the first stage and the rerankers have on top."""
    if len(chosen) != 1:
        raise InvalidRequest(
            f"{len(chosen)} datasets were given; --label-sample pools one at a time"
        )
    (dataset,) = chosen
    rankings = [first_stage(dataset, FIRST_STAGE)]
    with console.progress(dataset.name, len(dataset.topics) * len(rerankers)) as advance:
        rankings += [
            rerank_all(name, reranker, dataset, progress=advance)
            for name, reranker in rerankers.items()
        ]
    rows = write_pool(rankings, path, depth=_POOL_DEPTH, seed=seed)
    sys.stderr.write(
        f"{rows} passages of {len(dataset.topics)} queries in {path}: fill in the column label (0 "
        f"for not relevant, more for relevant), then give the file as --qrels\n"
    )


def _show_label_free(
    chosen: Sequence[Dataset], rerankers: Mapping[str, Reranker], seed: int, *, as_json: bool
) -> None:
    found = []
    for dataset in chosen:
        with console.progress(dataset.name, 2 * len(dataset.topics) * len(rerankers)) as advance:
            found.append(compare_label_free(dataset, rerankers, seed=seed, progress=advance))
    if as_json:
        console.print_json({"label_free": found})
    else:
        screen = console.stdout()
        for compared in found:
            screen.print(tables.label_free(compared))


def _floors(text: str | None) -> dict[str, float]:
    floors = {}
    for part in split(text or ""):
        name, _, value = part.rpartition("=")
        try:
            floors[measures.check([name])[0]] = float(value)
        except ValueError as error:
            raise InvalidRequest(
                f"--fail-below reads {part[:40]!r}; expected MEASURE=VALUE, as nDCG@10=0.6"
            ) from error
    return floors


def _show(comparisons: Sequence[Comparison], reports: Sequence[Path], *, as_json: bool) -> None:
    for place in reports:
        report.write(comparisons, place)
    if as_json:
        console.print_json({"comparisons": comparisons})
        return
    screen = console.stdout()
    for compared in comparisons:
        for part in tables.comparison(compared):
            screen.print(part)


def _judge(
    comparisons: Sequence[Comparison], floors: dict[str, float], margin: float | None
) -> None:
    """Write to stderr which gates failed, and exit 1 if any did."""
    failed = comparison.below(comparisons, floors)
    if margin is not None:
        failed += comparison.possible_losses(comparisons, margin)
    if failed:
        sys.stderr.write("".join(f"failed: {gate}\n" for gate in failed))
        raise typer.Exit(1)
