"""Random passages: what the model gives to text that has nothing to do with the query."""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...records import Candidate

Score: TypeAlias = Callable[[str, str], float]
"""Scores one passage against one query, at leisure; nan where it cannot."""

_KEPT = 32
# Neighbours in time may be the same session, hence the same topic.
_APART = 8


@dataclass(slots=True)
class Strangers:
    """Keeps one passage each of the last few requests, in memory alone, for later ones."""

    every: int
    scorer: Score | None = None
    seen: int = 0
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    source: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def score(self, query: str, candidates: Sequence[Candidate]) -> float:
        """Score a passage of an earlier request for one request in `every`; nan for the others."""
        if self.scorer is None or not self.every:
            return math.nan
        self.seen += 1
        known = list(self.kept)[: max(0, len(self.kept) - _APART)]
        texts = [one.text for one in candidates if one.text and one.text.strip()]
        if texts:
            self.kept.append(texts[len(texts) // 2])
        if not known or self.seen % self.every:
            return math.nan
        return self.scorer(query, self.source.choice(known))
