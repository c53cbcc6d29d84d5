"""Reading what people have."""

import json

import pytest

from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation import datasets
from tests.small_collections import QRELS, RUN, beir_folder, rerank_folder, text


@pytest.mark.parametrize("layout", [beir_folder, rerank_folder])
def test_both_layouts_give_the_same_collection(layout, tmp_path):
    """Texts are title and body, priors the run's scores, order the run's."""
    found = datasets.read(layout(tmp_path / "pets"))
    assert {one.qid: list(one.docids) for one in found.topics} == RUN
    assert found.qrels == QRELS
    first = found.topics[0]
    assert (first.query, first.candidates[1].text) == ("cats sleep", text("d2"))
    assert [one.prior for one in first.candidates] == [9.0, 8.0, 7.0]
    assert [one.qid for one in found.judged.topics] == ["q1", "q2"]


def test_a_run_is_ordered_by_score_and_ties_by_line(tmp_path):
    """Scores decide, as in trec_eval, not the rank column; ties keep the order of the file."""
    path = tmp_path / "a.trec"
    path.write_text("q Q0 a 1 1.0 x\nq Q0 b 2 3.0 x\nq Q0 c 3 1.0 x\n", encoding="utf-8")
    assert [docid for docid, _ in datasets.read_run(path)["q"]] == ["b", "a", "c"]


def test_judgements_come_in_three_or_four_columns(tmp_path):
    """BEIR's header is skipped; TREC's second column is ignored; relevance may be negative."""
    path = tmp_path / "qrels"
    path.write_text("query-id\tcorpus-id\tscore\nq\ta\t1\nq 0 b -1\n", encoding="utf-8")
    assert datasets.read_qrels(path) == {"q": {"a": 1, "b": -1}}


def test_a_given_qrels_file_wins_over_the_folders_own(tmp_path):
    """--qrels replaces what lies in the folder."""
    other = tmp_path / "other.txt"
    other.write_text("q1 0 d3 3\n", encoding="utf-8")
    found = datasets.read(beir_folder(tmp_path / "pets"), qrels=other)
    assert found.qrels == {"q1": {"d3": 3}}


def test_a_sample_is_seeded_and_keeps_the_order(tmp_path):
    """The same seed draws the same topics; too large a sample is the whole."""
    found = datasets.read(beir_folder(tmp_path / "pets"))
    drawn = datasets.sample(found, 2, seed=1)
    assert drawn == datasets.sample(found, 2, seed=1)
    qids = [one.qid for one in drawn.topics]
    assert qids == sorted(qids)
    assert datasets.sample(found, 9) == found


def test_shortened_topics_keep_their_first_candidates(tmp_path):
    """A depth cuts ids and candidates alike."""
    found = datasets.shorten(datasets.read(beir_folder(tmp_path / "pets")), 2)
    assert [len(one.docids) for one in found.topics] == [2, 2, 1]
    assert all(len(one.docids) == len(one.candidates) for one in found.topics)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("candidates/bm25.trec", "q1 Q0 d1 1\n", r"trec:1 reads 'q1 Q0 d1 1'"),
        ("candidates/bm25.trec", "q1 Q0 d1 1 high x\n", "TREC run"),
        ("candidates/bm25.trec", "q9 Q0 d1 1 1 x\n", "names 1 queries"),
        ("candidates/bm25.trec", "q1 Q0 d9 1 1 x\n", "such as 'd9'"),
        ("qrels/test.tsv", "q1 d1 yes\n", "tsv:1 reads"),
        ("corpus.jsonl", '{"_id": "d1"}\n', "expected _id and text"),
        ("corpus.jsonl", "[1]\n", "holds a list"),
        ("queries.jsonl", "{not json\n", "is not JSON"),
    ],
)
def test_a_broken_file_is_named_with_its_line(name, content, message, tmp_path):
    """Errors name file and line, what was found and what was expected."""
    folder = beir_folder(tmp_path / "pets")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=message):
        datasets.read(folder)


def test_several_runs_must_be_chosen_from(tmp_path):
    """Where the folder holds more than one run, the error lists them."""
    folder = beir_folder(tmp_path / "pets")
    (folder / "candidates" / "dense.trec").write_text("", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"bm25\.trec, candidates/dense\.trec"):
        datasets.read(folder)


def test_a_rerank_line_that_lacks_something_is_named(tmp_path):
    """A line without candidates, or a candidate without text, says which line."""
    folder = rerank_folder(tmp_path / "pets")
    line = {"qid": "q1", "query": "x", "candidates": [{"docid": "d"}]}
    (folder / "rerank" / "bm25.jsonl").write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"jsonl:1 lacks something \(KeyError\('text'\)\)"):
        datasets.read(folder)


def test_a_table_of_query_passage_label_is_a_dataset(tmp_path):
    """Rows of one query are its candidates in the order of the file; blank is not judged."""
    path = tmp_path / "pets.csv"
    path.write_text(
        'query,passage,label\ncats,"dogs, mostly",0\ncats,cats sleep,2\nhens,foxes,\n',
        encoding="utf-8",
    )
    found = datasets.read(path)
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
    (topic,) = datasets.read(path).topics
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
        datasets.read(tmp_path / "bad.csv")


def test_a_run_beside_a_table_is_refused(tmp_path):
    """A table carries its own order; a run beside it contradicts that."""
    path = tmp_path / "pets.csv"
    path.write_text("query,passage,label\na,b,1\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="no run beside it"):
        datasets.read(path, run=tmp_path / "a.trec")


def test_scores_labels_and_texts_keep_their_meaning(tmp_path):
    """Numbers in strings count, a missing text is blank, and what is no number is refused."""
    folder = rerank_folder(tmp_path / "pets")
    place = folder / "rerank" / "bm25.jsonl"
    hits = [
        {"docid": "a", "text": "cats", "score": "2.5", "rel": "1"},
        {"docid": "b", "text": None, "score": 1, "rel": True},
        {"docid": "c", "text": "dogs", "score": "", "rel": None},
    ]
    line = {"qid": "q", "query": "cats", "candidates": hits}
    place.write_text(json.dumps(line), encoding="utf-8")
    found = datasets.read(folder)
    (topic,) = found.topics
    assert [(one.text, one.prior) for one in topic.candidates] == [
        ("cats", 2.5),
        ("", 1.0),
        ("dogs", None),
    ]
    assert found.qrels["q"] == {"a": 1, "b": 1}
    for wrong in ({"score": "high"}, {"rel": "relevant"}, {"text": ["cats"]}):
        place.write_text(json.dumps({**line, "candidates": [hits[0] | wrong]}), encoding="utf-8")
        with pytest.raises(InvalidRequest, match=r"jsonl:1.*(expected a number|expected text)"):
            datasets.read(folder)


@pytest.mark.parametrize("suffix", [".TSV", ".json", ".ndjson"])
def test_tables_come_in_several_forms(suffix, tmp_path):
    """The same table as tab separated values, a JSON list and JSON lines; labels apart, too."""
    rows = [{"query": "cats", "passage": "cats sleep", "label": 1, "qid": "q", "docid": "d"}]
    text = json.dumps(rows if suffix == ".json" else rows[0])
    if suffix == ".TSV":
        text = "\n".join("\t".join(map(str, row)) for row in (rows[0], rows[0].values()))
    path = tmp_path / f"pets{suffix}"
    path.write_text(text, encoding="utf-8")
    found = datasets.read(path)
    assert found.topics[0].candidates[0].text == "cats sleep"
    assert found.qrels == {"q": {"d": 1}}
    if suffix != ".TSV":
        assert datasets.read_judgements(path) == {"q": {"d": 1}}
