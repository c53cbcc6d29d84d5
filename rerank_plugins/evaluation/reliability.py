"""Whether probabilities match the share that is relevant, and the calibration that fits them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..rules import calibration
from ..rules.calibration import Calibration, Isotonic
from .measures import Qrels
from .rankings import Ranking

PRECISIONS = (0.5, 0.7, 0.8, 0.9)
_BINS = 10
# Fewer relevant or fewer other pairs fit noise; a cut from fewer pairs is chance.
_LEAST = 20
Fitter: TypeAlias = Callable[[NDArray[np.floating], NDArray[np.bool_]], Calibration | Isotonic]

METHODS: Mapping[str, Fitter] = {
    "platt": calibration.fit_platt,
    "temperature": calibration.fit_temperature,
    "isotonic": calibration.fit_isotonic,
}


@dataclass(frozen=True, slots=True)
class ProbabilityBin:
    """Pairs of like probability: its mean (`said`), and the share that was relevant."""

    pairs: int
    said: float
    relevant: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities match what was relevant.

    ece: expected calibration error over ten bins of equally many pairs (guo2017)
    brier: mean squared error
    parameters: [a, b] of a stage's `calibration`; None for methods without them
    cuts: target precision -> the least probability from which on it is reached
    """

    method: str
    pairs: int
    ece: float
    brier: float
    bins: tuple[ProbabilityBin, ...]
    parameters: tuple[float, float] | None
    cuts: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class _Pairs:
    scores: NDArray[np.float64]
    said: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    topics: NDArray[np.int64]


def examine(ranking: Ranking, qrels: Qrels) -> tuple[Reliability, ...]:
    """Assess the model's own probabilities, where it has them, and those of each fit.

    Fits are cross-validated: each half of the queries is assessed by the fit of the other half. The
    parameters come from all queries. Unjudged candidates count as not relevant only where nothing
    is judged not relevant. Empty where there are too few pairs.
    """
    pairs = _pairs(ranking, qrels)
    positives = int(pairs.relevant.sum())
    if min(positives, pairs.relevant.size - positives) < _LEAST:
        return ()
    found = []
    if np.isfinite(pairs.said).all():
        found.append(assess("model's own", pairs.said, pairs.relevant))
    for name, fit in METHODS.items():
        predicted = _cross_validated(fit, pairs)
        if predicted is not None:
            whole = fit(pairs.scores, pairs.relevant)
            parameters = (whole.a, whole.b) if isinstance(whole, Calibration) else None
            found.append(assess(name, predicted, pairs.relevant, parameters))
    return tuple(found)


def assess(
    method: str,
    said: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    parameters: tuple[float, float] | None = None,
) -> Reliability:
    """Compare probabilities with what was relevant; there is at least one pair."""
    order = np.argsort(said, kind="stable")
    bins = tuple(
        ProbabilityBin(part.size, float(said[part].mean()), float(relevant[part].mean()))
        for part in np.array_split(order, _BINS)
        if part.size
    )
    gaps = sum(part.pairs * abs(part.said - part.relevant) for part in bins)
    brier = float(((said - relevant) ** 2).mean())
    found = {target: threshold(said, relevant, target) for target in PRECISIONS}
    cuts = {target: cut for target, cut in found.items() if cut is not None}
    return Reliability(method, said.size, gaps / said.size, brier, bins, parameters, cuts)


def threshold(
    said: NDArray[np.float64], relevant: NDArray[np.bool_], precision: float
) -> float | None:
    """Return the least probability such that the pairs at or above it reach `precision`.

    None where no 20 or more pairs do.

    >>> said = np.linspace(0.0, 1.0, 101)
    >>> threshold(said, said > 0.5, 0.99)
    0.51
    """
    order = np.argsort(-said, kind="stable")
    shares = np.cumsum(relevant[order]) / np.arange(1, said.size + 1)
    # Pairs of equal probability are cut together: only the last of them can be the cut.
    last = np.append(said[order][:-1] != said[order][1:], [True])
    enough = last & (shares >= precision) & (np.arange(1, said.size + 1) >= _LEAST)
    places = np.flatnonzero(enough)
    return float(said[order][places[-1]]) if places.size else None


def _pairs(ranking: Ranking, qrels: Qrels) -> _Pairs:
    assume = not any(value <= 0 for judged in qrels.values() for value in judged.values())
    rows: list[tuple[float, float, bool, int]] = []
    for at, (topic, ranked) in enumerate(ranking.by_topic):
        judged = qrels.get(topic.qid, {})
        said: Sequence[float | None] = ranked.probabilities or [None] * len(topic.docids)
        for docid, score, probability in zip(topic.docids, ranked.scores, said, strict=True):
            if score is not None and (assume or docid in judged):
                own = np.nan if probability is None else probability
                rows.append((score, own, judged.get(docid, 0) > 0, at))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return _Pairs(table[:, 0], table[:, 1], table[:, 2] > 0.0, table[:, 3].astype(np.int64))


def _cross_validated(fit: Fitter, pairs: _Pairs) -> NDArray[np.float64] | None:
    """Predict odd topics by the fit of even ones, and the reverse; None if a half has one label."""
    said = np.empty(pairs.scores.size)
    for half in (0, 1):
        learn = pairs.topics % 2 == half
        labels = pairs.relevant[learn]
        if not labels.any() or labels.all():
            return None
        said[~learn] = calibration.apply(fit(pairs.scores[learn], labels), pairs.scores[~learn])
    return said
