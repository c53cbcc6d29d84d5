"""A reranker's answers over a dataset, one request at a time, and what they cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..reranker import Reranker
from .datasets import Dataset, Topic
from .latency import Latency, summarise


@dataclass(frozen=True, slots=True)
class Answer:
    """One reranked topic: document ids best first, and the request's cost.

    `latency_s` is what the caller waited. `truncated` counts candidates the model did not read to
    their end.
    """

    qid: str
    docids: tuple[str, ...]
    latency_s: float
    candidates: int
    pairs: int
    tokens: int
    truncated: int
    degraded: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What a dataset cost; the shares, of candidates cut and of answers degraded, are in [0, 1]."""

    latency: Latency | None
    pairs: int
    pairs_per_s: float
    truncated_share: float
    degraded_share: float


def collect(
    reranker: Reranker,
    dataset: Dataset,
    *,
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Answer, ...]:
    """Rerank every topic, one after the other, after a warm-up; call `progress` after each."""
    reranker.warm_up()
    answers = []
    for topic in dataset.topics:
        answers.append(_answer(reranker, topic, clock))
        progress()
    return tuple(answers)


def cost(answers: tuple[Answer, ...]) -> Cost:
    """Add the answers up; shares are in [0, 1], speed in pairs per second of waiting."""
    seconds = sum(one.latency_s for one in answers)
    pairs = sum(one.pairs for one in answers)
    candidates = sum(one.candidates for one in answers)
    return Cost(
        summarise([one.latency_s for one in answers]),
        pairs,
        pairs / seconds if seconds else 0.0,
        sum(one.truncated for one in answers) / candidates if candidates else 0.0,
        sum(one.degraded for one in answers) / len(answers) if answers else 0.0,
    )


def _answer(reranker: Reranker, topic: Topic, clock: Callable[[], float]) -> Answer:
    started = clock()
    result = reranker.rerank(topic.query, topic.candidates)
    ended = clock()
    return Answer(
        topic.qid,
        tuple(topic.docids[index] for index in result.order),
        ended - started,
        candidates=len(topic.candidates),
        pairs=result.usage.pairs,
        tokens=result.usage.tokens,
        truncated=sum(hit.truncated_tokens > 0 for hit in result.hits),
        degraded=result.degraded,
    )
