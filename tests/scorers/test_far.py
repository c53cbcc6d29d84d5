"""Long passages that answer behind their first 512 tokens, made as the FarRelevant set is."""

import json
import math
import random
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from rerank_plugins import load

CORPUS = Path(__file__).parents[2] / "examples/corpus/python-docs.jsonl"
QUESTIONS, CANDIDATES, FILLER_WORDS = 16, 8, 520


@dataclass(frozen=True)
class Asked:
    """A question, the passages as they are and behind filler, and which one answers."""

    question: str
    short: list[str]
    far: list[str]
    answer: int


def words(text):
    """Give the words of a text that could be about something."""
    return set(re.findall(r"[a-z_]{3,}", text.lower()))


@pytest.fixture(scope="module")
def asked():
    """Frequently asked questions; filler shares no word with them but the most common ones."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    texts = [f"{row['title']} {row['text']}" for row in rows]
    common = Counter(word for text in texts for word in words(text))
    filler = [row for row in rows if not row["title"].endswith("?")]
    answers = {
        row["title"]: " ".join(row["text"].split()[:100])
        for row in reversed(rows)
        if row["title"].endswith("?") and len(row["text"].split()) >= 30
    }
    draw = random.Random(0)
    found = []
    for question in draw.sample(sorted(answers), QUESTIONS):
        others = draw.sample(sorted(set(answers) - {question}), CANDIDATES - 1)
        short = [answers[one] for one in draw.sample([question, *others], CANDIDATES)]
        rare = {word for word in words(question) if common[word] < len(rows) / 4}
        apart = [one["text"] for one in filler if not rare & words(one["title"] + one["text"])]
        far = [f"{_fill(apart, draw)} {one}" for one in short]
        found.append(Asked(question, short, far, short.index(answers[question])))
    return found


def _fill(texts, draw):
    out = []
    while len(out) < FILLER_WORDS:
        out += draw.choice(texts).split()
    return " ".join(out)


def ndcg(asked, which, **settings):
    """Give the mean nDCG@10; one passage of each question is relevant."""
    values = []
    with load({"stages": [{"scorer": "embedded", **settings}]}) as reranker:
        for one in asked:
            order = reranker.rerank(one.question, getattr(one, which)).order
            values.append(1.0 / math.log2(order.index(one.answer) + 2))
    return statistics.fmean(values)


@pytest.mark.slow
def test_windows_find_what_truncation_loses(asked):
    """Cutting loses at least .2 of nDCG, and windows bring back at least half of what it loses."""
    short = ndcg(asked, "short")
    cut = ndcg(asked, "far", long="truncate")
    assert cut <= short - 0.2
    assert ndcg(asked, "far", fold="log_mean_exp") >= (short + cut) / 2.0
