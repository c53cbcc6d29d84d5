"""The first exit over an adaptive depth, then the whole model over so many, at every setting."""

import itertools

from replayed import Measured, Replay, counted, measured, spent_on

from rerank_plugins.rules.selection import MassDepth, depth

MASSES = (0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
KEEPS = (10, 12, 15, 20, 30, 40)


def cascades(first: Replay) -> list[Measured]:
    """Measure every setting: shares of the first stage's softmax, survivors of the first exit."""
    return [_cascade(first, mass, keep) for mass, keep in itertools.product(MASSES, KEEPS)]


def _cascade(first: Replay, mass: float, keep: int) -> Measured:
    rule = MassDepth(mass, min=first.how.top_k)
    outcomes = [
        counted(first, c, [depth(rule, c.first_stage or (None,) * len(c.final)), keep], 1)
        for c in first.cases
    ]
    setting = f"mass {mass:g}, keep {keep}"
    return measured(first, "first exit > whole", setting, outcomes, spent_on(outcomes, first.costs))
