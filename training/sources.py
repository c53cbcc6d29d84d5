"""Training text: read the permissive sources, make pairs, write queries.jsonl and passages.jsonl."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import random
import re
import textwrap
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CODE_PACKAGES = {  # name: licence, as each package's own metadata says
    "aiohttp": "Apache-2.0", "astropy": "BSD-3-Clause", "beautifulsoup4": "MIT", "boltons": "BSD-3-Clause",
    "celery": "BSD-3-Clause", "click": "BSD-3-Clause", "django": "BSD-3-Clause", "fabric": "BSD-2-Clause",
    "flask": "BSD-3-Clause", "httpx": "BSD-3-Clause", "more-itertools": "MIT", "nltk": "Apache-2.0",
    "openpyxl": "MIT", "pandas": "BSD-3-Clause", "pytest": "MIT", "requests": "Apache-2.0", "rich": "MIT",
    "sqlalchemy": "MIT", "statsmodels": "BSD-3-Clause", "toolz": "BSD-3-Clause", "tornado": "Apache-2.0",
    "twisted": "MIT", "werkzeug": "BSD-3-Clause", "xarray": "Apache-2.0",
}  # fmt: skip
LIMITS = {  # queries kept per source; passages come with them
    "ares": 10_000, "medquad": 5_000, "nqg": 7_000, "squad": 4_500, "nq": 2_655, "pubmedqa": 1_000,
    "code": 6_500, "docs": 2_000, "cloze": 3_500, "title": 1_500, "keywords": 3_500,
}  # fmt: skip
PASSAGE_CHARACTERS = 1_500
STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "their",
        "there",
        "these",
        "this",
        "to",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
    ],
)


@dataclass(slots=True)
class Pair:
    """One query with a passage that answers it, and passages labelled as not answering it."""

    query: str
    positive: str
    source: str
    negatives: list[str] = field(default_factory=list)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _plain(text: str) -> str:
    """Undo Penn Treebank tokens.

    >>> _plain("the denver broncos -lrb- afc -rrb- won 24 -- 10 .")
    'the denver broncos (afc) won 24 - 10.'
    """
    for old, new in (
        ("-lrb- ", "("),
        (" -rrb-", ")"),
        ("``", '"'),
        ("''", '"'),
        (" -- ", " - "),
        ("-lsb- ", "["),
        (" -rsb-", "]"),
    ):
        text = text.replace(old, new)
    return re.sub(r" ([.,?;:!%)]|'s\b|n't\b)", r"\1", text)


def _ares(root: Path) -> Iterator[Pair]:
    for row in _rows(root / "ares-synthetic" / "pairs.jsonl.gz"):
        if row["label"] and "@placeholder" not in row["query"]:
            yield Pair(row["query"], row["passage"], "ares")


def _simple(root: Path) -> Iterator[Pair]:
    for row in _rows(root / "medquad" / "pairs.jsonl.gz"):
        yield Pair(
            row["query"].replace("(are) ", "").replace(" ?", "?"), row["positive"], "medquad"
        )
    for row in _rows(root / "nqg-squad-sent" / "pairs.jsonl.gz"):
        yield Pair(_plain(row["query"]), _plain(row["positive"]), "nqg")
    for row in _rows(root / "squad-dev" / "pairs.jsonl.gz"):
        yield Pair(row["query"], row["positive"], "squad")
    for row in _rows(root / "nq-open-oracle" / "pairs.jsonl.gz"):
        yield Pair(row["query"], row["positive"], "nq")
        yield Pair(row["title"], row["positive"], "title")
    for row in _rows(root / "pubmedqa" / "pairs.jsonl.gz"):
        yield Pair(row["query"], row["positive"], "pubmedqa")


def _functions(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (name, docstring, code with its docstring removed) of documented functions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not (doc := ast.get_docstring(node)):
            continue
        first = node.body[0]
        kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
        yield node.name, doc, textwrap.dedent("\n".join(kept))


def _code(wheels: Path, rng: random.Random) -> Iterator[Pair]:
    """Yield first docstring line -> code, name words -> code with docstring, first line -> rest of the docstring."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith(".py") or "/tests/" in name or "/test_" in name:
                    continue
                text = archive.read(name).decode("utf-8", "replace")
                for function, doc, code in _functions(text):
                    yield from _code_pairs(function, doc, code, rng)


