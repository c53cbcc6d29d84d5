"""Before and after, on a collection where the reranker finds what BM25 missed."""

import pytest

from rerank_plugins import Reranker, evaluation
from rerank_plugins.errors import InvalidRequest
from tests.small_collections import beir_folder


@pytest.fixture
def pets(tmp_path):
    """Give the tiny collection."""
    return evaluation.read(beir_folder(tmp_path / "pets"))


def test_before_and_after_are_measured_on_the_judged_queries(pets):
    """The first stage comes first; its right passages are second, the reranker's first."""
    found = evaluation.compare(pets, {"lexical": Reranker("lexical")}, measures=["RR@10"])
    before, after = found.systems
    assert (found.queries, found.candidates) == (2, 6)
    assert before.means == {"RR@10": 0.5}
    assert after.means == {"RR@10": 1.0}
    difference = after.differences["RR@10"]
    assert (difference.low, difference.mean, difference.high) == (0.5, 0.5, 0.5)


def test_the_cost_counts_requests_and_pairs(pets):
    """Latencies are one a query; nothing of three-word passages is truncated."""
    found = evaluation.compare(pets, {"lexical": Reranker("lexical")})
    cost = found.systems[1].cost
    assert (cost.latency.n, cost.pairs) == (2, 6)
    assert (cost.truncated_share, cost.degraded_share) == (0.0, 0.0)
    assert cost.pairs_per_s > 0.0


def test_truncation_is_counted(pets):
    """A model that may read 16 tokens of a long text cuts it; the share says so."""
    long = evaluation.Dataset(
        "long",
        tuple(
            evaluation.Topic(one.qid, one.query, one.docids, _longer(one)) for one in pets.topics
        ),
        pets.qrels,
    )
    reranker = Reranker(max_tokens=16, long="truncate")
    cost = evaluation.compare(long, {"embedded": reranker}).systems[1].cost
    assert cost.truncated_share == 1.0


def _longer(topic):
    from rerank_plugins import Candidate

    return tuple(Candidate(" ".join([one.text] * 9)) for one in topic.candidates)


def test_progress_is_called_once_a_request(pets):
    """A bar can be drawn: one call a query and reranker."""
    calls = []
    rerankers = {"one": Reranker("lexical"), "two": Reranker("lexical")}
    evaluation.compare(pets, rerankers, progress=lambda: calls.append(1))
    assert len(calls) == 4


def test_a_dataset_without_judgements_is_refused(pets):
    """Nothing can be measured where nothing is judged."""
    with pytest.raises(InvalidRequest, match="no query of pets is judged"):
        evaluation.compare(evaluation.Dataset("pets", pets.topics, {}), {})
