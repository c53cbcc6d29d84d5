"""What is seen without labels, and the table to label."""

import csv

import pytest

from rerank_plugins import Reranker
from rerank_plugins.evaluation import label_free, read
from rerank_plugins.evaluation.rankings import RankedTopic, Ranking, first_stage, rerank_all
from tests.small_collections import QRELS, beir_folder


@pytest.fixture
def pets(tmp_path):
    """Return the tiny collection; its judgements are not used."""
    return read(beir_folder(tmp_path / "pets"))


def test_the_reference_regrets_nothing_and_the_first_stage_is_compared(pets):
    """The first system is the reference; three candidates always overlap wholly."""
    rerankers = {"one": Reranker("lexical"), "two": Reranker("lexical")}
    found = label_free.compare_label_free(pets, rerankers)
    start, one, two = found.systems
    assert (found.reference, found.queries) == ("one", 3)
    assert (one.regret, two.regret, one.overlap) == (0.0, 0.0, 1.0)
    assert start.regret > 0.0
    assert start.phantoms is None


def test_null_passages_come_from_other_queries_with_the_lowest_prior(pets):
    """Ten passages are drawn, those the topic has itself left out; the seed fixes the draw."""
    mixed = label_free.with_null_passages(pets, seed=1)
    assert mixed == label_free.with_null_passages(pets, seed=1)
    third = mixed.topics[2]
    assert third.docids[:1] == pets.topics[2].docids
    assert len(third.candidates) > 1
    for topic, mixed_topic in zip(pets.topics, mixed.topics, strict=True):
        own = {one.text for one in topic.candidates}
        added = mixed_topic.candidates[len(topic.candidates) :]
        assert all(one.text not in own for one in added)
        assert all(one.prior == min(x.prior for x in topic.candidates) for one in added)


def test_phantoms_are_counted_among_the_first_ten(pets):
    """Where a null passage stands first of two, half of the places are taken by phantoms."""
    mixed = label_free.with_null_passages(pets, seed=1)
    answers = []
    for before, topic in zip(pets.topics, mixed.topics, strict=True):
        n, own = len(topic.candidates), len(before.candidates)
        order = (n - 1, *range(n - 1)) if n > own else tuple(range(n))
        answers.append(RankedTopic(topic.qid, order[:2], (None,) * n, 0.0))
    strange = sum(
        len(topic.candidates) > len(before.candidates)
        for before, topic in zip(pets.topics, mixed.topics, strict=True)
    )
    found = label_free.phantoms(Ranking("strange", mixed, tuple(answers)))
    assert strange > 0
    assert found == pytest.approx(0.5 * strange / 3)


def test_the_null_score_is_above_nearly_all_null_passages(pets):
    """Words of other queries do not occur in theirs: BM25 gives such passages 0, the null score."""
    found = label_free.compare_label_free(pets, {"lexical": Reranker("lexical")})
    assert found.systems[1].null_score == 0.0
    assert label_free.null_score(Ranking("none", pets, tuple(_unscored(pets)))) is None


def _unscored(dataset):
    for one in dataset.topics:
        n = len(one.docids)
        yield RankedTopic(one.qid, tuple(range(n)), (None,) * n, 0.0)


def test_regret_is_0_for_the_same_order_and_1_for_none_of_it():
    """Only what the reference has among its first ten gains anything."""
    assert label_free.regret(range(20), range(20)) == 0.0
    assert label_free.regret(range(10, 20), range(10)) == 1.0
    assert 0.0 < label_free.regret([1, 0], [0, 1]) < 0.1


def test_a_pool_can_be_labelled_and_read_back(tmp_path):
    """What the systems have in front is written without labels; filled in, it judges the set."""
    dataset = read(beir_folder(tmp_path / "pets"))
    rankings = [
        first_stage(dataset, "first stage"),
        rerank_all("lexical", Reranker("lexical"), dataset),
    ]
    path = tmp_path / "pool.csv"
    # q1 and q2: the first stage's best and the reranker's best differ; q3 has one candidate.
    assert label_free.write_pool(rankings, path, depth=1) == 5
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {""}
    assert read(path).qrels == {}
    for row in rows:
        row["label"] = QRELS.get(row["qid"], {}).get(row["docid"], "")
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, label_free.COLUMNS)
        table.writeheader()
        table.writerows(rows)
    assert read(tmp_path / "pets", qrels=path).qrels == QRELS


def test_the_pool_hides_who_liked_what(tmp_path):
    """Rows are shuffled by the seed: the same seed, the same file."""
    dataset = read(beir_folder(tmp_path / "pets"))
    rankings = [first_stage(dataset, "first stage")]
    written = []
    for seed in (0, 0, 1, 2, 3):
        label_free.write_pool(rankings, tmp_path / "pool.csv", depth=3, seed=seed)
        written.append((tmp_path / "pool.csv").read_text(encoding="utf-8"))
    assert written[0] == written[1]
    assert len(set(written)) > 1
