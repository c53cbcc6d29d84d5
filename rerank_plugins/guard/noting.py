"""What the guard notes of a request that was answered."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import drift
from ..drift import Observation
from ..records import Candidate, Hit


def noted(
    query: str,
    candidates: Sequence[Candidate],
    hits: Sequence[Hit],
    *,
    null: float = math.nan,
) -> Observation | None:
    """Observe a request by its hits, before any cut; None where nothing was scored."""
    scored = sorted((hit for hit in hits if hit.score is not None), key=lambda hit: hit.index)
    if not scored:
        return None
    scores = np.array([hit.score for hit in scored], dtype=np.float64)
    depths = np.array([hit.depth for hit in scored])
    texts = [candidates[hit.index].text or "" for hit in scored]
    chars = np.array([len(text) for text in texts], dtype=np.float64)
    deepest = scores[depths == depths.max()]
    keys = _keys(scores, depths)
    return drift.observe(
        deepest,
        keys,
        chars=chars,
        query_chars=len(query),
        common=drift.common_start(texts),
        null=null,
    )


def _keys(scores: NDArray[np.float64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give what orders by the model alone: deeper stages first, then the score."""
    if (depths == depths[0]).all():
        return scores
    keys = np.empty(scores.size, dtype=np.float64)
    keys[np.lexsort((scores, depths))] = np.arange(scores.size)
    return keys
