"""Prove on real pairs that a rewritten graph gives the scores of the original."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..session import Graph
from ..tokens import PairArrays, PairTokenizer

# As a share of the spread of the original's scores: far below what could change an order.
TOLERANCE = 1e-4
# Scores of a spread below this share of their size are rounding noise around one value.
_LEAST_SPREAD = 1e-3

_QUERY = "how do bees find their way back to the hive"
_PASSAGES = (
    (
        "Foraging honeybees navigate by the sun's position and polarised light, and they learn "
        "landmarks such as trees, hedges and buildings on their first orientation flights around "
        "the hive. Experiments with displaced bees show that they integrate the distance and "
        "direction of the outward trip into one vector, which brings them straight home even over "
        "unknown ground; where landmarks and the vector disagree, they trust the landmarks."
    ),
    "No.",
    "The hive of a bumblebee holds a few hundred animals at most.",
    (
        "Sourdough needs flour, water, salt and patience: feed the starter twice a day until it "
        "doubles within six hours, then fold the dough every half hour and let it rest overnight."
    ),
    "They use the sun.",
    "A bus leaves for the harbour every 20 minutes (line 7, stop B); the last one at 23:40.",
)
# Which passages run together: alone, padded to a longer one, and all at once.
_BATCHES = ((0,), (2, 4), (0, 1, 3, 5))


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two graphs are apart: the largest difference, as a share of the scores' spread."""

    difference: float
    pairs: int

    @property
    def equal(self) -> bool:
        """Tell whether they give the same scores, and with that the same order."""
        return self.difference <= TOLERANCE


def probes(tokenizer: PairTokenizer, max_tokens: int) -> tuple[PairArrays, ...]:
    """Make batches of real pairs: several lengths, with and without padding."""
    query = tokenizer.query(_QUERY)[: max_tokens // 2]
    ids, _ = tokenizer.passages(_PASSAGES)
    room = max(1, max_tokens - len(query) - tokenizer.template.special_tokens)
    extra = len(query) + tokenizer.template.special_tokens
    batches: list[PairArrays] = []
    for chosen in _BATCHES:
        passages = [ids[i][:room] for i in chosen]
        length = max(len(one) for one in passages) + extra
        batches.append(tokenizer.assemble(query, passages, length))
    return tuple(batches)


def compare(original: Graph, rewritten: Graph, batches: Sequence[PairArrays]) -> Parity:
    """Run both graphs over all batches and compare every column of every pair."""
    expected = np.concatenate([original.run(batch) for batch in batches]).astype(np.float64)
    found = np.concatenate([rewritten.run(batch) for batch in batches]).astype(np.float64)
    if expected.shape != found.shape or not np.isfinite(found).all():
        return Parity(float("inf"), len(expected))
    size = np.abs(expected).max(axis=0)
    spread = np.maximum(expected.std(axis=0), _LEAST_SPREAD * np.maximum(size, 1e-30))
    difference = np.abs(expected - found).max(axis=0) / spread
    return Parity(float(difference.max()), len(expected))
