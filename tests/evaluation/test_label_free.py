"""What is seen without labels."""

import pytest

from rerank_plugins import Reranker
from rerank_plugins.evaluation import label_free, read
from rerank_plugins.evaluation.runs import Answer, Ranking
from tests.small_collections import beir_folder


@pytest.fixture
def pets(tmp_path):
    """Give the tiny collection; its judgements are not used."""
    return read(beir_folder(tmp_path / "pets"))


def test_the_reference_regrets_nothing_and_the_first_stage_is_compared(pets):
    """The first system is the reference; three candidates always overlap wholly."""
    rerankers = {"one": Reranker("lexical"), "two": Reranker("lexical")}
    found = label_free.observe(pets, rerankers)
    start, one, two = found.systems
    assert (found.reference, found.queries) == ("one", 3)
    assert (one.regret, two.regret, one.overlap) == (0.0, 0.0, 1.0)
    assert start.regret > 0.0
    assert start.phantoms is None


def test_strangers_come_from_other_queries_with_the_lowest_prior(pets):
    """Ten passages are drawn, those the topic has itself left out; the seed fixes the draw."""
    mixed = label_free.with_strangers(pets, seed=1)
    assert mixed == label_free.with_strangers(pets, seed=1)
    third = mixed.topics[2]
    assert third.docids[:1] == pets.topics[2].docids
    assert len(third.candidates) > 1
    for topic, mixed_topic in zip(pets.topics, mixed.topics, strict=True):
        own = {one.text for one in topic.candidates}
        added = mixed_topic.candidates[len(topic.candidates) :]
        assert all(one.text not in own for one in added)
        assert all(one.prior == min(x.prior for x in topic.candidates) for one in added)


def test_phantoms_are_counted_among_the_first_ten(pets):
    """Where a stranger stands first of two, half of the places are taken by phantoms."""
    mixed = label_free.with_strangers(pets, seed=1)
    answers = []
    for before, topic in zip(pets.topics, mixed.topics, strict=True):
        n, own = len(topic.candidates), len(before.candidates)
        order = (n - 1, *range(n - 1)) if n > own else tuple(range(n))
        answers.append(Answer(topic.qid, order[:2], (None,) * n, 0.0))
    strange = sum(
        len(topic.candidates) > len(before.candidates)
        for before, topic in zip(pets.topics, mixed.topics, strict=True)
    )
    found = label_free.phantoms(Ranking("strange", mixed, tuple(answers)))
    assert strange > 0
    assert found == pytest.approx(0.5 * strange / 3)


def test_the_null_score_is_above_nearly_all_strangers(pets):
    """Words of other queries do not occur in theirs: BM25 gives such passages 0, the null score."""
    found = label_free.observe(pets, {"lexical": Reranker("lexical")})
    assert found.systems[1].null_score == 0.0
    assert label_free.null_score(Ranking("none", pets, tuple(_unscored(pets)))) is None


def _unscored(dataset):
    for one in dataset.topics:
        n = len(one.docids)
        yield Answer(one.qid, tuple(range(n)), (None,) * n, 0.0)


def test_regret_is_0_for_the_same_order_and_1_for_none_of_it():
    """Only what the reference has among its first ten gains anything."""
    assert label_free.regret(range(20), range(20)) == 0.0
    assert label_free.regret(range(10, 20), range(10)) == 1.0
    assert 0.0 < label_free.regret([1, 0], [0, 1]) < 0.1