def _code_pairs(function: str, doc: str, code: str, rng: random.Random) -> Iterator[Pair]:
    head, _, rest = doc.strip().partition("\n\n")
    head = " ".join(head.split())
    words = function.strip("_").replace("_", " ")
    if not 20 <= len(head) <= 160 or not 60 <= len(code) <= 2_000 or function.startswith("test"):
        return
    draw = rng.random()
    if draw < 0.45:
        yield Pair(head, code, "code")
    elif draw < 0.75 and " " in words:
        header, _, body = code.partition("\n")
        yield Pair(f"python {words}", f'{header}\n    """{doc}"""\n{body}', "code")
    else:
        yield Pair(content_words("python " + head), f"{code}", "code")
    if len(rest) > 200:
        yield Pair(head, " ".join(rest.split()), "docs")


def content_words(question: str) -> str:
    """Return a question's content words, as people type them into a search box.

    >>> content_words("What is the capital of France?")
    'capital france'
    """
    words = re.findall(r"[\w'-]+", question.lower())
    return " ".join(word for word in words if word not in STOP)


def _derived(pairs: list[Pair], rng: random.Random) -> Iterator[Pair]:
    """Yield sentence -> rest of its paragraph, and keyword queries."""
    prose = [
        pair for pair in pairs if pair.source in {"ares", "medquad", "squad", "nq", "pubmedqa"}
    ]
    for pair in rng.sample(prose, min(len(prose), 12_000)):
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", pair.positive)
        long = [i for i, sentence in enumerate(sentences) if 40 <= len(sentence) <= 240]
        if len(sentences) >= 4 and long:
            i = rng.choice(long)
            yield Pair(sentences[i], " ".join(sentences[:i] + sentences[i + 1 :]), "cloze")
    for pair in rng.sample(pairs, min(len(pairs), 9_000)):
        if (
            pair.source in {"ares", "medquad", "nqg", "squad", "nq"}
            and len(content_words(pair.query).split()) >= 3
        ):
            yield Pair(content_words(pair.query), pair.positive, "keywords")


def _fingerprint(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())[:120]


def judged_fingerprints(root: Path) -> set[str]:
    """Return fingerprints of every judged text, so that none of it can be trained on."""
    seen = set()
    for path in sorted(root.glob("*/corpus.jsonl")) + sorted(root.glob("*/queries.jsonl")):
        with path.open(encoding="utf-8") as file:
            seen |= {_fingerprint(json.loads(line)["text"]) for line in file}
    return seen


def prepare(train: Path, wheels: Path, judged: Path, out: Path, *, seed: int = 0) -> dict[str, int]:
    """Write passages.jsonl and queries.jsonl under `out`; return the queries per source."""
    rng = random.Random(seed)
    pairs = [*_ares(train), *_simple(train), *_code(wheels, rng)]
    pairs += list(_derived(pairs, rng))
    rng.shuffle(pairs)
    banned = judged_fingerprints(judged)
    places: dict[str, int] = {}
    counts: dict[str, int] = {}
    seen: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "queries.jsonl").open("w", encoding="utf-8") as file:
        for pair in pairs:
            passage = pair.positive[:PASSAGE_CHARACTERS].strip()
            if (
                counts.get(pair.source, 0) >= LIMITS[pair.source]
                or pair.query in seen
                or not passage
                or _fingerprint(passage) in banned
                or _fingerprint(pair.query) in banned
            ):
                continue
            seen.add(pair.query)
            counts[pair.source] = counts.get(pair.source, 0) + 1
            place = places.setdefault(passage, len(places))
            fold = int(hashlib.sha256(pair.query.encode()).hexdigest(), 16) % 100
            row = {
                "query": pair.query,
                "positive": place,
                "source": pair.source,
                "held_out": fold < 2,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    _write_passages(out / "passages.jsonl", places)
    return counts


def _write_passages(path: Path, places: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for text in places:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
