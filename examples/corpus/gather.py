"""Cut the Python documentation, installed as HTML, into passages: gather.py HTML_FOLDER OUT.jsonl.

Debian's package python3.11-doc holds the HTML; SOURCES.md says what was taken and its licence.
"""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

PAGES = (
    "faq/design",
    "faq/extending",
    "faq/library",
    "faq/programming",
    "howto/functional",
    "howto/sockets",
    "howto/sorting",
    "howto/unicode",
    "tutorial/classes",
    "tutorial/controlflow",
    "tutorial/datastructures",
    "tutorial/errors",
    "tutorial/floatingpoint",
    "tutorial/inputoutput",
    "tutorial/modules",
)
LONGEST_WORDS = 130
SHORTEST_WORDS = 25
BLOCKS = frozenset({"p", "pre", "li", "dt"})
HEADINGS = frozenset({"h1", "h2", "h3", "h4"})


class Sections(HTMLParser):
    """Collects (heading, block of text) pairs from the body of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[str, str]] = []
        self.heading = ""
        self.text = ""
        self.skip = 1  # until the body; also counts open navigation

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if dict(attrs).get("class") == "body":
            self.skip = 0
        if tag == "nav" or dict(attrs).get("class") == "sphinxsidebar":
            self.skip += 1
        if tag in BLOCKS | HEADINGS:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if tag == "nav":
            self.skip -= 1
        if tag in HEADINGS and not self.skip:
            self.heading, self.text = " ".join(self.text.replace("¶", "").split()), ""
        elif tag in BLOCKS:
            self.flush()

    def handle_data(self, data: str) -> None:
        if not self.skip:
            self.text += data

    def flush(self) -> None:
        text = " ".join(self.text.replace("¶", "").split())
        if text and not self.skip:
            self.blocks.append((self.heading, text))
        self.text = ""


def passages(blocks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the blocks under a heading up to LONGEST_WORDS; drop what is too short to say much."""
    joined: list[tuple[str, str]] = []
    for heading, text in blocks:
        last = joined[-1] if joined else ("", "")
        if last[0] == heading and len(f"{last[1]} {text}".split()) <= LONGEST_WORDS:
            joined[-1] = (heading, f"{last[1]} {text}")
        else:
            joined.append((heading, text))
    return [one for one in joined if SHORTEST_WORDS <= len(one[1].split()) <= 2 * LONGEST_WORDS]


def main(html: Path, out: Path) -> None:
    with out.open("w", encoding="utf-8") as file:
        for page in PAGES:
            sections = Sections()
            sections.feed((html / f"{page}.html").read_text(encoding="utf-8"))
            for number, (heading, text) in enumerate(passages(sections.blocks), start=1):
                row = {"_id": f"{page}#{number}", "title": heading, "text": text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
