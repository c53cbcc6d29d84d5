"""Batch sizes are measured, quickly."""

import pytest

from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.onnx.throughput import best_batch_tokens
from tests.scoring.tiny import files


class Machine:
    """A clock that runs only when batches do: so long a batch, so long a token."""

    def __init__(self, overhead_s, token_s):
        self.now_s, self.overhead_s, self.token_s, self.ran = 0.0, overhead_s, token_s, []

    def run(self, tokens):
        """Let the time of one batch pass."""
        self.ran.append(tokens)
        self.now_s += self.overhead_s + tokens * self.token_s

    def clock(self):
        """Tell the time, in seconds."""
        return self.now_s


def test_a_machine_with_no_overhead_takes_the_smallest_batch():
    """Where bigger batches gain nothing, small ones stay in the cache and pad less."""
    machine = Machine(0.0, 1e-5)
    assert best_batch_tokens(machine.run, clock=machine.clock) == 128


def test_overhead_a_run_asks_for_bigger_batches():
    """Where each run costs much whatever its size, batches grow."""
    machine = Machine(5e-3, 1e-6)
    assert best_batch_tokens(machine.run, clock=machine.clock) == 2048


@pytest.mark.parametrize("token_s", [1e-4, 1e-3, 1e-2])
def test_measuring_stays_within_its_time(token_s):
    """Past the first size, measuring never outlasts its limit."""
    machine = Machine(1e-3, token_s)
    best_batch_tokens(machine.run, clock=machine.clock, limit_s=0.5)
    assert machine.now_s <= max(0.5, 2 * (1e-3 + 128 * token_s))


def test_warm_up_measures_unless_an_option_says_the_size(tmp_path):
    """An explicit size is obeyed."""
    fixed = OnnxScorer(files(tmp_path), OnnxOptions(max_batch_tokens=96, graph_cache=False))
    fixed.warm_up()
    assert fixed.batch_tokens == 96
    measured = OnnxScorer(files(tmp_path), OnnxOptions(graph_cache=False))
    measured.warm_up()
    assert measured.batch_tokens in {128, 256, 512, 1024, 2048}
