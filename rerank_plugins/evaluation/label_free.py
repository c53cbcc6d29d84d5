"""What is seen without labels: agreement, regret, phantom hits; and a table to label.

Regret is against a better system; phantom hits are passages of other queries, mixed in.
"""

import csv
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from statistics import fmean

import numpy as np

from ..records import Candidate
from ..reranker import Reranker
from . import cost
from .comparison import FIRST_STAGE
from .cost import Cost
from .datasets import Dataset, Topic
from .rankings import Ranking, first_stage, rerank_all

TOP = 10
NULL_PASSAGES = 10
COLUMNS = ("qid", "query", "docid", "passage", "label")
_NULL = 0.99
# Marks a document id that no collection has.
_NULL_PASSAGE = "null passage\x1f"


@dataclass(frozen=True, slots=True)
class LabelFreeSystem:
    """How a system orders; means over queries.

    overlap: share of the first stage's first ten that stay among the system's first ten
    regret: 1 - nDCG@10 with the reference's order as gains, 0 for the same order
    phantoms: share of the first ten that are null passages; None for the first stage
    null_score: 99 % of null passages score less; None for the first stage
    """

    name: str
    overlap: float
    regret: float
    phantoms: float | None
    null_score: float | None
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class LabelFreeComparison:
    """The first stage (always the first system) and rerankers; `reference` is the first of these.

    `regret` is against the reference.
    """

    dataset: str
    queries: int
    reference: str
    systems: tuple[LabelFreeSystem, ...]


def compare_label_free(
    dataset: Dataset,
    rerankers: Mapping[str, Reranker],
    *,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> LabelFreeComparison:
    """Rerank every topic twice, as it is and with ten passages of other queries mixed in."""
    start = first_stage(dataset, FIRST_STAGE)
    mixed = with_null_passages(dataset, seed=seed)
    plain, fooled = (
        [
            rerank_all(name, reranker, asked, progress=progress)
            for name, reranker in rerankers.items()
        ]
        for asked in (dataset, mixed)
    )
    reference = plain[0]
    systems = [LabelFreeSystem(FIRST_STAGE, 1.0, _mean_regret(start, reference), None, None, None)]
    systems += [
        LabelFreeSystem(
            ranking.name,
            _mean_overlap(start, ranking),
            _mean_regret(ranking, reference),
            phantoms(with_null),
            null_score(with_null),
            cost.total(ranking.ranked),
        )
        for ranking, with_null in zip(plain, fooled, strict=True)
    ]
    return LabelFreeComparison(dataset.name, len(dataset.topics), reference.name, tuple(systems))


def with_null_passages(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Append ten passages of other topics to each topic, drawn by the seed.

    They get the topic's lowest prior, so that fusion does not place them by itself.
    """
    draw = random.Random(seed)  # noqa: S311 - a draw, not a secret
    topics = []
    for place, topic in enumerate(dataset.topics):
        others = [
            other for at, other in enumerate(dataset.topics) if at != place and other.candidates
        ]
        own = {candidate.text for candidate in topic.candidates}
        drawn = [
            draw.choice(draw.choice(others).candidates)
            for _ in range(NULL_PASSAGES if others else 0)
        ]
        topics.append(_append(topic, [other for other in drawn if other.text not in own]))
    return replace(dataset, topics=tuple(topics))


def phantoms(mixed: Ranking) -> float:
    """Return the share of the first ten places that null passages took."""
    shares = []
    for topic, ranked in mixed.by_topic:
        top = ranked.order[:TOP]
        null = sum(topic.docids[at].startswith(_NULL_PASSAGE) for at in top)
        shares.append(null / len(top) if top else 0.0)
    return fmean(shares) if shares else 0.0


def null_score(mixed: Ranking) -> float | None:
    """Return the 99th percentile of the null passages' scores; None where none was scored."""
    scores = [
        score
        for topic, ranked in mixed.by_topic
        for docid, score in zip(topic.docids, ranked.scores, strict=True)
        if docid.startswith(_NULL_PASSAGE) and score is not None
    ]
    return float(np.quantile(scores, _NULL)) if scores else None


def overlap(order: Sequence[int], other: Sequence[int]) -> float:
    """Return the share of the first ten that two orders have in common.

    >>> overlap([0, 1, 2], [2, 1, 3])
    0.6666666666666666
    """
    first, second = set(order[:TOP]), set(other[:TOP])
    return len(first & second) / max(1, len(first))


def regret(order: Sequence[int], reference: Sequence[int]) -> float:
    """Return 1 - nDCG@10 of `order`, the reference's first ten taken as gains of 10 down to 1.

    >>> regret([0, 1], [0, 1])
    0.0
    """
    gains = {at: TOP - place for place, at in enumerate(reference[:TOP])}
    ideal = sum(gain / log2(place + 2) for place, gain in enumerate(gains.values()))
    gained = sum(gains.get(at, 0) / log2(place + 2) for place, at in enumerate(order[:TOP]))
    return 1.0 - gained / ideal if ideal else 0.0


def write_pool(rankings: Sequence[Ranking], path: Path, *, depth: int, seed: int = 0) -> int:
    """Write the first `depth` of all rankings as a table to label; return its number of rows.

    Rows of a query are shuffled: whoever labels must not see which system ranked a passage high.
    """
    draw = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for place, topic in enumerate(rankings[0].dataset.topics):
            pool = {at for ranking in rankings for at in ranking.ranked[place].order[:depth]}
            for at in draw.sample(sorted(pool), len(pool)):
                text = topic.candidates[at].text
                table.writerow((topic.qid, topic.query, topic.docids[at], text, ""))
                rows += 1
    return rows


def _append(topic: Topic, others: Sequence[Candidate]) -> Topic:
    priors = [candidate.prior for candidate in topic.candidates]
    known = [prior for prior in priors if prior is not None]
    lowest = min(known) if known and len(known) == len(priors) else None
    return replace(
        topic,
        docids=(*topic.docids, *(f"{_NULL_PASSAGE}{at}" for at in range(len(others)))),
        candidates=(*topic.candidates, *(replace(other, prior=lowest) for other in others)),
    )


def _mean_overlap(start: Ranking, after: Ranking) -> float:
    pairs = zip(start.ranked, after.ranked, strict=True)
    return fmean([overlap(before.order, after.order) for before, after in pairs] or [0.0])


def _mean_regret(ranking: Ranking, reference: Ranking) -> float:
    pairs = zip(ranking.ranked, reference.ranked, strict=True)
    return fmean([regret(found.order, best.order) for found, best in pairs] or [0.0])
