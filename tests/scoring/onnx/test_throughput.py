"""What batches cost is measured once for a machine and a model, and confirmed ever after."""

import json
import threading

import pytest

from rerank_plugins.scoring.onnx import throughput
from rerank_plugins.scoring.onnx.graph import cache
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.onnx.throughput import Costs
from tests.scoring.tiny import files

COSTS = Costs(384, ((1, 16), (24, 16), (1, 64), (6, 64)), (0.001, 0.012, 0.003, 0.015))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


class Steps(threading.local):
    """A clock that goes on by one step whenever it is read, in every thread by itself."""

    def __init__(self, step_s):
        self.step_s, self.now_s = step_s, 0.0

    def __call__(self):
        """Tell the time, in seconds."""
        self.now_s += self.step_s
        return self.now_s


def warm(path, step_s=1.0, **options):
    """Warm a scorer up in which every batch takes one step."""
    scorer = OnnxScorer(files(path), OnnxOptions(**options), clock=Steps(step_s))
    scorer.warm_up()
    return scorer


def kept():
    """Give the one file of costs and what is in it."""
    (path,) = cache.directory().glob("*.json")
    return path, json.loads(path.read_text())


def test_costs_survive_a_round_through_their_file(tmp_path):
    """What is kept is what is read."""
    throughput.save(COSTS, tmp_path / "costs.json")
    assert throughput.load(tmp_path / "costs.json") == COSTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1.25",
        '{"batch_tokens": 512}',
        '{"batch_tokens": 512, "sizes": [], "seconds": []}',
        '{"batch_tokens": 512, "sizes": [[1, 16]], "seconds": [0.0]}',
        '{"batch_tokens": 512, "sizes": [[1, 16]], "seconds": [NaN]}',
        '{"batch_tokens": 512, "sizes": [[1, 16]], "seconds": [0.1, 0.2]}',
        '{"batch_tokens": 0, "sizes": [[1, 16]], "seconds": [0.1]}',
        '{"batch_tokens": 512, "sizes": [[1]], "seconds": [0.1]}',
    ],
)
def test_a_file_that_holds_no_costs_is_as_good_as_none(tmp_path, text):
    """Whatever lies there, warm-up goes on and measures."""
    (tmp_path / "costs.json").write_text(text)
    assert throughput.load(tmp_path / "costs.json") is None
    assert throughput.load(tmp_path / "missing.json") is None


def test_a_loaded_machine_keeps_the_shape_of_costs_and_moves_their_level():
    """Three times as slow now: every batch is expected to take three times as long."""
    before = dict(zip(COSTS.sizes, COSTS.seconds, strict=True))
    found = throughput.rescaled(COSTS, lambda size: 3 * before[size])
    assert found.batch_tokens == COSTS.batch_tokens
    assert found.seconds == pytest.approx([3 * one for one in COSTS.seconds])


def test_costs_measured_under_load_are_not_believed():
    """Twice as fast now: what was measured then says nothing."""
    assert throughput.rescaled(COSTS, lambda size: 0.5 * COSTS.seconds[0]) is None


def test_the_second_warm_up_takes_what_the_first_measured(tmp_path):
    """A mark put into the kept costs is what the next scorer goes by."""
    first = warm(tmp_path)
    path, facts = kept()
    path.write_text(json.dumps({**facts, "batch_tokens": 320}))
    second = warm(tmp_path)
    assert second.batch_tokens == 320
    assert second.throughput.meter.seconds(1, 48) == pytest.approx(
        first.throughput.meter.seconds(1, 48)
    )


def test_a_second_warm_up_that_is_much_faster_measures_anew(tmp_path):
    """What was measured under load is replaced, on disk too."""
    warm(tmp_path, step_s=2.0)
    warm(tmp_path, step_s=1.0)
    assert kept()[1]["seconds"] == [1.0] * len(kept()[1]["sizes"])


@pytest.mark.parametrize("options", [{"max_batch_tokens": 96}, {"max_tokens": 32}])
def test_other_options_have_costs_of_their_own(tmp_path, options):
    """What depends on an option is not taken from a run without it."""
    warm(tmp_path)
    warm(tmp_path, **options)
    assert len(list(cache.directory().glob("*.json"))) == 2


def test_without_the_cache_folder_nothing_is_kept(tmp_path):
    """`graph_cache = false` leaves no file behind."""
    warm(tmp_path, graph_cache=False)
    assert not cache.directory().exists()
