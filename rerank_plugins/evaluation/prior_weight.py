"""The weight of the first stage's scores in the fusion, fitted to labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ..rules import fusion
from .datasets import Topic
from .measures import Qrels, per_query
from .rankings import RankedTopic, Ranking
from .significance import Interval, bootstrap

WEIGHTS = tuple(place / 10 for place in range(11))


@dataclass(frozen=True, slots=True)
class PriorWeightFit:
    """A prior weight fitted to a measure, and what to expect of it.

    prior_weight: the best on all queries, for the settings of the fusion
    by_weight: the measure by weight (0: the model alone, 1: the first stage alone)
    crosswise: gain over the model alone on queries that had no part in choosing the weight
    reciprocal_ranks: the measure of reciprocal rank fusion, which has no weight
    """

    prior_weight: float
    by_weight: Mapping[float, float]
    crosswise: Interval
    reciprocal_ranks: float


def fit(ranking: Ranking, qrels: Qrels, measure: str, *, seed: int = 0) -> PriorWeightFit | None:
    """Try weights of 0 to 1 by tenths; None where a candidate lacks its score or its prior."""
    pairs = ranking.by_topic
    if not pairs or any(_incomplete(topic, ranked) for topic, ranked in pairs):
        return None
    values = {
        weight: per_query(
            {topic.qid: _fused(topic, ranked, weight) for topic, ranked in pairs}, qrels, [measure]
        )[measure]
        for weight in WEIGHTS
    }
    by_ranks = {
        topic.qid: _ordered(topic, fusion.reciprocal_ranks(_scores(ranked)))
        for topic, ranked in pairs
    }
    ranks = per_query(by_ranks, qrels, [measure])[measure]
    gains = _cross_validated(values, [topic.qid for topic, _ in pairs])
    by_weight = {weight: fmean(by_query.values()) for weight, by_query in values.items()}
    return PriorWeightFit(
        _best(by_weight), by_weight, bootstrap(gains, seed=seed), fmean(ranks.values())
    )


def _cross_validated(
    values: Mapping[float, Mapping[str, float]], qids: Sequence[str]
) -> list[float]:
    """Return each query's gain over weight 0, with the weight that the other half chose."""
    gains = []
    for half in (0, 1):
        learn, judge = qids[half::2], qids[1 - half :: 2]
        chosen = _best(
            {
                weight: fmean([by_query[qid] for qid in learn] or [0.0])
                for weight, by_query in values.items()
            }
        )
        gains += [values[chosen][qid] - values[0.0][qid] for qid in judge]
    return gains


def _best(by_weight: Mapping[float, float]) -> float:
    """Return the best weight; among equals the least, which trusts the model most."""
    return max(by_weight, key=lambda weight: (round(by_weight[weight], 9), -weight))


def _incomplete(topic: Topic, ranked: RankedTopic) -> bool:
    return None in ranked.scores or any(candidate.prior is None for candidate in topic.candidates)


def _fused(topic: Topic, ranked: RankedTopic, weight: float) -> list[str]:
    priors = np.array([candidate.prior for candidate in topic.candidates], dtype=np.float64)
    return _ordered(topic, fusion.fuse(_scores(ranked), priors, weight))


def _scores(ranked: RankedTopic) -> NDArray[np.float64]:
    return np.array(ranked.scores, dtype=np.float64)


def _ordered(topic: Topic, keys: NDArray[np.float64]) -> list[str]:
    return [topic.docids[place] for place in fusion.merge([1] * len(keys), keys.tolist())]
