"""What people's files look like: nothing in them is lost or changed in silence."""

import csv
import json
import subprocess
import sys

import pytest

from tests.cli.test_cli import run

QUERY = ("run", "-q", "cats sleep", "-m", "lexical", "--json")
TEXTS = ["dogs bark", "cats sleep", "cats sleep, mostly"]


def write_csv(path, delimiter=","):
    """Write the texts as a table, each with a prior."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(["text", "prior"])
        rows.writerows([text, f"0.{9 - place}"] for place, text in enumerate(TEXTS))


def lines(rows):
    """Return JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def spoken(*arguments, encoding, text=""):
    """Run the command line in a process whose terminal has another encoding."""
    return subprocess.run(
        [sys.executable, "-m", "rerank_plugins.cli", *arguments, "-m", "lexical"],
        input=text.encode(),
        capture_output=True,
        check=True,
        timeout=60,
        env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PATH": ""},
    ).stdout.decode(encoding)


def asked(path, capsys):
    """Rerank a file and return the result."""
    assert run(*QUERY, "--docs", path) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


OBJECTS = [{"text": text, "prior": f"0.{9 - place}"} for place, text in enumerate(TEXTS)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("passages.txt", "\ufeff" + "\n".join(TEXTS)),
        ("passages.JSONL", lines(OBJECTS)),
        ("passages.ndjson", "\ufeff" + lines(OBJECTS)),
        ("passages.jsonl", lines(OBJECTS)),
        ("passages.json", json.dumps(OBJECTS, indent=1)),
        ("passages.JSON", json.dumps(TEXTS)),
        ("lines.json", lines(OBJECTS)),
        ("no-suffix", lines(OBJECTS)),
        ("passages.csv", None),
        ("passages.TSV", None),
    ],
)
def test_run_reads_every_form_of_a_list_of_passages(name, content, tmp_path, capsys):
    """The suffix counts in any case, a byte order mark does not; numbers may be strings."""
    path = tmp_path / name
    if content is None:
        write_csv(path, "," if name.endswith("csv") else "\t")
    else:
        path.write_text(content, encoding="utf-8")
    found = asked(path, capsys)
    assert found["order"] == [1, 2, 0]
    has_priors = content is None or "prior" in content
    assert [hit["prior"] for hit in found["hits"]] == (
        [0.8, 0.7, 0.9] if has_priors else [None] * 3
    )


def test_a_line_ends_at_a_line_feed_alone(tmp_path, capsys):
    """Separators and form feeds inside a passage do not cut it."""
    path = tmp_path / "passages.txt"
    path.write_text("cats\u2028sleep\fhere\nbirds\x85fly\x1cfar\r\ndogs\n", encoding="utf-8")
    assert len(asked(path, capsys)["order"]) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text\ncats, mostly asleep\n", "csv:2 has more fields than the header names"),
        ("a.csv", "cats sleep\ndogs bark\n", "csv:2 has the keys cats sleep; expected text"),
        ("a.csv", "cats sleep\n", "holds no row below its first line"),
        ("a.json", '{"text": ', "is not JSON"),
        ("a.json", "[1]", "item 1 is a int; expected a list of objects or texts"),
        ("a.html", "<p>cats</p>", "is a .html file; expected plain text with one a line, .jsonl"),
        ("a.jsonl", '{"text": "cats", "prior": "high"}', "jsonl:1 has the prior 'high'"),
        ("a.jsonl", '{"text": "cats", "score": true}', "jsonl:1 has the score 'True'"),
        ("a.jsonl", '{"text": "cats", "score": NaN}', "jsonl:1 has the score 'nan'"),
    ],
)
def test_what_cannot_be_read_is_refused(name, content, message, tmp_path, capsys):
    """A file in another form exits 2 and says what is read."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert run(*QUERY, "--docs", path) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "content", ["\ufeffcats sleep é\ndogs\n", lines([{"text": "cats sleep é"}])]
)
def test_standard_input_is_utf_8_whatever_the_terminal_says(content):
    """A locale of another encoding changes no letter of what is piped in."""
    arguments = ("run", "-q", "é", "--docs", "-", "--top-k", "1")
    assert "| cats sleep é" in spoken(*arguments, encoding="cp1252", text=content)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_a_letter_gets_the_rest(encoding, tmp_path):
    """A table for a terminal of few letters marks those it lacks; JSON escapes them."""
    path = tmp_path / "passages.txt"
    path.write_text("cats sleep 日本 \U0001f431\n" + "dogs bark " * 30 + "\n", encoding="utf-8")
    arguments = ("run", "-q", "日本", "--docs", path)
    shown = spoken(*arguments, "--explain", encoding=encoding)
    assert "cats sleep ??" in shown
    assert "#" in shown
    assert json.loads(spoken(*arguments, "--json", encoding=encoding))["order"] == [0, 1]
