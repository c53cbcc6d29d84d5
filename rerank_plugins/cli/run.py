"""`rerank-plugins run`: rerank a file of passages."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import text_files
from ..errors import InvalidRequest
from ..evaluation.input_files import Row, number_of, read_rows, rows_of
from ..records import Candidate, Result
from ..rules.residency import metadata_of
from . import console
from .options import Config, Json, Model, open_one
from .waterfall import waterfall

_SNIPPET = 100


def run(
    query: Annotated[str, typer.Option("--query", "-q", metavar="Q", help="What is asked.")],
    docs: Annotated[
        Path,
        typer.Option(
            "--docs",
            metavar="FILE",
            help="Passages, first-stage order: .txt with one a line; .jsonl, .ndjson, .json, .csv "
            "or .tsv with text and maybe prior; - for lines, or JSON lines, of standard input.",
            allow_dash=True,
        ),
    ],
    *,
    model: Model = None,
    config: Config = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="N", help="Print the best N only.")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option("--budget-ms", metavar="T", help="Milliseconds to answer in.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw where the time went, step by step.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rerank the passages of a file and print the new order.

    For example:

        rerank-plugins run -q "how long do cats sleep" --docs passages.txt --top-k 5

        grep -i sleep notes.txt | rerank-plugins run -q "how long do cats sleep" --docs - --json
    """
    candidates = _candidates(docs)
    with console.waiting(console.stderr()) as now:
        now("loading the model")
        reranker = open_one(model, config)
        reranker.warm_up()
        now(f"scoring {len(candidates):,} passages")
        result = reranker.rerank(query, candidates, top_k=top_k, budget_ms=budget_ms)
    if as_json:
        console.print_json(result)
        return
    screen = console.stdout()
    screen.print(_hits(result, candidates))
    if explain:
        screen.print(waterfall(result))
    screen.print(_story(result))


def _candidates(docs: Path) -> list[Candidate]:
    if str(docs) != "-":
        return [_candidate(row, f"{docs}:{number}") for number, row in read_rows(docs)]
    name = "standard input"
    # Its encoding would be the terminal's, which need not be that of a file or a pipe.
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding=text_files.ENCODING)
    try:
        rows = list(rows_of(name, text_files.numbered(lines)))
    except UnicodeError as error:
        raise InvalidRequest(f"{name} cannot be read: {error}; expected text in UTF-8") from error
    return [_candidate(row, f"{name}:{number}") for number, row in rows]


def _candidate(row: Row, place: str) -> Candidate:
    key = next((key for key in ("text", "passage") if key in row), None)
    if key is None:
        found = ", ".join(sorted(row))
        raise InvalidRequest(f"{place} has the keys {found}; expected text, and maybe prior")
    text = row[key]
    if not isinstance(text, str | None):
        raise InvalidRequest(f"{place}: {key} is no string; expected {{text, prior, metadata}}")
    prior = "prior" if "prior" in row else "score"
    return Candidate(text, prior=number_of(row.get(prior), place, prior), metadata=metadata_of(row))


def _hits(result: Result, candidates: list[Candidate]) -> Table:
    table = Table(title=f"reranked by {escape(result.model)}")
    for name in ("rank", "was", "score", "probability"):
        table.add_column(name, justify="right")
    table.add_column("passage", overflow="fold")
    for place, hit in enumerate(result, start=1):
        text = " ".join((candidates[hit.index].text or "").split())
        table.add_row(
            str(place),
            str(hit.index + 1),
            "-" if hit.score is None else f"{hit.score:.3f}",
            "-" if hit.probability is None else f"{hit.probability:.3f}",
            escape(text[:_SNIPPET] + ("…" if len(text) > _SNIPPET else "")),
        )
    return table


def _story(result: Result) -> str:
    timings = ", ".join(f"{timing.step} {timing.seconds * 1e3:.1f} ms" for timing in result.timings)
    usage = result.usage
    lines = [
        f"{usage.pairs} pairs, {usage.tokens} tokens in {usage.batches} batches; {timings}",
        *(
            f"{decision.step}: {decision.code.code} {decision.count} {decision.detail}"
            for decision in result.decisions
        ),
    ]
    return escape("\n".join(line.rstrip() for line in lines))
