"""Replay a cascade on cached scores: what it would have ordered, and what it would have cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...rules import fusion

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The order, and the share of the candidates that each stage scored."""

    order: NDArray[np.intp]
    shares: tuple[float, ...]


def simulate(
    levels: Sequence[Floats],
    final: Floats,
    *,
    margins: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    depth: int | None = None,
    top_k: int = 10,
    priors: Floats | None = None,
    prior_weight: float = 0.0,
) -> Outcome:
    """Replay one question: scores per exit and of the whole model, all [candidates].

    The first `depth` candidates enter. Survivors of an exit are those within its margin of the
    `top_k`-th best; `counts` bounds each stage, the whole model included (0: it does not run). All
    None: everything runs.
    """
    n = len(final)
    stages = [*levels, final]
    alive = np.arange(n)[:depth]
    tier = np.zeros(n, dtype=np.int64)
    keys = np.zeros(n)
    shares: list[float] = []
    spread, before = 1.0, final
    z = fusion.standardise(priors) if priors is not None and prior_weight else None
    if counts is not None:
        alive = alive[: counts[0]]
    for place, scores in enumerate(stages):
        shares.append(len(alive) / n)
        if not len(alive):
            continue
        here = scores[alive]
        spread = fusion.spread(here, before[alive] if place else None, spread)
        fused = here
        if z is not None:
            fused = fusion.in_units(here, z[alive], spread, prior_weight)
        tier[alive], keys[alive] = place + 1, fused
        before = scores
        if place == len(stages) - 1:
            break
        order = np.argsort(-fused, kind="stable")
        keep = len(order)
        if margins is not None and len(order) > top_k:
            bar = fused[order[top_k - 1]] - margins[place]
            keep = int((fused >= bar).sum())
        if counts is not None:
            keep = min(keep, counts[place + 1])
        alive = alive[order[:keep]]
    return Outcome(np.lexsort((np.arange(n), -keys, -tier)), tuple(shares))
