"""A dataset in the order of a system: the first stage, or a reranker asked query by query."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..records import Result
from ..reranker import Reranker
from .datasets import Dataset, Topic


@dataclass(frozen=True, slots=True)
class RankedTopic:
    """The candidates of a topic in a system's order, and what the request took.

    order: positions in the topic's candidates, best first
    scores, probabilities: by position, None where there is none
    latency_s: what the caller waited
    truncated: candidates that the model did not read to their end
    """

    qid: str
    order: tuple[int, ...]
    scores: tuple[float | None, ...]
    latency_s: float
    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    degraded: bool = False
    probabilities: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """A dataset as a system orders it; `ranked` is in the order of the dataset's topics."""

    name: str
    dataset: Dataset
    ranked: tuple[RankedTopic, ...]

    @property
    def by_topic(self) -> list[tuple[Topic, RankedTopic]]:
        """Return every topic with its order."""
        return list(zip(self.dataset.topics, self.ranked, strict=True))

    @property
    def orders(self) -> dict[str, list[str]]:
        """Return query id -> document ids, best first."""
        return {
            topic.qid: [topic.docids[place] for place in ranked.order]
            for topic, ranked in self.by_topic
        }


def first_stage(dataset: Dataset, name: str) -> Ranking:
    """Return the order that the dataset came in; its scores are the priors."""
    ranked = [
        RankedTopic(
            topic.qid,
            tuple(range(len(topic.candidates))),
            tuple(candidate.prior for candidate in topic.candidates),
            0.0,
        )
        for topic in dataset.topics
    ]
    return Ranking(name, dataset, tuple(ranked))


def rerank_all(
    name: str,
    reranker: Reranker,
    dataset: Dataset,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Ranking:
    """Rerank every topic, one after the other, after a warm-up; call `progress` after each."""
    reranker.warm_up()
    ranked = []
    for topic in dataset.topics:
        result, latency_s = timed(reranker, topic)
        ranked.append(_ranked(topic, result, latency_s))
        progress()
    return Ranking(name, dataset, tuple(ranked))


def timed(reranker: Reranker, topic: Topic) -> tuple[Result, float]:
    """Rerank a topic; return the result and the seconds that the caller waited for it."""
    started = time.perf_counter()
    result = reranker.rerank(topic.query, topic.candidates)
    return result, time.perf_counter() - started


def _ranked(topic: Topic, result: Result, latency_s: float) -> RankedTopic:
    scores: list[float | None] = [None] * len(topic.candidates)
    probabilities: list[float | None] = [None] * len(topic.candidates)
    for hit in result.hits:
        scores[hit.index], probabilities[hit.index] = hit.score, hit.probability
    return RankedTopic(
        topic.qid,
        result.order,
        tuple(scores),
        latency_s,
        pairs=result.usage.pairs,
        tokens=result.usage.tokens,
        truncated=sum(hit.truncated_tokens > 0 for hit in result.hits),
        degraded=result.degraded,
        probabilities=tuple(probabilities),
    )
