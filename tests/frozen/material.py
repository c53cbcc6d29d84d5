"""What the frozen requests are made of: passages, clocks and scorers, and how results are written.

Only names that stay public are imported; what has no public door is in the functions under "Doors".
"""

import functools
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_plugins import Candidate, Reranker, RerankError, Result, load

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXITS = HERE / "exits"
"""Exits of the embedded model, calibrated once: the margins depend on measured speed."""

QUERIES = (
    "why does python use indentation",
    "how do I sort a list by a key",
    "what is a lambda expression",
    "how are default argument values shared between calls",
    "how to copy an object deeply",
    "what does the global interpreter lock do",
)
DIGITS = 6
USAGE = ("pairs", "tokens", "truncated_tokens", "remote_calls", "billed_units")
HIT = ("score", "probability", "fused", "prior", "stage", "depth", "truncated_tokens")
# What a machine's speed decides.
_TIMED = frozenset({"kernels", "graph"})

Row = dict[str, Any]


# Passages.


def corpus() -> list[Row]:
    """Read the passages of the demo."""
    lines = (ROOT / "examples/corpus/python-docs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> set[str]:
    """Give the words of a text, without those that say little."""
    return {one for one in re.findall(r"\w+", text.lower()) if len(one) > 3}


_CORPUS = corpus()
_BAGS = [words(f"{one['title']} {one['text']}") for one in _CORPUS]


def found(query: str, count: int = 12, *, chars: int = 160, skip: int = 0) -> list[Candidate]:
    """Find passages by shared words, best first, each with the share of them as its prior."""
    return list(_ranked(query, chars)[skip : skip + count])


@functools.cache
def _ranked(query: str, chars: int) -> tuple[Candidate, ...]:
    asked = words(query)
    shares = [len(asked & bag) / math.sqrt(len(bag) + 1.0) for bag in _BAGS]
    places = sorted(range(len(shares)), key=lambda place: (-shares[place], place))
    priors: dict[str, float] = {}
    for place in places:
        text = _CORPUS[place]["text"][:chars].rsplit(" ", 1)[0]
        priors.setdefault(text, round(shares[place], 6))
    return tuple(Candidate(text, prior) for text, prior in priors.items())


def bare(candidates: Sequence[Candidate]) -> list[str | None]:
    """Leave the texts of candidates alone."""
    return [one.text for one in candidates]


def labelled(candidates: Sequence[Candidate], *labels: object) -> list[Candidate]:
    """Label candidates in turn with where they may be processed; None: not at all."""
    told = [None if one is None else {"residency": one} for one in labels]
    return [
        Candidate(one.text, one.prior, told[place % len(told)])
        for place, one in enumerate(candidates)
    ]


def long_passages() -> list[Candidate]:
    """Give passages over the limits that requests set, among short ones."""
    joined = [
        " ".join(one["text"] for one in _CORPUS[start : start + parts])
        for start, parts in ((0, 2), (40, 2), (120, 5), (300, 1))
    ]
    short = [one.text or "" for one in found(QUERIES[0], 4)]
    texts = [text for pair in zip(joined, short, strict=True) for text in pair]
    return [Candidate(text, 5.0 - 0.5 * place) for place, text in enumerate(texts)]


def odd() -> list[Candidate]:
    """Give blanks, nothing, duplicates, ties of the prior, and text of every kind."""
    one, two, three, *_ = found(QUERIES[1], 6)
    texts = [one.text, "", two.text, None, one.text, " \t\n", three.text, two.text, "ünï ☃ 漢字"]
    priors = [3.0, 3.0, 2.0, 2.0, 3.0, 1.0, 1.0, 0.5, 0.5]
    return [Candidate(text, prior) for text, prior in zip(texts, priors, strict=True)]


# Clocks and scorers.


class Clock:
    """A clock that moves when told to; so late that no real deadline comes before its own."""

    def __init__(self) -> None:
        self.now_s = 2.0**30

    def __call__(self) -> float:
        """Give the time in seconds."""
        return self.now_s


class Paced:
    """A scorer with a fixed price per pair that moves a clock: hashes of the text are its scores.

    `slower` is how much longer it takes than its price says.
    """

    score_kind = "logit"

    def __init__(
        self, clock: Clock, price_s: float, name: str = "paced", *, slower: float = 1.0
    ) -> None:
        self.name = name
        self._clock, self._price_s, self._slower = clock, price_s, slower

    async def score(
        self, query: str, passages: Sequence[str], *, state: object = None, deadline_s: Any = None
    ) -> Any:
        """Score what the deadline allows, first ones first."""
        took_s = self._price_s * self._slower
        able = len(passages)
        if deadline_s is not None and took_s > 0.0:
            able = max(0, min(able, int((deadline_s - self._clock.now_s) / took_s)))
        self._clock.now_s += took_s * able
        return answered([hashed(query, one) for one in passages], able)

    def price_s(self, chars: Sequence[int]) -> float:
        """Ask the same for every passage."""
        return self._price_s

    def warm_up(self) -> None:
        """Need none."""

    def close(self) -> None:
        """Hold nothing."""


class Wrong(Paced):
    """A scorer that answers what cannot be ordered."""

    async def score(
        self, query: str, passages: Sequence[str], *, state: object = None, deadline_s: Any = None
    ) -> Any:
        """Give a number that is none, or a score too few."""
        if self.name == "nan":
            return answered([math.nan] * len(passages), len(passages))
        return answered([0.0] * (len(passages) - 1), len(passages) - 1)


def hashed(query: str, text: str) -> float:
    """Give a score that looks drawn and is the same everywhere."""
    total = sum((place + 7) * ord(letter) for place, letter in enumerate(f"{query}|{text}"[:400]))
    return (total % 9973) / 997.3 - 5.0


# Doors: whatever has no public one; adjust these after modules move.


def answered(scores: Sequence[float], done: int) -> Any:
    """Give a scorer's answer, of which the first `done` are scored."""
    from rerank_plugins.records import Code, Decision
    from rerank_plugins.scoring import Scored

    n = len(scores)
    late = (Decision("score", Code.DEADLINE, n - done),) if done < n else ()
    zeros = np.zeros(n, dtype=np.int64)
    values = np.array(scores, dtype=np.float32)
    return Scored(values, np.arange(n) < done, zeros, decisions=late)


def settle(reranker: Reranker) -> None:
    """Wait until the guard has thought about what it saw."""
    guard = reranker.setup.guard
    if guard is not None:
        guard.settle()


def clocked(settings: Mapping[str, object], clock: Clock) -> Reranker:
    """Build a reranker from settings, with a clock."""
    return Reranker(load(settings).setup, clock=clock)


def scorer_of(reranker: Reranker) -> Any:
    """Give the scorer of a reranker's first stage."""
    return reranker.setup.stages[0].scorer


# Results as data.


def number(value: object) -> object:
    """Round floats, leave everything else."""
    if isinstance(value, float) and math.isfinite(value):
        return round(value, DIGITS) + 0.0
    return repr(value) if isinstance(value, float) else value


def said(text: str, *, timed: bool = True) -> str:
    """Take ports, places on disk and ids out of a text, and times where a real clock told them."""
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    temporary = re.escape(tempfile.gettempdir()) + r"/[^\s'\",;:]*"
    text = re.sub(temporary, "FOLDER", text.replace(str(ROOT), "ROOT"))
    text = re.sub(r"\b[0-9a-f]{32,}\b", "ID", text)
    return re.sub(r"\b\d+(\.\d+)?(e-?\d+)? (ms|s)\b", r"# \3", text) if timed else text


def recorded(result: Result, *, clocked: bool = False) -> Row:
    """Give what a result says, less what a machine's speed decides."""
    row: Row = {
        "model": said(result.model),
        "order": list(result.order),
        "hits": [hit_row(hit) for hit in result.hits],
        "degraded": result.degraded,
        "decisions": [
            decision_row(one.step, one.code.code, one.count, one.detail, clocked=clocked)
            for one in result.decisions
        ],
        "usage": usage_row({name: getattr(result.usage, name) for name in USAGE}),
        "stages": [
            [said(one.stage), one.candidates, one.scored, one.error] for one in result.stages
        ],
    }
    if clocked:
        row["predicted_s"] = number(result.predicted_s)
        row["stages_s"] = [
            [one.stage, number(one.seconds)] for one in result.timings if one.step == "stage"
        ]
    return row


def hit_row(hit: Any) -> Row:
    """Give a hit without what it does not have."""
    values = {name: number(getattr(hit, name)) for name in HIT}
    return {"index": hit.index, **{name: one for name, one in values.items() if one is not None}}


def decision_row(step: str, code: str, count: int, detail: str, *, clocked: bool = False) -> Row:
    """Give a decision, with its detail where no real clock has a say in that."""
    row: Row = {"step": step, "code": code, "count": count}
    if detail and code not in _TIMED:
        row["detail"] = said(detail, timed=not clocked)
    return row


def usage_row(usage: Mapping[str, object]) -> Row:
    """Give what a request cost, less what depends on caches and batches."""
    return {name: number(usage[name]) for name in USAGE if usage.get(name)}


def facts_row(facts: Mapping[str, Any]) -> Row:
    """Give what an adapter says about a request, less times and ids."""
    rows = [
        decision_row(one["step"], one["code"], one["count"], one["detail"])
        for one in facts["decisions"]
    ]
    timings = sorted({one["step"] for one in facts["timings_ms"]})
    return {
        "model": said(facts["model"]),
        "degraded": facts["degraded"],
        "decisions": rows,
        "usage": usage_row(facts["usage"]),
        "steps": timings,
        "keys": sorted(facts),
    }


def failed(error: BaseException) -> Row:
    """Give an error: what it is called, and what it says."""
    kind = "RerankError" if isinstance(error, RerankError) else "other"
    return {"error": type(error).__name__, "kind": kind, "message": said(str(error))}
