"""Prove on real pairs that a rewritten graph keeps the original's scores, or its order."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...text.tokenizer import PairArrays, PairTokenizer
from ..session import Graph

# Of `difference`: far below what could change an order.
TOLERANCE = 1e-4
# A spread below this share of the scores' size is rounding noise around one value.
_LEAST_SPREAD = 1e-3
# int8 kernels may exchange a few neighbours in the order of the exact ones.
_LEAST_CORRELATION = 0.98
_QUERY = "how do bees find their way back to the hive"
_OTHER_QUERIES = (
    "how long does dough for sourdough bread rest",
    "last bus to the harbour",
    "how many bumblebees live in a hive",
)
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


def probes(tokenizer: PairTokenizer, max_tokens: int) -> tuple[PairArrays, ...]:
    """Return batches of real pairs: several lengths, with and without padding."""
    return tuple(_batch(tokenizer, max_tokens, _QUERY, chosen) for chosen in _BATCHES)


def many(tokenizer: PairTokenizer, max_tokens: int) -> tuple[PairArrays, ...]:
    """Return batches of more pairs: several queries, each with all passages."""
    every = tuple(range(len(_PASSAGES)))
    queries = (_QUERY, *_OTHER_QUERIES)
    return tuple(_batch(tokenizer, max_tokens, query, every) for query in queries)


def compare(original: Graph, rewritten: Graph, batches: Sequence[PairArrays]) -> float:
    """Run two graphs over the same batches and return the `difference` of their scores."""
    return difference(_scores(original, batches), _scores(rewritten, batches))


def difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the largest difference of scores [pairs, ...], as a share of the spread of `expected`.

    The spread is the standard deviation of a column. Infinite where scores are not finite or have
    another shape.
    """
    if expected.shape != found.shape or not np.isfinite([expected, found]).all():
        return math.inf
    size = np.abs(expected).max(axis=0)
    spread = np.maximum(expected.std(axis=0), _LEAST_SPREAD * np.maximum(size, 1e-30))
    return float((np.abs(expected - found).max(axis=0) / spread).max())


def objection(original: Graph, other: Graph, batches: Sequence[PairArrays]) -> str:
    """Return why a graph of about the same scores cannot be used, "" where it can.

    Scores must be finite, rank pairs as the original's do, and be the same alone as in a batch.
    """
    expected = _scores(original, batches)
    found = _scores(other, batches)
    if expected.shape != found.shape or not np.isfinite(found).all():
        return "its scores are not finite"
    alone = _scores(other, [pair for batch in batches for pair in _pairs(batch)])
    if (moved := difference(found, alone)) > TOLERANCE:
        return f"a pair's score depends on its batch, by {moved:.1e} of the scores' spread"
    ranks = [np.argsort(np.argsort(scores, axis=0), axis=0) for scores in (expected, found)]
    least = min(
        float(np.corrcoef(ranks[0][:, i], ranks[1][:, i])[0, 1]) for i in range(found.shape[1])
    )
    if not least >= _LEAST_CORRELATION:
        return (
            f"its scores rank {len(found)} pairs with a correlation of {least:.3f} to the exact "
            f"ones, expected at least {_LEAST_CORRELATION:g}"
        )
    return ""


def _batch(
    tokenizer: PairTokenizer, max_tokens: int, text: str, chosen: Sequence[int]
) -> PairArrays:
    query = tokenizer.query(text)[: max_tokens // 2]
    ids, _ = tokenizer.passages([_PASSAGES[i] for i in chosen])
    extra = len(query) + tokenizer.template.special_tokens
    passages = [passage[: max(1, max_tokens - extra)] for passage in ids]
    return tokenizer.assemble(query, passages, max(map(len, passages)) + extra)


def _scores(graph: Graph, batches: Sequence[PairArrays]) -> NDArray[np.float64]:
    return np.concatenate([graph.run(batch) for batch in batches]).astype(np.float64)


def _pairs(batch: PairArrays) -> list[PairArrays]:
    """Return each pair of a batch alone, without padding."""
    made: list[PairArrays] = []
    for row, length in enumerate(batch.attention_mask.sum(axis=1)):
        cut = (slice(row, row + 1), slice(None, int(length)))
        made.append(
            PairArrays(batch.input_ids[cut], batch.attention_mask[cut], batch.token_type_ids[cut])
        )
    return made
