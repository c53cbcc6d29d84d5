"""The command line: `rerank-plugins COMMAND`, a module for each command."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import RerankError
from . import checks, console, drift
from .bench import bench
from .calibrate import calibrate_exits
from .capacity import capacity
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .run import run
from .serve import serve

BAD_USAGE = 2


def _show_version(asked: bool) -> None:  # noqa: FBT001 - the parser calls it so
    if asked:
        found = checks.version("rerank-plugins") or "from a source tree"
        sys.stdout.write(f"rerank-plugins {found}\n")
        raise typer.Exit


def application() -> typer.Typer:
    """Assemble the commands."""
    app = typer.Typer(
        name="rerank-plugins",
        help="Rerank passages, and measure what it changes and costs.",
        epilog="Exit codes: 0 fine, 1 a gate or check failed, 2 the command or its input is wrong.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command("run")(run)
    app.command("eval")(evaluate)
    app.command("bench")(bench)
    app.command("capacity")(capacity)
    app.command("calibrate")(calibrate_exits)
    app.add_typer(
        drift.group(), name="drift", help="Watch for requests that are not what they were."
    )
    app.command("export")(export)
    app.command("serve")(serve)
    app.command("doctor")(doctor)
    return app


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; print an error of this package in a line, without a traceback."""
    console.write_any_text()
    try:
        application()(args=arguments, prog_name="rerank-plugins")
    except (RerankError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_USAGE
    return 0
