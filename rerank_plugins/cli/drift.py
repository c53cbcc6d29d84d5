"""`rerank-plugins drift`: a snapshot of requests as they should be, and a log held against it."""

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ..config.build import build_setup
from ..config.read import read_settings
from ..evaluation import datasets, guard_snapshot, loader
from ..evaluation.datasets import Dataset, Topic
from ..quality.drift import FEATURES, Finding, Test, Watch
from ..quality.guard import Reading, Review, load, read_log, review, save
from ..scoring.models.files import EMBEDDED
from . import console
from .options import Config, Depth, Json, Model, Sample, Seed, one_of

_COLUMNS = (
    "feature",
    *(name for test in ("KS", "PSI", "mean") for name in (test, "seldom over")),
    "shift",
    "moved in",
)

_SHOWN = 20


def group() -> typer.Typer:
    """Assemble the two commands."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    app.command("snapshot")(snapshot)
    app.command("report")(report)
    return app


def snapshot(
    *,
    dataset: Annotated[
        list[Path],
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="Queries with candidates, as for eval, or a table of your own traffic with the "
            "columns query, passage and label, the last one empty: judgements are not read. "
            "Repeat it.",
        ),
    ],
    save_to: Annotated[
        Path, typer.Option("--save", metavar="FILE", help="Where the snapshot is written.")
    ],
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", metavar="RUN", help="The first stage of each --dataset."),
    ] = None,
    model: Model = None,
    config: Config = None,
    sample: Sample = None,
    seed: Seed = 0,
    depth: Depth = None,
    as_json: Json = False,
) -> None:
    """Rerank queries as the service will, and keep what a guard should see: numbers, never text.

    Take it with the settings that serve ([guard] itself may be in them and is not asked), of
    queries like those to come, with as many candidates each. For example:

        rerank-plugins drift snapshot --dataset traffic.jsonl --config rerank.toml --save drift.json

        rerank-plugins drift snapshot --dataset scifact --depth 50 --sample 300 --save drift.json
    """
    one_of(model, config)
    source = {"stages": [{"scorer": model or EMBEDDED}]} if config is None else config
    setup = build_setup(read_settings(source).model_copy(update={"guard": None}))
    topics = list(_topics(dataset, run or [], sample=sample, seed=seed, depth=depth))
    with console.progress("reranking", len(topics)) as advance:
        found = guard_snapshot.take(setup, topics, progress=advance)
    save(found, save_to)
    if as_json:
        console.print_json(found)
        return
    table = Table(title=f"{found.model}: {found.requests} requests")
    for name in ("feature", "told by", "lowest tenth", "median", "highest tenth"):
        table.add_column(name, justify="left" if name == "feature" else "right")
    for feature, meaning in FEATURES.items():
        values = found.values[feature]
        shown = [values[int(share * (len(values) - 1))] for share in (0.1, 0.5, 0.9) if values]
        table.add_row(meaning, str(len(values)), *(f"{one:.2f}" for one in shown))
    console.stdout().print(table)
    console.stdout().print(f'use it with: [guard] snapshot = "{save_to}"', markup=False)


def report(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The file that [guard] log names.")],
    *,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--snapshot",
            metavar="FILE",
            help="What to compare with. Left out: the log's first --learn requests.",
        ),
    ] = None,
    window: Annotated[
        int, typer.Option("--window", metavar="N", min=20, help="Requests judged together.")
    ] = 100,
    learn: Annotated[
        int, typer.Option("--learn", metavar="N", min=50, help="Requests that make a snapshot.")
    ] = 300,
    alpha: Annotated[
        float,
        typer.Option("--alpha", min=0.0, max=0.1, help="Chance of an alarm without drift."),
    ] = 0.005,
    fail_on: Annotated[
        Literal["harmful", "watch", "never"],
        typer.Option("--fail-on", help="Exit 1 where a window is this bad, or worse."),
    ] = "harmful",
    as_json: Json = False,
) -> None:
    """Judge a guard's log again, window by window: what moved, how far, since when.

    Exit code 1 where a window is as bad as --fail-on says, or where canaries or feedback showed
    harm while the guard ran. For example:

        rerank-plugins drift report guard.jsonl --snapshot drift.json

        rerank-plugins drift report guard.jsonl --learn 500 --window 200 --fail-on watch --json
    """
    entries = list(read_log(log))
    before = None if reference is None else load(reference)
    how = Reading(window, learn, Watch(alpha=alpha))
    judged = sum(one.observation is not None for one in entries) - (learn if before is None else 0)
    with console.progress("judging", max(0, judged)) as advance:
        found = review(entries, before, how, progress=advance)
    if as_json:
        console.print_json(found)
    else:
        _show(found, window)
    if failed := list(_failures(found, fail_on)):
        sys.stderr.write("".join(f"failed: {one}\n" for one in failed))
        raise typer.Exit(1)


def _topics(
    places: list[Path], runs: list[Path], *, sample: int | None, seed: int, depth: int | None
) -> Iterator[Topic]:
    for at, place in enumerate(places):
        found: Dataset = loader.read(place, run=runs[at] if at < len(runs) else None)
        found = found if sample is None else datasets.sample(found, sample, seed=seed)
        found = found if depth is None else datasets.shorten(found, depth)
        yield from (topic for topic in found.topics if topic.candidates)


def _show(found: Review, size: int) -> None:
    screen = console.stdout()
    last = found.windows[-1].report
    table = Table(title=f"the last of {len(found.windows)} windows of {size}: {last.verdict}")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "feature" else "right")
    for feature, meaning in FEATURES.items():
        tests = {one.test: one for one in last.findings if one.feature == feature}
        if tests:
            moved = sum(feature in one.report.moved for one in found.windows)
            table.add_row(meaning, *_cells(tests), f"{moved} windows")
    screen.print(table)
    other = [one for one in found.windows if one.report.verdict != "ok"]
    for one in other[-_SHOWN:]:
        reasons = ", ".join(one.report.reasons)
        screen.print(f"{_time(one.start_s)} to {_time(one.end_s)}: {one.report.verdict}: {reasons}")
    if len(other) > _SHOWN:
        screen.print(f"and {len(other) - _SHOWN} windows before them; --json has all")
    counts = ", ".join(f"{found.count(name)} {name}" for name in ("ok", "watch", "harmful"))
    screen.print(
        escape(
            f"{counts}, against a snapshot of {found.reference} requests; while it ran the guard "
            f"acted in {found.acted} windows"
        )
    )


def _cells(tests: Mapping[Test, Finding]) -> Iterator[str]:
    names: tuple[Test, ...] = ("ks", "psi", "mean")
    for name in names:
        one = tests.get(name)
        if one is None:
            yield from ("", "")
            continue
        bold = ("[bold]", "[/bold]") if one.moved else ("", "")
        yield f"{bold[0]}{one.value:.2f}{bold[1]}"
        yield f"{one.critical:.2f}"
    yield f"{tests['ks'].shift:+.1f}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _failures(found: Review, fail_on: str) -> Iterator[str]:
    if fail_on == "never":
        return
    bad = found.count("harmful") + (found.count("watch") if fail_on == "watch" else 0)
    if bad:
        worse = " or worse" if fail_on == "watch" else ""
        yield f"{bad} of {len(found.windows)} windows are {fail_on}{worse}"
    yield from (f"{one} showed harm" for one in found.alarms)
