"""Long passages that answer behind their first 512 tokens, made as the FarRelevant set is."""

import bisect
import itertools
import json
import math
import random
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rerank_plugins import load

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "examples/corpus/python-docs.jsonl"
TOKENIZER = ROOT / "rerank_plugins/models/embedded/tokenizer.json"
DRAWS, QUESTIONS, CANDIDATES, FILLER_WORDS, FILLER_TOKENS = 5, 12, 8, 520, 512


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
def draws():
    """Draws of frequently asked questions, other ones each time, the same every time."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    tokens = Tokenizer.from_file(str(TOKENIZER))
    return [_asked(rows, random.Random(seed), tokens) for seed in range(DRAWS)]


def _asked(rows, draw, tokens):
    """Draw questions; filler shares no word with them but the most common ones."""
    texts = [f"{row['title']} {row['text']}" for row in rows]
    common = Counter(word for text in texts for word in words(text))
    filler = [row for row in rows if not row["title"].endswith("?")]
    answers = {
        row["title"]: " ".join(row["text"].split()[:100])
        for row in reversed(rows)
        if row["title"].endswith("?") and len(row["text"].split()) >= 30
    }
    found = []
    for question in draw.sample(sorted(answers), QUESTIONS):
        others = draw.sample(sorted(set(answers) - {question}), CANDIDATES - 1)
        short = [answers[one] for one in draw.sample([question, *others], CANDIDATES)]
        rare = {word for word in words(question) if common[word] < len(rows) / 4}
        apart = [one["text"] for one in filler if not rare & words(one["title"] + one["text"])]
        far = [f"{_fill(apart, draw, tokens)} {one}" for one in short]
        found.append(Asked(question, short, far, short.index(answers[question])))
    return found


def _fill(texts, draw, tokens):
    """Draw texts that end with at least so many tokens; what they have more in front is cut."""
    out = []
    while len(out) < FILLER_WORDS:
        out += draw.choice(texts).split()
    sizes = [len(one.ids) for one in tokens.encode_batch(out, add_special_tokens=False)]
    behind = list(itertools.accumulate(reversed(sizes)))
    return " ".join(out[-1 - bisect.bisect_left(behind, FILLER_TOKENS) :])


def ndcg(asked, which, **settings):
    """Give nDCG@10 for each question; one passage of each is relevant."""
    values = []
    stage = {"scorer": "embedded", "precision": "fp32", **settings}
    with load({"stages": [stage]}) as reranker:
        for one in asked:
            order = reranker.rerank(one.question, getattr(one, which)).order
            values.append(1.0 / math.log2(order.index(one.answer) + 2))
    return values


@pytest.mark.slow
def test_windows_find_what_truncation_loses(draws):
    """Behind 512 tokens windows lose at most .02 of nDCG, where truncation loses .2 and more."""
    asked = [one for questions in draws for one in questions]
    short = ndcg(asked, "short")
    assert statistics.fmean(ndcg(asked, "far")) >= statistics.fmean(short) - 0.02
    cut = ndcg(draws[0], "far", long="truncate")
    assert statistics.fmean(cut) <= statistics.fmean(short[: len(cut)]) - 0.2
