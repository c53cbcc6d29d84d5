"""Where output goes: results to stdout, progress bars to stderr; plain where NO_COLOR is set."""

import codecs
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..evaluation.report import plain

_PIPE_WIDTH = 120
_PATIENCE_S = 2.0
# What stands for our own drawings on a terminal that lacks them; other letters become "?".
_NEAREST: Mapping[str, str] = {"█": "#", "░": "-", "…": ".", "━": "-"}


def write_any_text() -> None:
    """Let stdout and stderr replace the letters that their encoding lacks, instead of raising."""
    codecs.register_error("nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_NEAREST.get(letter, "?") for letter in lacking), error.end


def stdout() -> Console:
    """Return the console for results; piped, it is wide enough that no table breaks."""
    console = Console(color_system=_colours())
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def stderr() -> Console:
    """Return the console for progress."""
    return Console(stderr=True, color_system=_colours())


def _colours() -> Literal["auto"] | None:
    return None if os.environ.get("NO_COLOR") else "auto"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr, if that is a terminal; yield the function that advances it by 1."""
    console = stderr()
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def waiting(
    console: Console, *, patience_s: float = _PATIENCE_S
) -> Iterator[Callable[[str], None]]:
    """Show what is being done and for how long, once it takes longer than `patience_s`.

    Yields the function that names what is being done. Nothing is shown where `console` is no
    terminal.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)
    timer = threading.Timer(patience_s, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield partial(_rename, bar, task)
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()


def _rename(bar: Progress, task: TaskID, what: str) -> None:
    bar.update(task, description=what)


def print_json(value: object) -> None:
    """Write a record as JSON, with its field names as keys."""
    letters = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(plain(value), ensure_ascii=not letters, indent=2, allow_nan=False)
    sys.stdout.write(f"{text}\n")
