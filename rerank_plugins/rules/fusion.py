"""From scores to an order: merge the stages, fuse with the prior, and sort (once, here)."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Method: TypeAlias = Literal["convex", "reciprocal_ranks"]


def merge(depths: Sequence[int], keys: Sequence[float | None]) -> tuple[int, ...]:
    """Return the candidates ordered by the deepest stage that scored them, then by its key.

    `depths` counts the stages that scored each candidate (0: none); `keys` is what orders within a
    depth, higher first. Scores of different stages are never compared (telescoping). Ties, and all
    unscored candidates, keep first-stage order.

    >>> merge([1, 2, 0, 2], [9.0, 0.1, None, 0.7])
    (3, 1, 0, 2)
    """

    def rank(index: int) -> tuple[int, float, int]:
        key = keys[index]
        scored = depths[index] > 0 and key is not None
        return (-depths[index] if scored else 1, -key if scored and key is not None else 0.0, index)

    return tuple(sorted(range(len(keys)), key=rank))


def fuse(
    scores: NDArray[np.float64], priors: NDArray[np.float64], prior_weight: float
) -> NDArray[np.float64]:
    """Return model scores and priors combined, each standardised over the request's candidates.

    Convex combination (bruch2023): `(1 - w) z(scores) + w z(priors)`, w in [0, 1]. A
    constant column counts as zero.

    >>> fuse(np.array([1.0, 3.0]), np.array([5.0, 5.0]), 0.5).round(6).tolist()
    [-0.5, 0.5]
    """
    if not 0.0 <= prior_weight <= 1.0:
        message = f"prior_weight is {prior_weight}; expected a number from 0 to 1"
        raise ValueError(message)
    return (1.0 - prior_weight) * standardise(scores) + prior_weight * standardise(priors)


def reciprocal_ranks(scores: NDArray[np.float64], *, k: int = 60) -> NDArray[np.float64]:
    """Return a combination of the ranks by score and the first-stage ranks (cormack2009).

    `1 / (k + rank by score) + 1 / (k + first-stage rank)`, ranks from 1, ties in first-stage order.
    It needs no priors, only their order, and knows nothing of how far apart two scores are.

    >>> (reciprocal_ranks(np.array([1.0, 3.0]), k=1) * 6).round(6).tolist()
    [5.0, 5.0]
    """
    first = np.arange(1, scores.size + 1)
    ranks = np.empty(scores.size, dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = first
    return 1.0 / (k + ranks) + 1.0 / (k + first)


def spread(
    scores: NDArray[np.float64], before: NDArray[np.float64] | None, spread_before: float
) -> float:
    """Return the standard deviation a stage's scores would have, had it scored every candidate.

    `scores` are of the candidates it did score, `before` what the stage before gave the same ones,
    whose spread over all is known: what the choice of survivors narrowed there, it narrowed here.

    >>> spread(np.array([1.0, 3.0]), np.array([0.0, 1.0]), 1.0)
    2.0
    """
    own = float(scores.std())
    if before is None:
        return own
    kept = float(before.std())
    return own * spread_before / kept if kept > 0.0 else own


def fuse_some(
    scores: NDArray[np.float64],
    z: NDArray[np.float64],
    spread_all: float | None,
    prior_weight: float,
) -> NDArray[np.float64]:
    """Return what `fuse` would give some of the candidates; `z` are their standardised priors.

    `spread_all` is how widely the scores of all would spread; None: these are all.

    >>> fuse_some(np.array([1.0, 3.0]), np.array([0.0, 0.0]), 2.0, 0.0).tolist()
    [-0.5, 0.5]
    """
    own = standardise(scores)
    if spread_all:
        own = (scores - scores.mean()) / spread_all
    return (1.0 - prior_weight) * own + prior_weight * z


def in_units(
    scores: NDArray[np.float64], z: NDArray[np.float64], spread_all: float, prior_weight: float
) -> NDArray[np.float64]:
    """Return what `fuse` would give some of the candidates, in the units of the scores.

    s + w / (1 - w) spread z, of the standardised priors z: the same order as the convex
    combination, and a margin between two values still means what it means between scores. With
    w = 1 only the priors count.

    >>> in_units(np.array([1.0]), np.array([1.0]), 2.0, 0.5).tolist()
    [3.0]
    """
    if prior_weight >= 1.0:
        return z
    return scores + prior_weight / (1.0 - prior_weight) * spread_all * z


def standardise_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the known values with mean 0 and deviation 1; unknown ones stay nan.

    >>> standardise_known(np.array([-1.0, float("nan"), 1.0])).tolist()
    [-1.0, nan, 1.0]
    """
    found = values.copy()
    known = ~np.isnan(values)
    found[known] = standardise(values[known])
    return found


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with mean 0 and deviation 1; a constant becomes zero."""
    peak = float(np.abs(values).max(initial=0.0))
    if peak == 0.0:
        return np.zeros_like(values)
    # Within [-1, 1] no sum or square overflows.
    scaled = values / peak
    centred = scaled - scaled.mean()
    deviation = float(centred.std())
    return centred / deviation if deviation > 0.0 else np.zeros_like(centred)
