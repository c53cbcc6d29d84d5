"""`rerank-plugins calibrate`: exits of a model, fitted and certified without labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from ..adaptive.exits import (
    MEASURED,
    Calibrated,
    Gain,
    Plan,
    Question,
    calibrate,
    draw,
    gain,
    with_short_plans,
)
from ..config import build
from ..errors import ConfigError
from ..evaluation import datasets, loader, retrieval
from ..evaluation.datasets import Dataset, Topic
from ..scoring.exits import calibration_file, segmented_model
from ..scoring.exits.calibration_file import Limits
from ..scoring.exits.scorer import segment_costs
from ..scoring.exits.segmented_model import Trunk
from ..scoring.models.files import EMBEDDED, find
from ..scoring.onnx.options import OnnxOptions
from ..scoring.text.pairs import MIN_WINDOW_TOKENS
from . import console
from .options import Json, Sample, Seed, whole_numbers


def calibrate_exits(  # noqa: PLR0913 - one parameter for each option
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the exits are written.")],
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="Queries with candidates, as for eval; judgements are not read. Repeat it.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="Queries alone, one a line or JSON lines with text; BM25 finds their candidates.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", metavar="FILE", help="The passages that --queries search."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", metavar="RUN", help="The first stage of each --dataset."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="M", help="The model to give exits to.")
    ] = EMBEDDED,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="L,L", help="Layers to stop after; 0 compares embeddings only."
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0.0, max=1.0, help="The loss that is allowed.")
    ] = 0.01,
    method: Annotated[
        Literal["ucb", "crc", "ltt"], typer.Option("--method", help="How it is certified.")
    ] = "ucb",
    delta: Annotated[float, typer.Option("--delta", help="Chance that it fails (ucb, ltt).")] = 0.1,
    loss: Annotated[
        Literal["regret", "top-k miss"], typer.Option("--loss", help="What is bounded.")
    ] = "regret",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Over how much of the head.")] = 10,
    depth: Annotated[int, typer.Option("--depth", min=2, help="Candidates per query.")] = 100,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Tokens a pair, as it will be run.")
    ] = None,
    short_tokens: Annotated[
        str | None,
        typer.Option(
            "--short-tokens",
            metavar="N,N",
            help="Lengths that a budget may cut pairs to; what that loses is measured for each.",
        ),
    ] = None,
    sample: Sample = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit exits on a model's own scores and certify what they lose; no labels are needed.

    Half of the queries fit the heads, the other half certifies the loss. DIR then holds the exits,
    and a plot of what was gained beside fixed depths and fixed layers. For example:

        rerank-plugins calibrate --dataset scifact --out exits --alpha 0.01

        rerank-plugins calibrate --queries asked.txt --corpus passages.jsonl --out exits
    """
    files = find(model)
    collections = _collections(dataset or [], run or [], queries, corpus, depth)
    made = Trunk(
        files,
        segmented_model.heads_at(files, whole_numbers(layers)),
        OnnxOptions(max_tokens=max_tokens),
    )
    costs = segment_costs(made)
    weight = build.card_prior_weight(files.card)
    asked = _questions(collections, depth=depth, sample=sample, seed=seed)
    how = Plan(top_k, loss, alpha, weight, build.card_calibration(files.card), seed)
    short = _short(short_tokens, made)
    again = len(short) * min(MEASURED, len(asked) - len(asked) // 2)
    with console.progress("scoring in full", len(asked) + again) as advance:
        done = calibrate(made, asked, how, costs=costs, progress=advance)
        if short:
            done = with_short_plans(made, asked, done, how, short, progress=advance)
    calibration_file.save(done.exits, out)
    limits: Limits | None = None
    note = ""
    try:
        limits, choice = done.exits.choose(alpha, method=method, delta=delta)
        note = f"{loss} <= {choice.bound:.4f} certified by {method} on {choice.queries} queries"
        mass, choice = done.exits.choose_mass(alpha, method=method, delta=delta)
        note += f"; by itself, so is a depth of mass {mass:g}: {loss} <= {choice.bound:.4f}"
    except ConfigError as error:
        note = f"{note}; {error}".lstrip("; ")
    gained = gain(done, costs, how, limits=limits)
    data = ", ".join(found.name for found in collections)
    title = f"{files.name}: {len(done.cases)} held-out queries of {data}"
    plot = _draw(gained, out / "gain.svg", how, title)
    if as_json:
        console.print_json({"gain": gained, "facts": done.exits.facts, "note": note})
        return
    console.stdout().print(_table(done, gained, how))
    console.stdout().print(note)
    written = f"exits.json, exits.npz{' and gain.svg' if plot else ''} are in {out}"
    console.stdout().print(f'{written}; use them with: exits = "{out}"', markup=False)


def _short(given: str | None, made: Trunk) -> list[int]:
    """Read the lengths that pairs may be cut to. Raises `ConfigError`."""
    lengths = whole_numbers(given) or []
    if any(not MIN_WINDOW_TOKENS <= one < made.max_tokens for one in lengths):
        message = (
            f"short tokens are {lengths}; expected at least {MIN_WINDOW_TOKENS} and fewer than the "
            f"{made.max_tokens} of a pair"
        )
        raise ConfigError(message)
    return lengths


def _collections(
    folders: Sequence[Path],
    runs: Sequence[Path],
    queries: Path | None,
    corpus: Path | None,
    depth: int,
) -> list[Dataset]:
    """Read datasets that have candidates, and search a corpus for queries that have none."""
    if (queries is None) != (corpus is None) or not (folders or queries):
        message = (
            "nothing to calibrate on: give --dataset DIR, or --queries FILE and --corpus FILE "
            "together"
        )
        raise ConfigError(message)
    found = [
        loader.read(folder, run=runs[place] if place < len(runs) else None)
        for place, folder in enumerate(folders)
    ]
    if queries is not None and corpus is not None:
        with console.progress("searching", retrieval.count(queries)) as advance:
            found.append(retrieval.retrieve(queries, corpus, depth=depth, progress=advance))
    return found


def _questions(
    collections: Sequence[Dataset], *, depth: int, sample: int | None, seed: int
) -> list[Question]:
    asked: list[Question] = []
    for found in collections:
        chosen = found if sample is None else datasets.sample(found, sample, seed=seed)
        asked += [_question(topic) for topic in datasets.shorten(chosen, depth).topics]
    return [question for question in asked if question.passages]


def _question(topic: Topic) -> Question:
    distinct = {one.text: one.prior for one in reversed(topic.candidates) if one.text}
    texts = [text for text in distinct if text.strip()][::-1]
    priors = [distinct[text] for text in texts]
    known = [one for one in priors if one is not None]
    return Question(topic.query, tuple(texts), tuple(known) if len(known) == len(texts) else None)


def _draw(gained: Gain, path: Path, how: Plan, title: str) -> bool:
    try:
        draw(gained, path, loss=how.loss, alpha=how.alpha, title=title)
    except ImportError:
        return False
    return True


def _table(done: Calibrated, gained: Gain, how: Plan) -> Table:
    table = Table(title=f"{done.exits.facts['model']}: work saved, and what it loses")
    for name in ("way", "speedup", f"{how.loss} (held out)"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for one in done.fitted:
        where = f"exit after layer {one.head.layer}"
        table.add_row(f"{where}: rank correlation {one.correlation:.2f}", "", "")
    points = [*([gained.chosen] if gained.chosen else []), *gained.baselines]
    for point in points:
        name = point.label if point.kind == point.label else f"{point.kind} {point.label}"
        table.add_row(name, f"{point.speedup:.2f}x", f"{point.loss:.4f}")
    return table
