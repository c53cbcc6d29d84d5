"""`rerank-plugins doctor`: versions, models and folders, with a verdict on each."""

import typer
from rich.markup import escape
from rich.table import Table

from ..config.read import read_settings
from ..config.schema import Settings
from . import checks as examination
from . import console
from .options import Config, Json

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(*, config: Config = None, as_json: Json = False) -> None:
    """Check the installation and every configured model; exit 1 if one does not work.

    For example:

        rerank-plugins doctor

        rerank-plugins doctor --config rerank.toml --json
    """
    read = Settings() if config is None else read_settings(config)
    checks = list(examination.examine(read))
    if as_json:
        console.print_json(checks)
    else:
        table = Table(show_header=False)
        for check in checks:
            verdict = f"[{_COLOURS[check.verdict]}]{check.verdict}[/]"
            table.add_row(verdict, escape(check.name), escape(check.found))
        console.stdout().print(table)
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(1)
