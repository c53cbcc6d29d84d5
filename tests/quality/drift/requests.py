"""Requests of a simulated service: scores, priors and lengths drawn from known laws."""

import numpy as np

from rerank_plugins.quality.drift.features import Observation, observe


def drawn(
    source: np.random.Generator,
    count: int,
    *,
    agreement: float = 0.5,
    shift: float = 0.0,
    length: float = 0.0,
    candidates: int = 30,
    common: int = 0,
    by_length: float = 0.0,
) -> list[Observation]:
    """Draw requests: `agreement` in [0, 1] ties scores to the first stage, `shift` moves them.

    `by_length` is how much shorter passages are preferred.
    """
    found = []
    for _ in range(count):
        prior = -np.sort(-source.normal(size=candidates))
        noise = source.normal(size=candidates)
        hardness = source.normal()
        scores = shift + hardness + agreement * prior + np.sqrt(1.0 - agreement**2) * noise
        chars = np.exp(source.normal(5.5 + length, 0.6, size=candidates)).round()
        scores -= by_length * np.log(chars)
        query_chars = int(source.integers(15, 80))
        found.append(
            observe(
                scores,
                scores,
                chars=chars,
                query_chars=query_chars,
                common=common,
                null=float(source.normal(-3.0)),
            )
        )
    return found
