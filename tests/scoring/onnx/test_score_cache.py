"""The score cache: off by default, exact, bounded, visible."""

import asyncio

import numpy as np

from rerank_plugins import Reranker
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from rerank_plugins.scoring import Scored
from rerank_plugins.scoring.onnx.score_cache import ScoreCache
from tests.scoring.tiny import folder, passages


def reranker(path, **options):
    """Build a reranker on the tiny model with stage options."""
    stage = {"scorer": str(folder(path)), "graph_cache": False, **options}
    return Reranker(build_setup(parse_settings({"stages": [stage]}, "the test")))


def test_the_second_request_is_answered_from_the_cache_with_the_same_scores(tmp_path):
    """Scores, order and truncation are the same; usage says that no pair was run."""
    with reranker(tmp_path, score_cache_bytes=2**20) as ours:
        first = ours.rerank("a hedge", passages(20))
        second = ours.rerank("a hedge", passages(20))
    assert [(hit.index, hit.score) for hit in first] == [(hit.index, hit.score) for hit in second]
    distinct = len(set(passages(20)))
    assert (first.usage.score_cache_hits, first.usage.pairs) == (0, distinct)
    assert (second.usage.score_cache_hits, second.usage.pairs) == (distinct, 0)


def test_only_pairs_not_seen_before_are_run(tmp_path):
    """New passages among known ones are scored; another query shares nothing."""
    with reranker(tmp_path, score_cache_bytes=2**20) as ours:
        ours.rerank("a hedge", passages(4))
        mixed = ours.rerank("a hedge", [*passages(4), "noble parade of marble badge"])
        other = ours.rerank("a badge", passages(4))
    assert mixed.usage.pairs == 1
    assert other.usage.score_cache_hits == 0


def test_there_is_no_cache_unless_asked_for(tmp_path):
    """The default computes every pair of every request."""
    with reranker(tmp_path) as ours:
        ours.rerank("a hedge", passages(4))
        again = ours.rerank("a hedge", passages(4))
    assert again.usage.score_cache_hits == 0
    assert again.usage.pairs > 0


def test_the_cache_is_bounded_and_forgets_the_least_recently_used():
    """With room for two pairs, the pair that was not asked for again leaves."""
    cache = ScoreCache("model", 600)
    assert [computed(cache, text) for text in "abaca"] == [["a"], ["b"], [], ["c"], []]
    assert computed(cache, "b") == ["b"]


def computed(cache, passage):
    """Score one passage through the cache; return what had to be computed."""
    asked = []

    async def compute(passages):
        asked.extend(passages)
        n = len(passages)
        return Scored(np.zeros(n, np.float32), np.ones(n, np.bool_), np.zeros(n, np.int64))

    asyncio.run(cache.score("q", [passage], compute))
    return asked


def test_query_and_passage_cannot_be_confused():
    """The same letters cut elsewhere, or another model, are other keys."""
    keys = [
        *ScoreCache("m", 600).keys("ab", ["c"]),
        *ScoreCache("m", 600).keys("a", ["bc"]),
        *ScoreCache("n", 600).keys("ab", ["c"]),
    ]
    assert len(set(keys)) == 3
