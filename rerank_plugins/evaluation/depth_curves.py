"""Quality by depth: what the first stage finds, and whether more candidates help or hurt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .measures import Qrels, per_query
from .rankings import Ranking

DEPTHS = (5, 10, 20, 30, 50, 75, 100, 150, 200)
# Recall hardly grows beyond the depth that reaches this share of the deepest recall.
_ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Recall:
    """First-stage recall by depth, and the least depth with 95 % of the deepest recall."""

    by_depth: Mapping[int, float]
    recommended: int


def recall(before: Ranking, qrels: Qrels) -> Recall:
    """Measure R@k of the first stage; recommend the depth that reaches 95 % of the deepest."""
    depths = _depths(before)
    orders = before.orders
    names = [f"R@{depth}" for depth in depths]
    values = per_query(orders, qrels, names)
    by_depth = {depth: _mean(values[name]) for depth, name in zip(depths, names, strict=True)}
    enough = _ENOUGH * max(by_depth.values(), default=0.0)
    return Recall(by_depth, next((k for k, value in by_depth.items() if value >= enough), 0))


def by_depth(after: Ranking, qrels: Qrels, measure: str) -> dict[int, float]:
    """Measure the order where only the first k candidates are reranked, for every depth k.

    Computed from one full run: the first k keep their order within the full order. That is exact
    for models that score each pair alone, and nearly so for fusion and cascades.
    """
    found = {}
    for depth in _depths(after):
        orders = {
            topic.qid: [topic.docids[place] for place in restrict(ranked.order, depth)]
            for topic, ranked in after.by_topic
        }
        found[depth] = _mean(per_query(orders, qrels, [measure])[measure])
    return found


def restrict(order: Sequence[int], depth: int) -> list[int]:
    """Reorder only the first `depth` positions; the others follow in first-stage order.

    >>> restrict([3, 1, 0, 2], 2)
    [1, 0, 2, 3]
    """
    return [place for place in order if place < depth] + list(range(depth, len(order)))


def _depths(ranking: Ranking) -> list[int]:
    """Return the depths below the longest candidate list, and its length."""
    deepest = max((len(topic.candidates) for topic in ranking.dataset.topics), default=0)
    return [depth for depth in DEPTHS if depth < deepest] + [deepest]


def _mean(values: Mapping[str, float]) -> float:
    return fmean(values.values()) if values else 0.0
