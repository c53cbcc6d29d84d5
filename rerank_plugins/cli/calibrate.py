"""`rerank-plugins calibrate`: exits of a model, fitted and certified without labels."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..adaptive.exit_audit import ExitLoss
from ..adaptive.exits.calibrate import Calibrated, CalibrationOptions, calibrate
from ..adaptive.exits.collect import Question
from ..adaptive.exits.tradeoff import Gain, draw, gain
from ..adaptive.exits.truncated_plans import MEASURED, with_short_plans
from ..config import build
from ..errors import ConfigError
from ..evaluation import datasets, retrieval
from ..evaluation.datasets import Dataset, Topic
from ..rules.risk_control import Method
from ..scoring.exits import calibration_file, segmented_model
from ..scoring.exits.calibration_file import Exits, Limits
from ..scoring.exits.scorer import segment_costs
from ..scoring.exits.segmented_model import SegmentedModel
from ..scoring.models.files import EMBEDDED, find
from ..scoring.onnx.options import OnnxOptions
from ..scoring.text.pairs import MIN_WINDOW_TOKENS
from . import console
from .options import Json, Runs, Sample, Seed, read_all, whole_numbers

OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Where the exits are written.")]
DatasetOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Queries with candidates, as for eval; judgements are not read. Repeat it.",
    ),
]
QueriesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Queries alone, one a line or JSON lines with text; BM25 finds their candidates.",
    ),
]
CorpusOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The passages that --queries search.")
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="M", help="The model to give exits to.")
]
LayersOption = Annotated[
    str | None,
    typer.Option(metavar="L,L", help="Layers to stop after; 0 compares embeddings only."),
]
AlphaOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="The loss that is allowed.")]
MethodOption = Annotated[Method, typer.Option(help="How it is certified.")]
DeltaOption = Annotated[float, typer.Option(help="Chance that it fails (ucb, ltt).")]
LossOption = Annotated[ExitLoss, typer.Option(help="What is bounded.")]
TopKOption = Annotated[int, typer.Option(min=1, help="Over how much of the head.")]
DepthOption = Annotated[int, typer.Option(min=2, help="Candidates per query.")]
MaxTokensOption = Annotated[int | None, typer.Option(help="Tokens a pair, as it will be run.")]
ShortTokensOption = Annotated[
    str | None,
    typer.Option(
        metavar="N,N",
        help="Lengths that a budget may cut pairs to; what that loses is measured for each.",
    ),
]


def calibrate_exits(  # noqa: PLR0913 - one parameter for each option
    *,
    out: OutOption,
    dataset: DatasetOption = None,
    queries: QueriesOption = None,
    corpus: CorpusOption = None,
    run: Runs = None,
    model: ModelOption = EMBEDDED,
    layers: LayersOption = None,
    alpha: AlphaOption = 0.01,
    method: MethodOption = "ucb",
    delta: DeltaOption = 0.1,
    loss: LossOption = "regret",
    top_k: TopKOption = 10,
    depth: DepthOption = 100,
    max_tokens: MaxTokensOption = None,
    short_tokens: ShortTokensOption = None,
    sample: Sample = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit exits on a model's own scores and certify what they lose; no labels are needed.

    Half of the queries fit the heads, the other half certifies the loss. DIR then holds the exits,
    and a plot of what was gained beside fixed depths and fixed layers. It exits 1 where nothing
    keeps the loss within --alpha. For example:

        rerank-plugins calibrate --dataset scifact --out exits --alpha 0.01

        rerank-plugins calibrate --queries asked.txt --corpus passages.jsonl --out exits
    """
    files = find(model)
    collections = _collections(dataset or [], run or [], queries, corpus, depth)
    heads = segmented_model.heads_at(files, whole_numbers(layers))
    segmented = SegmentedModel(files, heads, OnnxOptions(max_tokens=max_tokens))
    weight, calibration = build.card_prior_weight(files.card), build.card_calibration(files.card)
    how = CalibrationOptions(top_k, loss, alpha, weight, calibration, seed)
    costs, short = segment_costs(segmented), _short(short_tokens, segmented)
    asked = _questions(collections, depth=depth, sample=sample, seed=seed)
    done = _fit(segmented, asked, how, costs, short)
    calibration_file.save(done.exits, out)
    limits, note = _certify(done.exits, how, method, delta)
    gained = gain(done, costs, how, limits=limits)
    written = _draw(gained, out, how, _title(files.name, done, collections))
    if as_json:
        console.print_json({"gain": gained, "facts": done.exits.facts, "note": note})
    else:
        console.stdout().print(_table(done, gained, how), escape(f"{note}\n{written}"), sep="\n")
    _judge(limits, f"nothing keeps {loss} within --alpha {alpha:g}: {note}")


