"""Tables of labels, read and written."""

import csv

import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation import labels, read
from rerank_plugins.evaluation.runs import collect, first_stage
from tests.small_collections import QRELS, beir_folder


def test_a_table_of_query_passage_label_is_a_dataset(tmp_path):
    """Rows of one query are its candidates in the order of the file; blank is not judged."""
    path = tmp_path / "pets.csv"
    path.write_text(
        'query,passage,label\ncats,"dogs, mostly",0\ncats,cats sleep,2\nhens,foxes,\n',
        encoding="utf-8",
    )
    found = read(path)
    cats, hens = found.topics
    assert [one.text for one in cats.candidates] == ["dogs, mostly", "cats sleep"]
    assert cats.docids == ("line 2", "line 3")
    assert found.qrels == {"cats": {"line 2": 0, "line 3": 2}}
    assert hens.query == "hens"


def test_json_lines_with_priors_are_a_dataset_too(tmp_path):
    """The same columns as keys; `prior` is the first stage's score."""
    path = tmp_path / "pets.jsonl"
    path.write_text(
        '{"query": "cats", "passage": "cats sleep", "label": 1, "prior": 2.5, "docid": "d"}\n',
        encoding="utf-8",
    )
    (topic,) = read(path).topics
    assert (topic.docids, topic.candidates[0].prior) == (("d",), 2.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,text,label\na,b,1\n", "csv:2 lacks passage; found the columns query, text, label"),
        ("query,passage,label\na,b,yes\n", "csv:2 has the label 'yes'"),
    ],
)
def test_a_broken_table_is_named_with_its_line(content, message, tmp_path):
    """Errors name file, line and what was expected."""
    (tmp_path / "bad.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=message):
        read(tmp_path / "bad.csv")


def test_a_pool_can_be_labelled_and_read_back(tmp_path):
    """What the systems have in front is written without labels; filled in, it judges the set."""
    dataset = read(beir_folder(tmp_path / "pets"))
    rankings = [
        first_stage(dataset, "first stage"),
        collect("lexical", Reranker("lexical"), dataset),
    ]
    path = tmp_path / "pool.csv"
    # q1 and q2: the first stage's best and the reranker's best differ; q3 has one candidate.
    assert labels.write_pool(rankings, path, depth=1) == 5
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {""}
    assert read(path).qrels == {}
    for row in rows:
        row["label"] = QRELS.get(row["qid"], {}).get(row["docid"], "")
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, labels.COLUMNS)
        table.writeheader()
        table.writerows(rows)
    assert read(tmp_path / "pets", qrels=path).qrels == QRELS


def test_the_pool_hides_who_liked_what(tmp_path):
    """Rows are shuffled by the seed: the same seed, the same file."""
    dataset = read(beir_folder(tmp_path / "pets"))
    rankings = [first_stage(dataset, "first stage")]
    written = []
    for seed in (0, 0, 1, 2, 3):
        labels.write_pool(rankings, tmp_path / "pool.csv", depth=3, seed=seed)
        written.append((tmp_path / "pool.csv").read_text(encoding="utf-8"))
    assert written[0] == written[1]
    assert len(set(written)) > 1


def test_a_run_beside_a_table_is_refused(tmp_path):
    """A table carries its own order; a run beside it contradicts that."""
    path = tmp_path / "pets.csv"
    path.write_text("query,passage,label\na,b,1\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="no run beside it"):
        read(path, run=tmp_path / "a.trec")
