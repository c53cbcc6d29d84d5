"""benchmarks/threads.py: layouts of the cores are compared in turns, and one is named if clear."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "threads.py"


@pytest.fixture
def threads(monkeypatch):
    """Return the script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return __import__("threads")


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 255])
def test_every_layout_uses_the_cores_there_are_and_no_more(threads, cores):
    """The default comes first, none comes twice."""
    made = threads.layouts(cores)
    assert made[0] == threads.Layout(cores, 1)
    assert len(set(made)) == len(made)
    assert all(cores - 1 <= one.workers * one.inside <= cores for one in made)


@pytest.mark.parametrize(
    ("small_s", "large_s", "free", "advice"),
    [
        (0.08, 1.0, 1.0, "set workers = 4, intra_threads = 2"),
        (0.1, 0.8, 1.0, "set workers = 4, intra_threads = 2"),
        (0.08, 1.04, 1.0, "set workers = 4, intra_threads = 2"),
        (0.08, 1.1, 1.0, "keep the default"),
        (0.095, 0.95, 1.0, "keep the default"),
        (0.1, 1.0, 1.0, "keep the default"),
        (0.05, 0.5, 0.6, "other programs took 40% of the cores: compare again without them"),
    ],
)
def test_a_layout_must_gain_clearly_and_lose_nothing(threads, small_s, large_s, free, advice):
    """A few per cent are noise; on busy cores more threads only take more from others."""
    default = threads.Timed(threads.Layout(8, 1), 0.1, 1.0)
    others = (
        threads.Timed(threads.Layout(4, 2), small_s, large_s),
        threads.Timed(threads.Layout(1, 8), 0.3, 1.5),
    )
    assert threads.advice(threads.Layouts(default, others, free)) == advice


def test_the_script_times_every_layout_of_a_real_model(tiny_model):
    """Each layout has its line, and the last line says what to do."""
    command = [sys.executable, SCRIPT, "--model", tiny_model, "--cores", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    head, *lines, last = done.stdout.splitlines()
    assert "10 and 60 passages" in head
    assert [line.partition(":")[0] for line in lines] == ["2 x 1", "1 x 2"]
    assert last
