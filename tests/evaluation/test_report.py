"""Reports stand alone, say what was measured, and never take text for markup."""

import json
import re
from html.parser import HTMLParser

import pytest

from rerank_plugins import Candidate, Reranker
from rerank_plugins.evaluation import Dataset, Topic, adjust, compare, report
from rerank_plugins.evaluation.report import html, markdown, plots

EVIL = "<script>alert('|')</script> & co"
PETS = Dataset(
    "pets <1>",
    (
        Topic(
            "q1",
            f"foxes {EVIL}",
            ("a", "b"),
            (Candidate("hens"), Candidate(f"foxes {EVIL}")),
        ),
        Topic("q2", "hens", ("a", "b"), (Candidate("foxes"), Candidate("hens"))),
    ),
    {"q1": {"a": 1, "b": 0}, "q2": {"b": 1}},
)


@pytest.fixture(scope="module")
def comparisons():
    """Return two comparisons with one loss, one win each."""
    one = compare(PETS, {"lexical": Reranker("lexical")})
    return adjust([one, one])


class Tags(HTMLParser):
    """Collects what a page is made of, and checks that it is well nested."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses = [], set(), []

    def handle_starttag(self, tag, attrs):
        """Note the tag, and every address it would fetch."""
        self.seen.add(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close the innermost tag."""
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_nested(comparisons):
    """No script, no stylesheet, no image or font from anywhere."""
    tags = Tags()
    tags.feed(html.page(comparisons))
    assert tags.open == []
    assert {"script", "link", "img", "iframe"} & tags.seen == set()
    assert all(address is None or address.startswith("#") for address in tags.addresses)
    assert "svg" in tags.seen


def test_texts_are_escaped(comparisons):
    """A passage is text, whatever it looks like."""
    page = html.page(comparisons)
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "pets &lt;1&gt;" in page


def test_the_page_shows_the_numbers(comparisons):
    """Means, differences with intervals, and the query that lost are there."""
    page = html.page(comparisons)
    system = comparisons[0].systems[1]
    assert f"{system.means['nDCG@10']:.3f}" in page
    assert "1 won, 0 tied, 1 lost" in page
    assert "What lexical made worst" in page
    assert "1 before, 2 after" in page


def test_an_overview_leads_to_each_set(comparisons):
    """With several sets both reports begin with their means; links of the page have targets."""
    page, system = html.page(comparisons), comparisons[0].systems[1]
    targets = re.findall(r'href="#(set-\d)"', page)
    assert targets == ["set-1", "set-2"]
    assert all(f'id="{one}"' in page for one in targets)
    assert f"**{system.means['nDCG@10']:.3f}**" in markdown.page(comparisons)
    assert "**mean**" not in markdown.page(comparisons[:1])


def test_markdown_tables_keep_their_columns(comparisons):
    """Every row of a table has as many cells as its head, whatever the texts hold."""
    blocks = re.findall(r"(?:^\|.*\n)+", markdown.page(comparisons), flags=re.MULTILINE)
    assert blocks
    for block in blocks:
        assert len({row.count("|") for row in block.splitlines()}) == 1


def test_the_json_report_is_the_record(comparisons, tmp_path):
    """Everything measured is in it, by field name."""
    report.write(comparisons, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    system = found["comparisons"][0]["systems"][1]
    assert system["differences"]["nDCG@10"]["wins"] == 1
    assert system["cost"]["latency"]["n"] == 2


def test_plots_are_reproducible(comparisons):
    """The same numbers give the same bytes, so that a committed report does not churn."""
    assert plots.forest(comparisons) == plots.forest(comparisons)
    assert plots.pareto(comparisons).startswith("<svg")
