"""A request can be followed in a debugger: few frames, all of them named functions."""

import traceback

import pytest

from rerank_plugins import Reranker, Stage
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from tests import tiny

FRAMES = 12


def frames(stack: traceback.StackSummary) -> list[str]:
    """Return the names of our functions on a stack, the outermost first."""
    return [frame.name for frame in stack if "/rerank_plugins/" in frame.filename]


@pytest.fixture
def stacks(tmp_path, monkeypatch):
    """Return the stacks on which the tokenizer and the graph of a real request were called."""
    tiny.build(tmp_path)
    scorer = OnnxScorer(find(str(tmp_path)))
    seen = {}

    def spy(owner, name):
        real = getattr(owner, name)

        def spied(*args, **options):
            seen[name] = traceback.extract_stack()[:-1]
            return real(*args, **options)

        monkeypatch.setattr(owner, name, spied)

    with Reranker(stages=[Stage(scorer)]) as reranker:
        spy(type(scorer.graph), "run")
        spy(type(scorer.tokenizer), "readings")
        result = reranker.rerank("red fox", ["a red fox", "a blue hen"])
    assert not result.degraded
    return seen


def test_a_trace_in_the_scorer_has_few_frames_and_no_lambda(stacks):
    """From the worker thread to the tokenizer and the graph: at most 12 named frames of ours."""
    for where in ("run", "readings"):
        names = frames(stacks[where])
        assert len(names) <= FRAMES, names
        assert "<lambda>" not in names, names
