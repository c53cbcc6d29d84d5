"""Plans: how much work each stage may do for a request, traded against quality."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .deadline import BATCH_S

PROFILES: Mapping[str, float] = {
    "search-as-you-type": 0.1,
    "interactive-chat": 0.3,
    "agent-step": 1.0,
    "report": 5.0,
}
"""Named budgets, in seconds."""

_DEPTHS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 150, 200, 400, 1000)
# How well the first stage orders on its own, against 1 for the last stage: a guess that
# calibration replaces. Only the trade between depth and stages depends on it.
_PRIOR_FIDELITY = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How many candidates each stage may score at most; `quality` orders plans, higher first.

    Pairs are cut to about `short_tokens` (None: not beyond what is configured).
    """

    counts: tuple[int, ...]
    quality: float
    short_tokens: int | None = None


def plans(costs: Sequence[float], *, limit: int = 30) -> tuple[Plan, ...]:
    """Return the plans worth having, best first, from each stage's cost per pair.

    Quality is a guess until calibration measures it: what rank i of a stage's order is worth falls
    like 1 / i, and a stage's fidelity grows with the root of the work up to it. Only plans on the
    Pareto front of work and quality are kept, at most `limit` of them, evenly over the work.

    >>> best = plans([1.0, 2.0])[0]
    >>> best.counts
    (1000, 1000)
    """
    done = np.cumsum(costs)
    fidelity = [_PRIOR_FIDELITY]
    fidelity += [
        _PRIOR_FIDELITY + (1.0 - _PRIOR_FIDELITY) * math.sqrt(at / done[-1]) for at in done
    ]
    gains = [fidelity[i + 1] - fidelity[i] for i in range(len(costs))]
    found: list[tuple[float, Plan]] = []
    for counts in itertools.combinations_with_replacement((0, *_DEPTHS), len(costs)):
        falling = counts[::-1]
        if falling[0] == 0:
            continue
        quality = sum(g * math.log1p(n) for g, n in zip(gains, falling, strict=True))
        work = sum(c * n for c, n in zip(costs, falling, strict=True))
        found.append((work, Plan(falling, quality)))
    return _front(found, limit)


def measured(
    results: Mapping[int | None, Mapping[tuple[int, ...], float]],
    costs: Mapping[int | None, Sequence[float]],
    *,
    limit: int = 30,
) -> tuple[Plan, ...]:
    """Return the plans worth having whose quality was measured: counts to mean quality.

    Both are given for each length that pairs are cut to, None: not cut.
    """
    return _front(
        [
            (
                sum(c * n for c, n in zip(costs[short], counts, strict=True)),
                Plan(counts, quality, short),
            )
            for short, found in results.items()
            for counts, quality in found.items()
        ],
        limit,
    )


def seconds(
    plan: Plan, prices: Sequence[float], candidates: int, caps: Sequence[int | None] = ()
) -> float:
    """Return a plan's predicted worker seconds: each stage's price per pair times its pairs.

    `caps` bounds what each stage gets by the keep rule before it.
    """
    total, alive = 0.0, candidates
    for place, (price, count) in enumerate(zip(prices, plan.counts, strict=True)):
        cap = caps[place] if place < len(caps) else None
        alive = min(alive, count) if cap is None else min(alive, count, cap)
        total += price * alive
    return total


def wall_s(price_s: float, pairs: int, workers: float, *, batch_s: float = BATCH_S) -> float:
    """Return a stage's predicted seconds; batches are whole, so workers idle at its end.

    >>> wall_s(0.008, 3, 2)  # two rounds: the last pair has one worker to itself
    0.016
    """
    if not pairs or not price_s:
        return 0.0
    together = min(pairs, max(1, int(batch_s / price_s)))
    batches = math.ceil(pairs / together)
    if batches <= 2 * workers:
        return math.ceil(batches / workers) * together * price_s
    return price_s * (pairs / workers + together * (workers - 1.0) / (2.0 * workers))


def afford(
    front: Sequence[Plan],
    prices: Mapping[int | None, Sequence[float]],
    candidates: int,
    worker_s: float,
    caps: Sequence[int | None] = (),
) -> tuple[Plan, float] | None:
    """Return the best plan whose predicted work fits `worker_s`, and the prediction.

    `prices` are per pair and stage, for each length that pairs are cut to. None where not even the
    smallest plan fits.
    """
    for plan in front:
        predicted = seconds(plan, prices[plan.short_tokens], candidates, caps)
        if predicted <= worker_s:
            return plan, predicted
    return None


def _front(found: list[tuple[float, Plan]], limit: int) -> tuple[Plan, ...]:
    """Keep the plans that no cheaper one equals, best first, thinned evenly over log work."""
    kept: list[tuple[float, Plan]] = []
    for work, plan in sorted(found, key=lambda one: (one[0], -one[1].quality)):
        if not kept or plan.quality > kept[-1][1].quality:
            kept.append((work, plan))
    if len(kept) > limit:
        logs = np.log([work for work, _ in kept])
        marks = np.linspace(logs[0], logs[-1], limit)
        kept = [kept[i] for i in sorted({int(np.abs(logs - mark).argmin()) for mark in marks})]
    return tuple(plan for _, plan in reversed(kept))
