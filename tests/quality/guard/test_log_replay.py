"""A guard's log, looked through afterwards."""

import numpy as np
import pytest

from rerank_plugins.errors import InvalidRequest
from rerank_plugins.quality.drift.snapshot import snapshot
from rerank_plugins.quality.guard.log import LogEntry, note_line, read, request_line
from rerank_plugins.quality.guard.log_replay import replay_log
from rerank_plugins.quality.guard.stance import GuardOptions
from tests.quality.drift.requests import drawn


def entries(observations):
    """Give a log of requests a second apart."""
    return [LogEntry("request", float(at), one) for at, one in enumerate(observations)]


def test_windows_are_judged_in_order_with_their_times():
    """Each whole window is judged once, and what is left over fills none."""
    source = np.random.default_rng(0)
    before = snapshot(drawn(source, 300), subject="s", model="m")
    asked = entries([*drawn(source, 100), *drawn(source, 130, agreement=0.0)])
    moves = []
    found = replay_log(asked, before, GuardOptions(window=100), progress=lambda: moves.append(1))
    assert [one.report.verdict for one in found.windows] == ["ok", "harmful"]
    assert [(one.start_s, one.end_s) for one in found.windows] == [(0.0, 99.0), (100.0, 199.0)]
    assert (found.requests, found.reference, len(moves)) == (230, 300, 230)
    assert (found.count("ok"), found.count("watch"), found.count("harmful")) == (1, 0, 1)


def test_without_a_snapshot_the_first_requests_are_one():
    """The first requests of the log are learnt from, and are not judged."""
    asked = entries(drawn(np.random.default_rng(1), 260))
    found = replay_log(asked, None, GuardOptions(window=60, learn=200))
    assert (found.reference, found.requests, len(found.windows)) == (200, 60, 1)


def test_a_log_too_short_for_a_window_is_refused():
    """The error says how many requests there are and how many it takes."""
    asked = entries(drawn(np.random.default_rng(2), 50))
    with pytest.raises(InvalidRequest, match="holds 50 requests; expected at least 400"):
        replay_log(asked, None, GuardOptions())


def test_what_the_guard_found_otherwise_is_kept(tmp_path):
    """Windows in which it acted are counted, and canaries that were off are named, once."""
    path = tmp_path / "guard.jsonl"
    requests = drawn(np.random.default_rng(3), 120)
    lines = [request_line(f"r{at}", one, float(at)) for at, one in enumerate(requests)]
    lines += [note_line("canaries", 0.4, harmful=True, at_s=7.0)] * 2
    lines += [note_line("feedback", 0.4, harmful=False, at_s=7.0)]
    window = '{"kind": "window", "at_s": 8.0, "verdict": "harmful", "acting": true}\n'
    path.write_text("".join([*lines, window]))
    found = replay_log(list(read(path)), None, GuardOptions(window=60, learn=60))
    assert (found.acted, found.alarms) == (1, ("canaries",))
    assert read(path).__next__().observation == requests[0]
