"""BM25 over the candidates of a request: no model, no corpus, microseconds."""

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from ..records import Code, Decision, Timing, Usage
from . import Scored, ScoreKind, State
from .runtime.jobs import Job, run_jobs

_WORD = re.compile(r"\w+")
_K1, _B = 0.9, 0.4


class LexicalScorer:
    """Scores by word overlap (Robertson & Zaragoza 2009), statistics taken from the candidates.

    For a first stage of cascades, and as a fallback where no model can be loaded.
    """

    name = "lexical"
    score_kind: ScoreKind = "lexical"

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - it has no state
        deadline_s: float | None = None,
    ) -> Scored:
        """Score all passages, or none after the deadline; those without a query word score 0."""
        n = len(passages)
        started = time.monotonic()
        (scores,) = await run_jobs(
            [Job(partial(bm25, query, passages), tokens=0)], admit=partial(_in_time, deadline_s)
        )
        done = scores is not None
        return Scored(
            np.array(scores if done else [0.0] * n, dtype=np.float32),
            np.full(n, done, dtype=np.bool_),
            np.zeros(n, dtype=np.int64),
            timings=(Timing("score", time.monotonic() - started),),
            decisions=() if done or not n else (Decision("score", Code.DEADLINE, n),),
            usage=Usage(pairs=n if done else 0),
        )

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm."""

    def close(self) -> None:
        """Do nothing: nothing is held."""


def bm25(query: str, passages: Sequence[str]) -> list[float]:
    """Score passages by BM25 with k1 = 0.9, b = 0.4 and the document frequencies among them.

    >>> bm25("red fox", ["a red fox", "a red hen", "hen"])[0] > 0
    True
    """
    bags = [Counter(word.lower() for word in _WORD.findall(text)) for text in passages]
    lengths = [sum(bag.values()) for bag in bags]
    mean = (sum(lengths) / len(lengths) if lengths else 0.0) or 1.0
    frequency = Counter(word for bag in bags for word in bag)
    n = len(bags)
    scores = [0.0] * n
    for word in {word.lower() for word in _WORD.findall(query)}:
        weight = math.log(1.0 + (n - frequency[word] + 0.5) / (frequency[word] + 0.5))
        for i, bag in enumerate(bags):
            count = bag[word]
            if count:
                scale = _K1 * (1.0 - _B + _B * lengths[i] / mean)
                scores[i] += weight * count * (_K1 + 1.0) / (count + scale)
    return scores


def _in_time(deadline_s: float | None, _job: Job[list[float]]) -> bool:
    return deadline_s is None or time.monotonic() <= deadline_s
