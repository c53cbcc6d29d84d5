"""`rerank-plugins run`: rerank a file of passages."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import InvalidRequest
from ..evaluation.datasets import read_jsonl
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
            help="Passages, first-stage order: .txt with one a line, .jsonl with {text, prior}, "
            "or - for lines of standard input.",
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
    reranker = open_one(model, config)
    reranker.warm_up()
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
    if str(docs) == "-":
        return _from_lines(sys.stdin)
    if docs.suffix == ".jsonl":
        return [_from_json(docs, number, line) for number, line in read_jsonl(docs)]
    try:
        return _from_lines(docs.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{docs} cannot be read: {error}; expected a text file in UTF-8"
        ) from error


def _from_lines(lines: Iterable[str]) -> list[Candidate]:
    return [Candidate(line.strip()) for line in lines if line.strip()]


def _from_json(path: Path, number: int, line: object) -> Candidate:
    if not isinstance(line, dict) or not isinstance(line.get("text"), str | None):
        raise InvalidRequest(
            f"{path}:{number}: text is no string; expected {{text, prior, metadata}}"
        )
    if "text" not in line:
        raise InvalidRequest(
            f"{path}:{number} has the keys {sorted(line)}; expected text, and maybe prior"
        )
    prior = line.get("prior", line.get("score"))
    return Candidate(
        line["text"],
        prior=float(prior) if isinstance(prior, int | float) else None,
        metadata=metadata_of(line),
    )


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
