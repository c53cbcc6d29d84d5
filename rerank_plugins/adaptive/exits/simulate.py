"""The simulation of a cascade on known scores: its order, and its work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...rules import fusion

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SimulatedOrder:
    """The order of the candidates, and the share of them that each stage scored."""

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
) -> SimulatedOrder:
    """Return a query's order from scores per exit and of the whole model, all [candidates].

    The first `depth` candidates enter. Those within an exit's margin of the `top_k`-th best go on.
    `counts` bounds each stage, the whole model included; 0: it does not run. Without any of these,
    everything runs.
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
    return SimulatedOrder(np.lexsort((np.arange(n), -keys, -tier)), tuple(shares))
