"""The scorer runs rewritten graphs, and says so where it cannot."""

import numpy as np
import pytest

from rerank_plugins import Reranker
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from rerank_plugins.records import Code
from rerank_plugins.scoring.onnx.graph import cache
from tests.scoring.tiny import folder, passages


def result(path, graph, **options):
    """Rerank the same passages with the tiny model under stage options."""
    stage = {"scorer": str(folder(path, graph)), "graph_cache": False, **options}
    with Reranker(build_setup(parse_settings({"stages": [stage]}, "the test"))) as ours:
        return ours.rerank("a hedge", passages(40))


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_rewriting_changes_no_score_and_no_order(tmp_path, batch_tokens):
    """With and without rewrites, for every batch size: equal to 1e-4 of the spread."""
    plain = result(tmp_path / "a", "bert-sdpa-script", rewrite=False)
    ours = result(tmp_path / "b", "bert-sdpa-script", max_batch_tokens=batch_tokens)
    assert ours.order == plain.order
    scores = np.array([hit.score for hit in plain])
    assert np.abs([hit.score for hit in ours] - scores).max() <= 1e-4 * scores.std()
    assert not [one for one in ours.decisions if one.code is Code.GRAPH]


def test_a_graph_that_runs_as_exported_is_a_decision(tmp_path):
    """Nobody has to guess why a model is slower than another."""
    ours = result(tmp_path, "modernbert-sdpa-dynamo")
    (found,) = [one for one in ours.decisions if one.code is Code.GRAPH]
    assert found.detail == "no encoder layer was recognised"
    assert not ours.degraded


def test_the_cache_lies_in_the_platforms_cache_folder(tmp_path, monkeypatch):
    """XDG_CACHE_HOME is honoured, and the option switches the folder off."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    result(tmp_path / "a", "bert-sdpa-script")
    assert not (tmp_path / "home").exists()
    result(tmp_path / "a", "bert-sdpa-script", graph_cache=True)
    assert len(list(cache.directory().glob("*.onnx"))) == 1
