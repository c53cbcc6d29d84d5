"""What can be said without labels: agreement, regret against a better system, phantom hits."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from statistics import fmean

import numpy as np

from ..records import Candidate
from ..reranker import Reranker
from .comparison import FIRST_STAGE
from .datasets import Dataset, Topic
from .runs import Cost, Ranking, collect, cost, first_stage

TOP = 10
STRANGERS = 10
_NULL = 0.99
# Marks a document id that no collection has.
_STRANGER = "stranger\x1f"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a system orders, seen from outside; shares are means over queries.

    `overlap` is the share of the first stage's first ten that stay among its first ten. `regret` is
    what its first ten lose of the gains of the reference's (the first system's): 0 for the same
    order. `phantoms` is the share of its first ten places that passages of other queries took, of
    the ten that were mixed in; `null_score` is the score that 99 % of those passages stay below:
    what scores less looks no better than a passage drawn at random. Both are None for the first
    stage.
    """

    name: str
    overlap: float
    regret: float
    phantoms: float | None
    null_score: float | None
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """What systems do on a dataset of which nothing is judged; the first stage comes first."""

    dataset: str
    queries: int
    reference: str
    systems: tuple[Behaviour, ...]


def observe(
    dataset: Dataset,
    rerankers: Mapping[str, Reranker],
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Unlabelled:
    """Rerank every topic twice, as it is and with ten passages of other queries mixed in."""
    start = first_stage(dataset, FIRST_STAGE)
    mixed = with_strangers(dataset, seed=seed)
    rankings = [collect(name, one, dataset, progress=progress) for name, one in rerankers.items()]
    fooled = [collect(name, one, mixed, progress=progress) for name, one in rerankers.items()]
    reference = rankings[0]
    systems = [Behaviour(FIRST_STAGE, 1.0, _mean_regret(start, reference), None, None, None)]
    systems += [
        Behaviour(
            one.name,
            _mean_overlap(start, one),
            _mean_regret(one, reference),
            phantoms(strange),
            null_score(strange),
            cost(one.answers),
        )
        for one, strange in zip(rankings, fooled, strict=True)
    ]
    return Unlabelled(dataset.name, len(dataset.topics), reference.name, tuple(systems))


def with_strangers(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Append ten passages of other topics to each topic, drawn by the seed.

    They get the topic's lowest prior, so that fusion does not excuse the model.
    """
    draw = random.Random(seed)  # noqa: S311 - a draw, not a secret
    topics = []
    for place, topic in enumerate(dataset.topics):
        others = [one for at, one in enumerate(dataset.topics) if at != place and one.candidates]
        own = {one.text for one in topic.candidates}
        texts = [
            draw.choice(draw.choice(others).candidates).text
            for _ in range(STRANGERS if others else 0)
        ]
        topics.append(_append(topic, [text for text in texts if text not in own]))
    return replace(dataset, topics=tuple(topics))


def phantoms(mixed: Ranking) -> float:
    """Give the share of the first ten places that strangers took."""
    shares = []
    for topic, answer in zip(mixed.dataset.topics, mixed.answers, strict=True):
        top = answer.order[:TOP]
        strange = sum(topic.docids[at].startswith(_STRANGER) for at in top)
        shares.append(strange / len(top) if top else 0.0)
    return fmean(shares) if shares else 0.0


def null_score(mixed: Ranking) -> float | None:
    """Give the 99th percentile of the strangers' scores; None where none was scored."""
    scores = [
        score
        for topic, answer in zip(mixed.dataset.topics, mixed.answers, strict=True)
        for docid, score in zip(topic.docids, answer.scores, strict=True)
        if docid.startswith(_STRANGER) and score is not None
    ]
    return float(np.quantile(scores, _NULL)) if scores else None


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Give the share of the first ten that two orders have in common.

    >>> overlap([0, 1, 2], [2, 1, 3])
    0.6666666666666666
    """
    first, second = set(one[:TOP]), set(other[:TOP])
    return len(first & second) / max(1, len(first))


def regret(order: Sequence[int], reference: Sequence[int]) -> float:
    """Give 1 - nDCG@10 of `order`, the reference's first ten taken as gains of 10 down to 1.

    >>> regret([0, 1], [0, 1])
    0.0
    """
    gains = {at: TOP - place for place, at in enumerate(reference[:TOP])}
    ideal = sum(gain / log2(place + 2) for place, gain in enumerate(gains.values()))
    gained = sum(gains.get(at, 0) / log2(place + 2) for place, at in enumerate(order[:TOP]))
    return 1.0 - gained / ideal if ideal else 0.0


def _append(topic: Topic, texts: Sequence[str | None]) -> Topic:
    priors = [one.prior for one in topic.candidates]
    known = [prior for prior in priors if prior is not None]
    lowest = min(known) if known and len(known) == len(priors) else None
    return replace(
        topic,
        docids=(*topic.docids, *(f"{_STRANGER}{at}" for at in range(len(texts)))),
        candidates=(*topic.candidates, *(Candidate(text, prior=lowest) for text in texts)),
    )


def _mean_overlap(start: Ranking, after: Ranking) -> float:
    pairs = zip(start.answers, after.answers, strict=True)
    return fmean([overlap(one.order, other.order) for one, other in pairs] or [0.0])


def _mean_regret(ranking: Ranking, reference: Ranking) -> float:
    pairs = zip(ranking.answers, reference.answers, strict=True)
    return fmean([regret(one.order, other.order) for one, other in pairs] or [0.0])
