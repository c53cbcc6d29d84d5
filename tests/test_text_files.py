"""Every door that reads a person's file takes a byte order mark for what it is: no text."""

import pytest

from rerank_plugins.config.read import read_settings
from rerank_plugins.errors import ConfigError
from rerank_plugins.evaluation import datasets
from rerank_plugins.evaluation.retrieval import count
from rerank_plugins.quality.guard.log import read as read_log
from rerank_plugins.remote.auth import from_file
from rerank_plugins.serving.http.run import open_tokens

MARK = "\ufeff"


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a file as some editors do, and gives its path."""

    def save(name, text):
        path = tmp_path / name
        path.write_bytes((MARK + text.replace("\n", "\r\n")).encode())
        return path

    return save


def test_the_first_token_and_a_key_open_doors(saved):
    """Neither the server's first token nor a provider's key begins with the mark."""
    assert open_tokens(str(saved("tokens.txt", "alpha\n# old\nbeta\u2028b\n"))) == (
        "alpha",
        "beta\u2028b",
    )
    assert open_tokens(str(saved("comment.txt", "# ours\nalpha\n"))) == ("alpha",)
    assert from_file(saved("key", "s3cret\n")).get() == "s3cret"


def test_tokens_in_another_encoding_are_refused(tmp_path):
    """A file of UTF-16, which some shells write, is named and is no traceback."""
    path = tmp_path / "tokens.txt"
    path.write_text("alpha\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="is no text in UTF-8"):
        open_tokens(str(path))


def test_settings_are_read_with_the_mark(saved):
    """TOML and JSON, and a suffix in any case."""
    assert read_settings(saved("a.toml", "strict = true\n")).strict
    assert read_settings(saved("a.JSON", '{"strict": true}')).strict


def test_the_first_judgement_query_and_hit_count(saved):
    """Runs, judgements, queries and logs keep their first line."""
    assert datasets.read_qrels(saved("qrels.txt", "q 0 a 1\n")) == {"q": {"a": 1}}
    assert datasets.read_run(saved("a.trec", "q Q0 a 1 9.5 x\n")) == {"q": [("a", 9.5)]}
    assert count(saved("queries.txt", "cats\n")) == 1
    (topic,) = datasets.read(
        saved("a.ndjson", '{"query": "q", "passage": "p", "label": 1}\n')
    ).topics
    assert topic.query == "q"
    line = '{"kind": "canaries", "at_s": 1.0, "value": 0.1, "harmful": false}\n'
    assert [entry.kind for entry in read_log(saved("guard.jsonl", line))] == ["canaries"]
