"""The options that commands share, and the datasets and rerankers that they name."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from opentelemetry.trace import TracerProvider

from ..errors import ConfigError
from ..evaluation import Dataset, read
from ..reranker import Reranker, load
from ..scoring.models.files import EMBEDDED

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="M",
        help='"embedded" (the default), "lexical", a hub id, a folder, or an .onnx file.',
        show_default=False,
    ),
]

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="C", help="A TOML or JSON file of settings instead."),
]

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

DatasetFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), or one with "
        "rerank/*.jsonl lines {qid, query, candidates: [{docid, text, rank, score, rel}]}.",
    ),
]

Run: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="The first stage: a TREC run, or one of the rerank/*.jsonl files. May be left out "
        "where the folder holds one only.",
    ),
]

Runs: TypeAlias = Annotated[
    list[Path] | None, typer.Option(metavar="RUN", help="The first stage of each --dataset.")
]

Sample: TypeAlias = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Only N queries, drawn at random.")
]

Seed: TypeAlias = Annotated[int, typer.Option(help="Fixes the draw and the bootstrap.")]

Depth: TypeAlias = Annotated[
    int | None, typer.Option(metavar="K", min=1, help="Only each query's first K candidates.")
]


def read_all(folders: Sequence[Path], runs: Sequence[Path]) -> list[Dataset]:
    """Read datasets, the first of them with the runs. Raises `InvalidRequest`."""
    pairs = zip_longest(folders, runs[: len(folders)])
    return [read(folder, run=run) for folder, run in pairs]


def open_one(
    model: str | None, config: Path | None, *, tracer_provider: TracerProvider | None = None
) -> Reranker:
    """Open the reranker of a command. Raises `ConfigError`, `ModelError`."""
    one_of(model, config)
    if config is not None:
        return load(config, tracer_provider=tracer_provider)
    return Reranker(model or EMBEDDED, tracer_provider=tracer_provider)


def one_of(model: str | None, config: Path | None) -> None:
    """Refuse a model together with a settings file. Raises `ConfigError`."""
    if model is not None and config is not None:
        raise ConfigError(
            "both --model and --config were given; the file names its models: give one"
        )


def open_several(models: list[str], configs: list[Path]) -> dict[str, Reranker]:
    """Open rerankers to compare, keyed by model or by file name. Raises `ConfigError`."""
    sources = models + [str(path) for path in configs]
    double = {name for name in sources if sources.count(name) > 1}
    if double:
        raise ConfigError(f"{min(double)!r} was given twice; name each configuration once")
    opened = {name: Reranker(name) for name in models}
    opened |= {path.stem: load(path) for path in configs}
    return opened or {EMBEDDED: Reranker()}


def whole_numbers(listed: str | None) -> list[int] | None:
    """Read whole numbers between commas; None for None. Raises `ConfigError`.

    >>> whole_numbers("2, 4")
    [2, 4]
    """
    if listed is None:
        return None
    parts = [part.strip() for part in listed.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"{listed[:40]!r} is no list; expected whole numbers such as 2,4")
    return sorted({int(part) for part in parts})


def split(measures: str) -> list[str]:
    """Split at the commas between measures, not those in their parameters.

    >>> split("nDCG@10, AP(rel=2,judged_only=True)")
    ['nDCG@10', 'AP(rel=2,judged_only=True)']
    """
    return [part.strip() for part in re.split(r",(?![^()]*\))", measures) if part.strip()]
