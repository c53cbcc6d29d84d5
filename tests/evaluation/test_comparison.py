"""Before and after, on a collection where the reranker finds what BM25 missed."""

import pytest

from rerank_plugins import Candidate, Reranker, evaluation
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation.comparison import difference
from rerank_plugins.evaluation.significance import Interval
from tests.small_collections import beir_folder


@pytest.fixture
def pets(tmp_path):
    """Return the tiny collection."""
    return evaluation.read(beir_folder(tmp_path / "pets"))


def test_before_and_after_are_measured_on_the_judged_queries(pets):
    """The first stage comes first; its right passages are second, the reranker's first."""
    found = evaluation.compare(pets, {"lexical": Reranker("lexical")}, measures=["RR@10"])
    before, after = found.systems
    assert (found.queries, found.candidates) == (2, 6)
    assert before.means == {"RR@10": 0.5}
    assert after.means == {"RR@10": 1.0}
    difference = after.differences["RR@10"]
    assert difference.interval == Interval(0.5, 0.5, 0.5)
    assert (difference.wins, difference.ties, difference.losses) == (2, 0, 0)


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


def test_wins_ties_and_losses_are_counted_by_query():
    """Rounding errors are ties; the mean is over all queries."""
    before = {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.3}
    after = {"a": 1.0, "b": 0.5 + 1e-12, "c": 0.25, "d": 0.3}
    found = difference(before, after)
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)
    assert found.interval.mean == pytest.approx(0.25 / 4)


def test_p_values_are_adjusted_over_all_datasets_and_systems(pets):
    """Two datasets with two systems each: the least of four equal p-values is multiplied by 4."""
    rerankers = {"one": Reranker("lexical"), "two": Reranker("lexical")}
    found = [evaluation.compare(pets, rerankers, measures=["RR@10"]) for _ in range(2)]
    raw = found[0].systems[1].differences["RR@10"].p
    for comparison in evaluation.adjust(found):
        for system in comparison.systems[1:]:
            assert system.differences["RR@10"].p_adjusted == min(1.0, 4 * raw)


def test_judged_only_leaves_unjudged_documents_out(pets):
    """In q1, d1 is judged not relevant and d3 unjudged; in q2 all but d3 is unjudged."""
    found = evaluation.compare(pets, {}, measures=["RR@10"])
    assert found.systems[0].judged_only == {"RR@10": (0.5 + 1.0) / 2}
    without = evaluation.Dataset("pets", pets.topics, {"q1": {"d2": 1}})
    assert evaluation.compare(without, {}, measures=["RR@10"]).systems[0].judged_only == {}


def test_the_queries_that_lost_are_shown_with_their_texts(pets):
    """A prior that puts the right passage first is spoilt by a reranker that reverses."""
    best_first = evaluation.Dataset(
        "pets",
        tuple(
            evaluation.Topic(one.qid, one.query, one.docids[1:], one.candidates[1:])
            for one in pets.topics[:2]
        ),
        {"q1": {"d3": 1}, "q2": {"d3": 1}},
    )
    found = evaluation.compare(best_first, {"lexical": Reranker("lexical")}, measures=["RR@10"])
    assert found.systems[1].worst == ()
    wrong = evaluation.Dataset("pets", best_first.topics, {"q1": {"d2": 1}, "q2": {"d2": 1}})
    swapped = evaluation.Dataset(
        "pets",
        (
            evaluation.Topic(
                "q2",
                "dogs bark",
                ("d2", "d3"),
                (Candidate("Cats sleep a lot"), Candidate("Dogs bark at strangers")),
            ),
        ),
        wrong.qrels,
    )
    found = evaluation.compare(swapped, {"lexical": Reranker("lexical")}, measures=["RR@10"])
    (loss,) = found.systems[1].worst
    assert (loss.query, loss.before, loss.after) == ("dogs bark", 1.0, 0.5)
    assert (loss.top_before, loss.top_after) == ("Cats sleep a lot", "Dogs bark at strangers")
    assert (loss.relevant_before, loss.relevant_after) == (1, 2)
