"""Canaries: fixed pairs, of our own text, that a model scores the same wherever it runs."""

from collections.abc import Sequence

import numpy as np

CANARIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "how long does bread dough rise",
        (
            "Let the dough rise for about an hour in a warm place until it has doubled.",
            "The library opens at nine on weekdays and at ten on Saturdays.",
            "Bread was baked in this valley long before the first mill was built.",
            "Rising costs make it hard for small bakeries to stay open.",
        ),
    ),
    (
        "why do leaves change colour in autumn",
        (
            "As days grow shorter, trees stop making chlorophyll and other pigments show.",
            "Change the colour of the text in the settings under Appearance.",
            "The autumn timetable starts on the first of October.",
            "To sort a list in place, call its sort method; sorted returns a new list.",
        ),
    ),
    (
        "reset a forgotten password",
        (
            "Choose 'Forgot password' on the login page and follow the link in the message.",
            "Passwords are stored as salted hashes and cannot be read back.",
            "The river resets its course after each flood.",
            "Interest expense rose by 4.2 million to 31.7 million in the third quarter.",
        ),
    ),
    (
        "longest river in europe",
        (
            "The Volga, at about 3,530 kilometres, is the longest river in Europe.",
            "The Danube passes through ten countries on its way to the Black Sea.",
            "Europe's longest tunnel carries trains under the Alps.",
            "Stir the sauce until it thickens, then take it off the heat.",
        ),
    ),
)
"""Queries, each with passages that answer it, nearly answer it, or do not relate to it."""

# Measured: a template around every text deviates by 0.5 and still ranks better than the first
# stage; weights cut to 2 bits deviate by 0.67 and rank worse.
TOLERANCE = 0.6


def deviation(then: Sequence[float], now: Sequence[float]) -> float:
    """Return the mean change of the canaries' scores, in standard deviations of the old scores.

    >>> deviation([1.0, 3.0], [1.0, 4.0])
    0.5
    """
    before, after = np.asarray(then, dtype=np.float64), np.asarray(now, dtype=np.float64)
    if before.size == 0 or before.shape != after.shape:
        return float("inf") if before.size else 0.0
    change = float(np.abs(after - before).mean())
    spread = float(before.std())
    return change / spread if spread > 0.0 else (float("inf") if change else 0.0)
