"""`rerank-plugins drift`: from queries to a snapshot, and from a log to a verdict."""

import json

import numpy as np
import pytest

from rerank_plugins import Candidate, cli, load
from rerank_plugins.quality.drift.features import FEATURES
from rerank_plugins.quality.drift.snapshot import save, snapshot
from rerank_plugins.quality.guard.log import note_line, request_line
from tests import tiny
from tests.quality.drift.requests import drawn


def run(*command):
    """Run the command line; return the exit code however it ends."""
    try:
        return cli.main([str(one) for one in command])
    except SystemExit as end:
        return end.code


@pytest.fixture
def traffic(tmp_path):
    """Return sixty queries with six passages each, as a table that nobody judged."""
    path = tmp_path / "traffic.jsonl"
    rows = [
        {"query": f"what fox {at}", "passage": text, "label": ""}
        for at in range(60)
        for text in tiny.passages(6, seed=at)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def logged(tmp_path):
    """Return a function that writes a log of requests, some of them drifted, and a snapshot."""
    source = np.random.default_rng(0)
    save(snapshot(drawn(source, 300), subject="s", model="m"), tmp_path / "drift.json")

    def write(healthy, *, drifted=0, notes=(), **drift):
        asked = [*drawn(source, healthy), *drawn(source, drifted, **drift)]
        lines = [request_line(f"r{at}", one, float(at)) for at, one in enumerate(asked)]
        path = tmp_path / "guard.jsonl"
        path.write_text("".join([*lines, *notes]))
        return path, "--snapshot", tmp_path / "drift.json"

    return write


def test_a_snapshot_of_unjudged_traffic_is_what_the_guard_takes(traffic, tmp_path, capsys):
    """The file that the settings name is written by those settings, and fits the service."""
    saved, settings = tmp_path / "drift.json", tmp_path / "rerank.toml"
    settings.write_text(f'[[stages]]\nscorer = "lexical"\n[guard]\nsnapshot = "{saved}"\n')
    assert run("drift", "snapshot", "--dataset", traffic, "-c", settings, "--save", saved) == 0
    shown = capsys.readouterr().out
    assert "lexical: 60 requests" in shown
    assert f'[guard] snapshot = "{saved}"' in shown
    with load(settings) as reranker:
        assert reranker.setup.guard is not None
        assert reranker.setup.guard.reference is not None
        assert reranker.rerank("what fox", [Candidate("a fox")]).order == (0,)


def test_a_snapshot_can_be_of_a_sample_and_be_printed_as_json(traffic, tmp_path, capsys):
    """--sample and --depth say how much of the set is sent; --json prints what was written."""
    command = ["drift", "snapshot", "--dataset", traffic, "-m", "lexical", "--json"]
    command += ["--sample", 55, "--depth", 4, "--save", tmp_path / "drift.json"]
    assert run(*command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["model"]) == (55, "lexical")
    assert json.loads((tmp_path / "drift.json").read_text())["values"] == found["values"]


def test_a_healthy_log_passes(logged, capsys):
    """Windows like the snapshot's end with exit code 0 and a table of features."""
    assert run("drift", "report", *logged(200)) == 0
    shown = capsys.readouterr().out
    assert "the last of 2 windows of 100: ok" in shown
    assert "2 ok, 0 watch, 0 harmful" in shown


def test_harm_in_a_log_fails_and_says_since_when(logged, capsys):
    """Shuffled scores end with exit code 1, a line for the window, and what moved in it."""
    assert run("drift", "report", *logged(100, drifted=100, agreement=0.0)) == 1
    shown = capsys.readouterr()
    assert "1970-01-01 00:01:40Z to 1970-01-01 00:03:19Z: harmful: agreement" in shown.out
    assert "failed: 1 of 2 windows are harmful" in shown.err


def test_what_only_moved_fails_where_that_is_asked(logged, capsys):
    """Longer passages are to be watched: no failure by default, one with --fail-on watch."""
    log = logged(0, drifted=100, length=1.0)
    assert run("drift", "report", *log) == 0
    assert run("drift", "report", *log, "--fail-on", "watch") == 1
    assert "1 of 1 windows are watch or worse" in capsys.readouterr().err


def test_canaries_that_were_off_fail_too(logged, capsys):
    """Harm that only the running guard could see is in the log, and counts."""
    log = logged(100, notes=[note_line("canaries", 0.9, harmful=True, at_s=0.0)])
    assert run("drift", "report", *log) == 1
    assert "failed: canaries showed harm" in capsys.readouterr().err
    assert run("drift", "report", *log, "--fail-on", "never") == 0


def test_a_report_is_data_for_machines(logged, capsys):
    """With --json every window and every finding is there."""
    assert run("drift", "report", *logged(100), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["windows"][0]["report"]["verdict"] == "ok"
    assert len(found["windows"][0]["report"]["findings"]) == 2 * len(FEATURES) + 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("what\n", "line 1 is none of a guard's log"), ('{"kind": "request"}\n', "line 1")],
)
def test_what_is_no_log_is_refused(tmp_path, capsys, text, message):
    """A line that is none of the guard's is named by its number."""
    path = tmp_path / "guard.jsonl"
    path.write_text(text)
    assert run("drift", "report", path) == 2
    assert message in capsys.readouterr().err


def test_a_short_log_says_what_it_lacks(logged, capsys):
    """Without a snapshot the log has to hold learning and one window."""
    log, *_ = logged(60)
    assert run("drift", "report", log) == 2
    assert "holds 60 requests; expected at least 400" in capsys.readouterr().err
