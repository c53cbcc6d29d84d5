"""Candidates from a corpus: BM25 over the files that people have."""

import pytest

from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation.retrieval import count, retrieve


@pytest.fixture
def corpus(tmp_path):
    """Three passages in BEIR's form, one of them twice."""
    rows = [
        '{"_id": "a", "title": "Cats", "text": "sleep a lot"}',
        '{"_id": "b", "text": "dogs bark at strangers"}',
        '{"_id": "c", "text": "birds fly south"}',
        '{"_id": "d", "text": "birds fly south"}',
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_candidates_share_a_word_with_their_query(corpus, tmp_path):
    """Best first with their scores; what shares nothing is no candidate; blank lines are none."""
    queries = tmp_path / "queries.txt"
    queries.write_text("when do cats sleep\n\nunheard of\nbirds or dogs\n", encoding="utf-8")
    seen = []
    found = retrieve(queries, corpus, depth=10, progress=lambda: seen.append(1))
    texts = [[one.text for one in topic.candidates] for topic in found.topics]
    assert texts[0] == ["Cats sleep a lot"]
    assert texts[1] == []
    assert sorted(texts[2]) == ["birds fly south", "dogs bark at strangers"]
    assert len(seen) == count(queries) == 3
    assert all(one.prior > 0.0 for topic in found.topics for one in topic.candidates)
    assert found.qrels == {}


def test_depth_bounds_the_candidates(corpus, tmp_path):
    """No query gets more candidates than asked for."""
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"query": "birds, dogs or cats"}\n', encoding="utf-8")
    assert len(retrieve(queries, corpus, depth=2).topics[0].candidates) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", "\n", "holds no text"),
        ("silent.txt", "the of\n? !\n", "without a word"),
        ("other.jsonl", '{"body": "x"}\n', 'as "text"'),
    ],
)
def test_a_corpus_without_texts_is_refused(name, text, message, tmp_path, corpus):
    """The message names the file and what was expected."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=message):
        retrieve(corpus, tmp_path / name, depth=5)
