"""Null passages: the scores of passages that have nothing to do with the query."""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...records import Candidate
from ...rules.texts import is_blank

PairScorer: TypeAlias = Callable[[str, str], float]
"""Returns the score of a query and a passage outside of any request; nan where it cannot."""

_KEPT = 32
# Requests close in time may belong to one session, hence to one topic.
_GAP = 8


@dataclass(slots=True)
class NullPassages:
    """Keeps a passage of each of the last requests, in memory alone, to score with later queries.

    Every `every`-th request is scored; 0: none.
    """

    every: int
    scorer: PairScorer | None = None
    seen: int = 0
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    source: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def score(self, query: str, candidates: Sequence[Candidate]) -> float:
        """Return the score of an earlier request's passage; nan for most requests."""
        if self.scorer is None or not self.every:
            return math.nan
        self.seen += 1
        known = list(self.kept)[: max(0, len(self.kept) - _GAP)]
        texts = [item.text for item in candidates if item.text and not is_blank(item.text)]
        if texts:
            self.kept.append(texts[len(texts) // 2])
        if not known or self.seen % self.every:
            return math.nan
        return self.scorer(query, self.source.choice(known))
