"""How much say the first stage should have, learned from labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..rules import fusion
from .datasets import Topic
from .measures import Qrels, per_query
from .runs import Answer, Ranking
from .significance import Interval, bootstrap

WEIGHTS = tuple(place / 10 for place in range(11))


@dataclass(frozen=True, slots=True)
class FusionFit:
    """A prior weight fitted to a measure, and what to expect of it.

    `prior_weight` is the best on all queries and goes into the table `fusion`; `by_weight` is the
    measure by weight there (0: the model alone, 1: the first stage alone). `crosswise` is the gain
    over the model alone on queries that had no part in choosing the weight: only that is to be
    expected. `reciprocal_ranks` is the measure by reciprocal rank fusion, which has no weight.
    """

    prior_weight: float
    by_weight: Mapping[float, float]
    crosswise: Interval
    reciprocal_ranks: float


def fit(ranking: Ranking, qrels: Qrels, measure: str, *, seed: int = 0) -> FusionFit | None:
    """Try weights of 0 to 1 by tenths; None where a candidate lacks its score or its prior."""
    pairs = list(zip(ranking.dataset.topics, ranking.answers, strict=True))
    if not pairs or any(_incomplete(topic, answer) for topic, answer in pairs):
        return None
    values = {
        weight: per_query(
            {topic.qid: _fused(topic, answer, weight) for topic, answer in pairs}, qrels, [measure]
        )[measure]
        for weight in WEIGHTS
    }
    ranks = per_query(
        {topic.qid: _by_ranks(topic, answer) for topic, answer in pairs}, qrels, [measure]
    )[measure]
    gains = _crosswise(values, [topic.qid for topic, _ in pairs])
    by_weight = {weight: fmean(one.values()) for weight, one in values.items()}
    return FusionFit(
        _best(by_weight), by_weight, bootstrap(gains, seed=seed), fmean(ranks.values())
    )


def _crosswise(values: Mapping[float, Mapping[str, float]], qids: Sequence[str]) -> list[float]:
    """Give each query's gain over weight 0, by the weight that the other half of them chose."""
    gains = []
    for half in (0, 1):
        learn, judge = qids[half::2], qids[1 - half :: 2]
        chosen = _best(
            {weight: fmean([one[qid] for qid in learn] or [0.0]) for weight, one in values.items()}
        )
        gains += [values[chosen][qid] - values[0.0][qid] for qid in judge]
    return gains


def _best(by_weight: Mapping[float, float]) -> float:
    """Choose the best weight; among equals the one that trusts the model most."""
    return max(by_weight, key=lambda weight: (round(by_weight[weight], 9), -weight))


def _incomplete(topic: Topic, answer: Answer) -> bool:
    return None in answer.scores or any(one.prior is None for one in topic.candidates)


def _fused(topic: Topic, answer: Answer, weight: float) -> list[str]:
    scores = np.array(answer.scores, dtype=np.float64)
    priors = np.array([one.prior for one in topic.candidates], dtype=np.float64)
    return _ordered(topic, fusion.fuse(scores, priors, weight).tolist())


def _by_ranks(topic: Topic, answer: Answer) -> list[str]:
    scores = np.array(answer.scores, dtype=np.float64)
    return _ordered(topic, fusion.reciprocal_ranks(scores).tolist())


def _ordered(topic: Topic, keys: Sequence[float]) -> list[str]:
    return [topic.docids[place] for place in fusion.merge([1] * len(keys), keys)]
