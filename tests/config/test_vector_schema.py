"""A stage that compares vectors, from settings: remembered passages cost nothing again."""

import pytest

from rerank_plugins import load
from rerank_plugins.errors import ConfigError

QUERY = "how long do cats sleep"
PASSAGES = [
    "Dogs bark at the moon.",
    "Cats sleep for twelve hours a day.",
    "The bridge is closed on Monday.",
    "A cat is an animal.",
]


def stages(**encoder):
    """Return settings of the encoder before the embedded model."""
    first = {"scorer": {"encoder": "embedded", **encoder}, "keep": 2}
    return {"stages": [first, {"scorer": "embedded"}]}


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_second_request_reads_only_what_is_new(precision):
    """The cross-encoder sees the best by cosine; a passage is encoded once."""
    with load(stages(memory_precision=precision)) as reranker:
        first = reranker.rerank(QUERY, PASSAGES)
        again = reranker.rerank(QUERY, PASSAGES)
        more = reranker.rerank(QUERY, [*PASSAGES, "Cats purr."])
    assert first.order[:2] == again.order[:2] == (1, 3)
    assert [hit.score for hit in again] == [hit.score for hit in first]
    assert [hit.score_kind for hit in first] == ["logit", "logit", "cosine", "cosine"]
    assert (first.usage.pairs, again.usage.pairs, more.usage.pairs) == (6, 2, 3)


def test_processes_and_restarts_share_a_folder(tmp_path):
    """A second reranker with the same folder begins with what the first one read."""
    for pairs in (6, 2):
        with load(stages(memory_dir=str(tmp_path / "vectors"))) as reranker:
            assert reranker.rerank(QUERY, PASSAGES).usage.pairs == pairs


def test_an_unknown_key_is_named_with_its_nearest():
    """A table of an encoder is told from one of a remote model by its key."""
    with pytest.raises(ConfigError, match="did you mean 'memory_mb'"):
        load(stages(memory_bm=3))


def test_exits_are_for_models_that_read_pairs():
    """An encoder has no exits."""
    first = {"scorer": {"encoder": "embedded"}, "exits": [2]}
    with pytest.raises(ConfigError, match="exits"):
        load({"stages": [first, {"scorer": "embedded"}]})
