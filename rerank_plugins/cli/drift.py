"""`rerank-plugins drift`: a snapshot of normal requests, and logs compared with it."""

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
from ..evaluation import datasets, drift_snapshot
from ..quality.drift.features import FEATURES
from ..quality.drift.snapshot import Snapshot, load, save
from ..quality.drift.verdict import DriftTest, DriftThresholds, Finding
from ..quality.guard.log import read as read_log
from ..quality.guard.log_replay import LogReview, replay_log
from ..quality.guard.stance import GuardOptions
from ..scoring.models.files import EMBEDDED
from . import console
from .options import Config, Depth, Json, Model, Runs, Sample, Seed, one_of, read_all

_COLUMNS = (
    "feature",
    *(name for test in ("KS", "PSI", "mean") for name in (test, "seldom over")),
    "shift",
    "moved in",
)

_SHOWN = 20


DatasetOption = Annotated[
    list[Path],
    typer.Option(
        metavar="DIR",
        help="Queries with candidates, as for eval, or a table of your own traffic with the "
        "columns query, passage and label, the last one empty: judgements are not read. "
        "Repeat it.",
    ),
]
Save = Annotated[
    Path, typer.Option("--save", metavar="FILE", help="Where the snapshot is written.")
]
Log = Annotated[Path, typer.Argument(metavar="LOG", help="The file that [guard] log names.")]
Reference = Annotated[
    Path | None,
    typer.Option(
        "--snapshot",
        metavar="FILE",
        help="What to compare with. Left out: the log's first --learn requests.",
    ),
]
Window = Annotated[int, typer.Option(metavar="N", min=20, help="Requests judged together.")]
Learn = Annotated[int, typer.Option(metavar="N", min=50, help="Requests that make a snapshot.")]
Alpha = Annotated[float, typer.Option(min=0.0, max=0.1, help="Chance of an alarm without drift.")]
FailOn = Annotated[
    Literal["harmful", "watch", "never"],
    typer.Option("--fail-on", help="Exit 1 where a window is this bad, or worse."),
]


def group() -> typer.Typer:
    """Assemble the two commands."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    app.command("snapshot")(snapshot)
    app.command("report")(report)
    return app


def snapshot(
    *,
    dataset: DatasetOption,
    save_to: Save,
    run: Runs = None,
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
    topics = [
        topic
        for found in read_all(dataset, run or [])
        for topic in datasets.subset(found, n=sample, seed=seed, depth=depth).topics
        if topic.candidates
    ]
    with console.progress("reranking", len(topics)) as advance:
        found = drift_snapshot.take(setup, topics, progress=advance)
    save(found, save_to)
    if as_json:
        console.print_json(found)
        return
    console.stdout().print(_features(found))
    console.stdout().print(f'use it with: [guard] snapshot = "{save_to}"', markup=False)


def _features(found: Snapshot) -> Table:
    table = Table(title=f"{found.model}: {found.requests} requests")
    for name in ("feature", "values", "lowest tenth", "median", "highest tenth"):
        table.add_column(name, justify="left" if name == "feature" else "right")
    for feature, meaning in FEATURES.items():
        values = found.values[feature]
        shown = [values[int(share * (len(values) - 1))] for share in (0.1, 0.5, 0.9) if values]
        table.add_row(meaning, str(len(values)), *(f"{value:.2f}" for value in shown))
    return table


def report(
    log: Log,
    *,
    reference: Reference = None,
    window: Window = 100,
    learn: Learn = 300,
    alpha: Alpha = 0.005,
    fail_on: FailOn = "harmful",
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
    how = GuardOptions(window=window, learn=learn, thresholds=DriftThresholds(alpha=alpha))
    judged = sum(entry.observation is not None for entry in entries) - (
        learn if before is None else 0
    )
    with console.progress("judging", max(0, judged)) as advance:
        found = replay_log(entries, before, how, progress=advance)
    if as_json:
        console.print_json(found)
    else:
        _show(found, window)
    if failed := list(_failures(found, fail_on)):
        sys.stderr.write("".join(f"failed: {gate}\n" for gate in failed))
        raise typer.Exit(1)


def _show(found: LogReview, size: int) -> None:
    screen = console.stdout()
    last = found.windows[-1].report
    table = Table(title=f"the last of {len(found.windows)} windows of {size}: {last.verdict}")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "feature" else "right")
    for feature, meaning in FEATURES.items():
        tests = {finding.test: finding for finding in last.findings if finding.feature == feature}
        if tests:
            moved = sum(feature in judged.report.moved for judged in found.windows)
            table.add_row(meaning, *_cells(tests), f"{moved} windows")
    screen.print(table)
    other = [judged for judged in found.windows if judged.report.verdict != "ok"]
    for judged in other[-_SHOWN:]:
        times = f"{_time(judged.start_s)} to {_time(judged.end_s)}"
        screen.print(f"{times}: {judged.report.verdict}: {', '.join(judged.report.reasons)}")
    if len(other) > _SHOWN:
        screen.print(f"and {len(other) - _SHOWN} windows before them; --json has all")
    counts = ", ".join(f"{found.count(name)} {name}" for name in ("ok", "watch", "harmful"))
    screen.print(
        escape(
            f"{counts}, against a snapshot of {found.reference} requests; while it ran the guard "
            f"acted in {found.acted} windows"
        )
    )


def _cells(tests: Mapping[DriftTest, Finding]) -> Iterator[str]:
    names: tuple[DriftTest, ...] = ("ks", "psi", "mean")
    for name in names:
        finding = tests.get(name)
        if finding is None:
            yield from ("", "")
        else:
            value = f"{finding.value:.2f}"
            yield f"[bold]{value}[/bold]" if finding.moved else value
            yield f"{finding.critical:.2f}"
    yield f"{tests['ks'].shift:+.1f}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _failures(found: LogReview, fail_on: str) -> Iterator[str]:
    if fail_on == "never":
        return
    bad = found.count("harmful") + (found.count("watch") if fail_on == "watch" else 0)
    if bad:
        worse = " or worse" if fail_on == "watch" else ""
        yield f"{bad} of {len(found.windows)} windows are {fail_on}{worse}"
    yield from (f"{alarm} showed harm" for alarm in found.alarms)
