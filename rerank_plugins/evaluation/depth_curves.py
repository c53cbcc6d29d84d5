"""Quality against depth: what the first stage finds, and when more candidates hurt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .measures import Qrels, per_query
from .runs import Ranking

DEPTHS = (5, 10, 20, 30, 50, 75, 100, 150, 200)
# The depth beyond which recall hardly grows: this share of what the deepest one finds.
_ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Recall:
    """First-stage recall by depth, and the least depth with 95 % of the deepest one's."""

    by_depth: Mapping[int, float]
    recommended: int


def recall(before: Ranking, qrels: Qrels) -> Recall:
    """Measure R@k of the first stage; recommend where it reaches 95 % of its end."""
    depths = _depths(before)
    orders = before.orders
    names = [f"R@{depth}" for depth in depths]
    values = per_query(orders, qrels, names)
    by_depth = {depth: _mean(values[name]) for depth, name in zip(depths, names, strict=True)}
    enough = _ENOUGH * max(by_depth.values(), default=0.0)
    return Recall(by_depth, next((k for k, value in by_depth.items() if value >= enough), 0))


def by_depth(after: Ranking, qrels: Qrels, measure: str) -> dict[int, float]:
    """Measure what reranking only the first k candidates gives, the rest left where they were.

    Taken from one full run: the order of the first k among themselves is the full order's. That is
    exact for models that score each pair alone; fusion and cascades shift it a little.
    """
    found = {}
    for depth in _depths(after):
        orders = {
            topic.qid: [topic.docids[place] for place in restrict(answer.order, depth)]
            for topic, answer in zip(after.dataset.topics, after.answers, strict=True)
        }
        found[depth] = _mean(per_query(orders, qrels, [measure])[measure])
    return found


def restrict(order: Sequence[int], depth: int) -> list[int]:
    """Reorder only the first `depth` positions; the others follow in first-stage order.

    >>> restrict([3, 1, 0, 2], 2)
    [1, 0, 2, 3]
    """
    return [one for one in order if one < depth] + list(range(depth, len(order)))


def _depths(ranking: Ranking) -> list[int]:
    """Give the depths up to the longest candidate list, that one included."""
    deepest = max((len(one.candidates) for one in ranking.dataset.topics), default=0)
    return [depth for depth in DEPTHS if depth < deepest] + [deepest]


def _mean(values: Mapping[str, float]) -> float:
    return fmean(values.values()) if values else 0.0
