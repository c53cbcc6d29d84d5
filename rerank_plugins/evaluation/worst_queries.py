"""The queries that reranking made worse, with the texts that changed places."""

from collections.abc import Mapping
from dataclasses import dataclass

from .runs import Ranking

_TEXT = 400


@dataclass(frozen=True, slots=True)
class Loss:
    """A query that lost, the passage on top before and after, and the best relevant one.

    Texts are cut to 400 characters. `relevant_before` and `relevant_after` are its ranks, from 1;
    None where no candidate is relevant.
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
) -> tuple[Loss, ...]:
    """List the queries that lost most by a measure's values, the greatest loss first."""
    lost = sorted(
        (qid for qid in before if after[qid] < before[qid]), key=lambda q: after[q] - before[q]
    )
    places = {topic.qid: place for place, topic in enumerate(ranking.dataset.topics)}
    return tuple(_loss(ranking, places[qid], before[qid], after[qid]) for qid in lost[:most])


def _loss(ranking: Ranking, place: int, before: float, after: float) -> Loss:
    topic, order = ranking.dataset.topics[place], ranking.answers[place].order
    judged = ranking.dataset.qrels[topic.qid]
    texts = [(one.text or "")[:_TEXT] for one in topic.candidates]
    # The one that the first stage had highest: what the reranker should have kept there.
    relevant = next((i for i, docid in enumerate(topic.docids) if judged.get(docid, 0) > 0), None)
    return Loss(
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