def _fit(
    segmented: SegmentedModel,
    asked: Sequence[Question],
    how: CalibrationOptions,
    costs: Sequence[float],
    short: Sequence[int],
) -> Calibrated:
    again = len(short) * min(MEASURED, len(asked) - len(asked) // 2)
    with console.progress("scoring in full", len(asked) + again) as advance:
        done = calibrate(segmented, asked, how, costs=costs, progress=advance)
        if short:
            done = with_short_plans(segmented, asked, done, how, short, progress=advance)
    return done


def _certify(
    exits: Exits, how: CalibrationOptions, method: Method, delta: float
) -> tuple[Limits | None, str]:
    """Return the limits that keep the loss within alpha, if any do, and a note on them."""
    limits, note = None, ""
    try:
        limits, choice = exits.choose(how.alpha, method=method, delta=delta)
        note = f"{how.loss} <= {choice.bound:.4f} certified by {method} on {choice.queries} queries"
        mass, choice = exits.choose_mass(how.alpha, method=method, delta=delta)
        note += f"; by itself, so is a depth of mass {mass:g}: {how.loss} <= {choice.bound:.4f}"
    except ConfigError as error:
        note = f"{note}; {error}".lstrip("; ")
    return limits, note


def _short(given: str | None, segmented: SegmentedModel) -> list[int]:
    """Read the lengths that pairs may be cut to. Raises `ConfigError`."""
    lengths = whole_numbers(given) or []
    if any(not MIN_WINDOW_TOKENS <= length < segmented.max_tokens for length in lengths):
        raise ConfigError(
            f"short tokens are {lengths}; expected at least {MIN_WINDOW_TOKENS} and fewer than the "
            f"{segmented.max_tokens} of a pair"
        )
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
        raise ConfigError(
            "nothing to calibrate on: give --dataset DIR, or --queries FILE and --corpus FILE "
            "together"
        )
    found = read_all(folders, runs)
    if queries is not None and corpus is not None:
        with console.progress("searching", retrieval.count(queries)) as advance:
            found.append(retrieval.retrieve(queries, corpus, depth=depth, progress=advance))
    return found


def _questions(
    collections: Sequence[Dataset], *, depth: int, sample: int | None, seed: int
) -> list[Question]:
    asked: list[Question] = []
    for found in collections:
        chosen = datasets.subset(found, n=sample, seed=seed, depth=depth)
        asked += [_question(topic) for topic in chosen.topics]
    return [question for question in asked if question.passages]


def _question(topic: Topic) -> Question:
    distinct = {
        candidate.text: candidate.prior
        for candidate in reversed(topic.candidates)
        if candidate.text
    }
    texts = [text for text in distinct if text.strip()][::-1]
    priors = [distinct[text] for text in texts]
    known = [prior for prior in priors if prior is not None]
    return Question(topic.query, tuple(texts), tuple(known) if len(known) == len(texts) else None)


def _title(model: str, done: Calibrated, collections: Sequence[Dataset]) -> str:
    names = ", ".join(found.name for found in collections)
    return f"{model}: {len(done.cases)} held-out queries of {names}"


def _judge(limits: Limits | None, failure: str) -> None:
    """Exit 1 where no limits hold."""
    if limits is None:
        sys.stderr.write(f"failed: {failure}\n")
        raise typer.Exit(1)


def _draw(gained: Gain, folder: Path, how: CalibrationOptions, title: str) -> str:
    """Draw the gain, where matplotlib is installed; return which files there are, and their use."""
    files = "exits.json, exits.npz"
    with contextlib.suppress(ImportError):
        draw(gained, folder / "gain.svg", loss=how.loss, alpha=how.alpha, title=title)
        files += " and gain.svg"
    use = "" if gained.chosen is None else f'; use them with: exits = "{folder}"'
    return f"{files} are in {folder}{use}"


def _table(done: Calibrated, gained: Gain, how: CalibrationOptions) -> Table:
    table = Table(title=f"{done.exits.facts['model']}: work saved, and what it loses")
    for name in ("way", "speedup", f"{how.loss} (held out)"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for fitted in done.fitted:
        where = f"exit after layer {fitted.head.layer}"
        table.add_row(f"{where}: rank correlation {fitted.correlation:.2f}", "", "")
    points = [*([gained.chosen] if gained.chosen else []), *gained.baselines]
    for point in points:
        name = point.label if point.kind == point.label else f"{point.kind} {point.label}"
        table.add_row(name, f"{point.speedup:.2f}x", f"{point.loss:.4f}")
    return table
