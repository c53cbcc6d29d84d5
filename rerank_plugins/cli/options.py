"""The options that commands share, and the rerankers they stand for."""

import re
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from opentelemetry.trace import TracerProvider

from ..errors import ConfigError
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
        "--dataset",
        metavar="DIR",
        help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/test.tsv), or one with "
        "rerank/*.jsonl lines {qid, query, candidates: [{docid, text, rank, score, rel}]}.",
    ),
]

Run: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="The first stage: a TREC run, or one of the rerank/*.jsonl files. May be left out "
        "where the folder holds one only.",
    ),
]

Sample: TypeAlias = Annotated[
    int | None,
    typer.Option("--sample", metavar="N", min=1, help="Only N queries, drawn at random."),
]

Seed: TypeAlias = Annotated[int, typer.Option("--seed", help="Fixes the draw and the bootstrap.")]

Depth: TypeAlias = Annotated[
    int | None,
    typer.Option("--depth", metavar="K", min=1, help="Only each query's first K candidates."),
]


def open_one(
    model: str | None, config: Path | None, *, tracer_provider: TracerProvider | None = None
) -> Reranker:
    """Open the reranker that one command works with. Raises `ConfigError`, `ModelError`."""
    one_of(model, config)
    if config is not None:
        return load(config, tracer_provider=tracer_provider)
    return Reranker(model or EMBEDDED, tracer_provider=tracer_provider)


def one_of(model: str | None, config: Path | None) -> None:
    """Refuse a model beside a file of settings. Raises `ConfigError`."""
    if model is not None and config is not None:
        message = "both --model and --config were given; the file names its models: give one"
        raise ConfigError(message)


def open_several(models: list[str], configs: list[Path]) -> dict[str, Reranker]:
    """Open rerankers to compare, by the name of their model or file."""
    sources = models + [str(path) for path in configs]
    double = {name for name in sources if sources.count(name) > 1}
    if double:
        message = f"{min(double)!r} was given twice; name each configuration once"
        raise ConfigError(message)
    opened = {name: Reranker(name) for name in models}
    opened |= {path.stem: load(path) for path in configs}
    return opened or {EMBEDDED: Reranker()}


def whole_numbers(listed: str | None) -> list[int] | None:
    """Read numbers between commas, None for None. Raises `ConfigError`.

    >>> whole_numbers("2, 4")
    [2, 4]
    """
    if listed is None:
        return None
    parts = [one.strip() for one in listed.split(",")]
    if not all(one.isdigit() for one in parts):
        message = f"{listed[:40]!r} is no list; expected whole numbers such as 2,4"
        raise ConfigError(message)
    return sorted({int(one) for one in parts})


def split(measures: str) -> list[str]:
    """Split at the commas between measures, not those in their parameters.

    >>> split("nDCG@10, AP(rel=2,judged_only=True)")
    ['nDCG@10', 'AP(rel=2,judged_only=True)']
    """
    return [one.strip() for one in re.split(r",(?![^()]*\))", measures) if one.strip()]
