"""Cuts that return no better hits than a fixed number; they are here to be compared with it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.adaptive.exits.collect import Question, observe
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel

_QUERIES, _NULLS_EACH = 200, 3


def by_mass(probabilities: Sequence[float], mass: float) -> int:
    """Return how long the shortest head is that holds `mass` of all probabilities (top-p)."""
    held = np.cumsum(probabilities)
    return int(np.searchsorted(held, mass * held[-1] - 1e-12)) + 1


def by_null_rate(scores: Sequence[float], nulls: Sequence[float], rate: float) -> int:
    """Return how many scores random passages do not explain; `scores` descend, `nulls` ascend.

    Conformal p-values (Bates et al. 2023) with the Benjamini-Hochberg rule at `rate`.
    """
    above = len(nulls) - np.searchsorted(nulls, scores, "left")
    p: NDArray[np.float64] = (1 + above) / (len(nulls) + 1)
    passes = np.flatnonzero(p <= rate * np.arange(1, len(p) + 1) / len(p))
    return int((p <= p[passes[-1]]).sum()) if len(passes) else 0


def null_scores(
    model: SegmentedModel, questions: Sequence[Question], seed: int
) -> tuple[float, ...]:
    """Return scores of queries with passages that were retrieved for others, ascending."""
    random = np.random.default_rng(seed)
    null_pairs: list[Question] = []
    for place, question in enumerate(questions[:_QUERIES]):
        others = random.integers(1, len(questions), _NULLS_EACH)
        texts = [questions[(place + int(step)) % len(questions)].passages for step in others]
        passages = tuple(text[int(random.integers(len(text)))] for text in texts)
        null_pairs.append(Question(question.query, passages))
    found = observe(model, null_pairs)
    return tuple(sorted(float(score) for seen in found for score in seen.final))
