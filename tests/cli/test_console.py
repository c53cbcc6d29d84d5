"""What a terminal gets, and what a pipe gets."""

import io
import time

import pytest
from rich.console import Console

from rerank_plugins.cli import console
from tests.cli.test_cli import run


def interrupt():
    """Work for a moment, and be interrupted."""
    time.sleep(0.1)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("terminal", "patience_s", "shown"),
    [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)],
)
def test_long_work_is_shown_on_a_terminal_alone(terminal, patience_s, shown):
    """After a while a bar names what is being done; it is gone when the work ends."""
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with console.waiting(screen, patience_s=patience_s) as now:
        now("scoring 5,000 passages")
        time.sleep(0.3)
    assert ("scoring 5,000 passages" in screen.file.getvalue()) is shown
    assert bool(screen.file.getvalue()) is shown


def test_a_fault_ends_the_bar():
    """An error or Ctrl-C leaves no thread behind that draws on."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    with pytest.raises(KeyboardInterrupt), console.waiting(screen, patience_s=0.0):
        interrupt()
    drawn = screen.file.getvalue()
    time.sleep(0.2)
    assert screen.file.getvalue() == drawn


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1", "FORCE_COLOR": "1"}, {}])
def test_output_is_plain_without_colours_and_in_a_pipe(variables, tmp_path, capsys, monkeypatch):
    """No escape sequence, not even bold, with NO_COLOR on a terminal or when piped."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    passages = tmp_path / "passages.txt"
    passages.write_text("cats sleep\n", encoding="utf-8")
    assert run("run", "-q", "cats", "--docs", passages, "-m", "lexical", "--explain") == 0
    assert "\x1b" not in "".join(capsys.readouterr())
