"""The queries that reranking made worse, with the passages that changed places."""

from collections.abc import Mapping
from dataclasses import dataclass

from .rankings import Ranking

_TEXT = 400


@dataclass(frozen=True, slots=True)
class QueryLoss:
    """A query that lost, with its top passages and a relevant one, cut to 400 characters.

    before, after: the measure
    relevant: the relevant passage that the first stage had highest, None where there is none
    relevant_before, relevant_after: its ranks, from 1
    """

    qid: str
    query: str
    before: float
    after: float
    top_before: str
    top_after: str
    relevant: str | None
    relevant_before: int | None
    relevant_after: int | None


def worst(
    ranking: Ranking,
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    most: int = 10,
) -> tuple[QueryLoss, ...]:
    """List the queries that lost most by a measure's values, the greatest loss first."""
    lost = sorted(
        (qid for qid in before if after[qid] < before[qid]), key=lambda q: after[q] - before[q]
    )
    places = {topic.qid: place for place, topic in enumerate(ranking.dataset.topics)}
    return tuple(_loss(ranking, places[qid], before[qid], after[qid]) for qid in lost[:most])


def _loss(ranking: Ranking, place: int, before: float, after: float) -> QueryLoss:
    topic, order = ranking.dataset.topics[place], ranking.ranked[place].order
    judged = ranking.dataset.qrels[topic.qid]
    texts = [(candidate.text or "")[:_TEXT] for candidate in topic.candidates]
    relevant = next((i for i, docid in enumerate(topic.docids) if judged.get(docid, 0) > 0), None)
    return QueryLoss(
        topic.qid,
        topic.query,
        before,
        after,
        texts[0],
        texts[order[0]],
        None if relevant is None else texts[relevant],
        None if relevant is None else relevant + 1,
        None if relevant is None else order.index(relevant) + 1,
    )
