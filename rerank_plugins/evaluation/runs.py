"""A reranker's answers over a dataset, one request at a time, and what they cost."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..records import Result
from ..reranker import Reranker
from .datasets import Dataset, Topic
from .latency import Latency, summarise


@dataclass(frozen=True, slots=True)
class Answer:
    """One ordered topic.

    `order` holds positions in the topic's candidates, best first; `scores` the model's scores in
    the candidates' own order, None where there is none; `probabilities` likewise. `latency_s` is
    what the caller waited.
    `truncated` counts candidates the model did not read to their end.
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
    """A dataset as one system orders it; the first stage has no requests to show a cost for."""

    name: str
    dataset: Dataset
    answers: tuple[Answer, ...]

    @property
    def orders(self) -> dict[str, list[str]]:
        """Give query id -> document ids, best first."""
        return {
            topic.qid: [topic.docids[place] for place in answer.order]
            for topic, answer in zip(self.dataset.topics, self.answers, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What a dataset cost; the shares, of candidates cut and of answers degraded, are in [0, 1]."""

    latency: Latency | None
    pairs: int
    pairs_per_s: float
    truncated_share: float
    degraded_share: float


def first_stage(dataset: Dataset, name: str) -> Ranking:
    """Give the order that the dataset came in; its scores are the priors."""
    return Ranking(
        name,
        dataset,
        tuple(
            Answer(
                topic.qid,
                tuple(range(len(topic.candidates))),
                tuple(one.prior for one in topic.candidates),
                0.0,
            )
            for topic in dataset.topics
        ),
    )


def collect(
    name: str,
    reranker: Reranker,
    dataset: Dataset,
    *,
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Ranking:
    """Rerank every topic, one after the other, after a warm-up; call `progress` after each."""
    reranker.warm_up()
    answers = []
    for topic in dataset.topics:
        started = clock()
        result = reranker.rerank(topic.query, topic.candidates)
        answers.append(_answer(topic, result, clock() - started))
        progress()
    return Ranking(name, dataset, tuple(answers))


def cost(answers: Sequence[Answer]) -> Cost:
    """Add the answers up; speed is in pairs per second of waiting."""
    seconds = sum(one.latency_s for one in answers)
    pairs = sum(one.pairs for one in answers)
    candidates = sum(len(one.order) for one in answers)
    return Cost(
        summarise([one.latency_s for one in answers]),
        pairs,
        pairs / seconds if seconds else 0.0,
        sum(one.truncated for one in answers) / candidates if candidates else 0.0,
        sum(one.degraded for one in answers) / len(answers) if answers else 0.0,
    )


def _answer(topic: Topic, result: Result, latency_s: float) -> Answer:
    scores: list[float | None] = [None] * len(topic.candidates)
    probabilities: list[float | None] = [None] * len(topic.candidates)
    for hit in result.hits:
        scores[hit.index], probabilities[hit.index] = hit.score, hit.probability
    return Answer(
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
