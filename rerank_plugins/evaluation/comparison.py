"""Before and after: the first stage's order against the orders of rerankers, and gates on it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..errors import InvalidRequest
from ..reranker import Reranker
from . import cost, depth_curves, prior_weight, reliability, worst_queries
from .cost import Cost, SizeBucket
from .datasets import Dataset
from .depth_curves import Recall
from .measures import DEFAULT, Qrels, check, judged_only, per_query
from .prior_weight import PriorWeightFit
from .rankings import Ranking, first_stage, rerank_all
from .reliability import Reliability
from .significance import Interval, bootstrap, holm, permutation
from .worst_queries import QueryLoss

FIRST_STAGE = "first stage"
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """A system's measure less the first stage's, over paired queries.

    interval: by bootstrap, at 95 %
    p: by a permutation test
    p_adjusted: after Holm, over every difference of this measure in the evaluation
    """

    interval: Interval
    wins: int
    ties: int
    losses: int
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class System:
    """The first stage, which has neither cost nor differences, or a reranker.

    values: measure -> query id -> value
    judged_only: measure -> mean without unjudged documents; empty if none is judged not relevant
    by_depth: k -> mean of the first measure where only the first k candidates are reranked
    """

    name: str
    values: Mapping[str, Mapping[str, float]]
    judged_only: Mapping[str, float]
    differences: Mapping[str, Difference]
    by_depth: Mapping[int, float]
    worst: tuple[QueryLoss, ...]
    buckets: tuple[SizeBucket, ...]
    cost: Cost | None
    reliability: tuple[Reliability, ...] = ()
    fusion: PriorWeightFit | None = None

    @property
    def means(self) -> dict[str, float]:
        """Average every measure over the queries."""
        return {name: fmean(values.values()) for name, values in self.values.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first stage (always the first system) and rerankers, over one dataset."""

    dataset: str
    queries: int
    candidates: int
    measures: tuple[str, ...]
    recall: Recall
    systems: tuple[System, ...]


def compare(
    dataset: Dataset,
    rerankers: Mapping[str, Reranker],
    *,
    measures: Sequence[str] = DEFAULT,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Comparison:
    """Rerank the judged topics of `dataset` with every reranker and measure before and after.

    `seed` fixes bootstrap and permutations. Raises `InvalidRequest` where nothing is judged.
    """
    names = check(measures)
    judged = require_judged(dataset)
    rankings = [
        rerank_all(name, reranker, judged, progress=progress)
        for name, reranker in rerankers.items()
    ]
    return measure(judged, rankings, measures=names, seed=seed)


def require_judged(dataset: Dataset) -> Dataset:
    """Keep the judged topics. Raises `InvalidRequest` where there is none."""
    judged = dataset.judged
    if not judged.topics:
        raise InvalidRequest(
            f"no query of {dataset.name} is judged; expected qrels/test.tsv or qrels.txt in the "
            "folder, 'rel' in its lines, or --qrels FILE. Without labels, --label-free says what "
            "can be said, and --label-sample FILE writes a table to label"
        )
    return judged


def measure(
    judged: Dataset, rankings: Sequence[Ranking], *, measures: Sequence[str], seed: int = 0
) -> Comparison:
    """Measure rankings of the same judged topics against the first stage."""
    before = first_stage(judged, FIRST_STAGE)
    start = _first_system(before, judged.qrels, measures)
    systems = [_system(after, start, judged.qrels, measures, seed) for after in rankings]
    return Comparison(
        judged.name,
        len(judged.topics),
        sum(len(topic.candidates) for topic in judged.topics),
        tuple(measures),
        depth_curves.recall(before, judged.qrels),
        (start, *systems),
    )


def adjust(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Adjust the p-values of each measure over all datasets and systems (Holm)."""
    every = [system.differences for found in comparisons for system in found.systems]
    adjusted = {
        measure: iter(holm([found[measure].p for found in every if measure in found]))
        for measure in {measure for found in every for measure in found}
    }
    return tuple(
        replace(found, systems=tuple(_adjusted(system, adjusted) for system in found.systems))
        for found in comparisons
    )


def _adjusted(system: System, adjusted: Mapping[str, Iterator[float]]) -> System:
    """Return a system with the next adjusted p-value of each measure."""
    differences = {
        measure: replace(found, p_adjusted=next(adjusted[measure]))
        for measure, found in system.differences.items()
    }
    return replace(system, differences=differences)


def without_texts(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Leave out every query and passage, for reports whose readers may not see the texts."""
    return tuple(
        replace(found, systems=tuple(replace(system, worst=()) for system in found.systems))
        for found in comparisons
    )


def _first_system(before: Ranking, qrels: Qrels, measures: Sequence[str]) -> System:
    values = per_query(before.orders, qrels, measures)
    shared = judged_only(before.orders, qrels, measures)
    return System(before.name, values, shared, {}, {}, (), (), None)


def _system(
    after: Ranking, start: System, qrels: Qrels, measures: Sequence[str], seed: int
) -> System:
    values = per_query(after.orders, qrels, measures)
    first = measures[0]
    return System(
        after.name,
        values,
        judged_only(after.orders, qrels, measures),
        {name: difference(start.values[name], values[name], seed=seed) for name in measures},
        depth_curves.by_depth(after, qrels, first),
        worst_queries.worst(after, start.values[first], values[first]),
        cost.by_size(after.ranked),
        cost.total(after.ranked),
        reliability.examine(after, qrels),
        prior_weight.fit(after, qrels, first, seed=seed),
    )


def difference(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0
) -> Difference:
    """Compare two systems query by query; a difference below 1e-9 is a tie."""
    paired = [after[qid] - value for qid, value in before.items()]
    p = permutation(paired, seed=seed)
    return Difference(
        bootstrap(paired, seed=seed),
        wins=sum(gain > _SAME for gain in paired),
        ties=sum(abs(gain) <= _SAME for gain in paired),
        losses=sum(gain < -_SAME for gain in paired),
        p=p,
        p_adjusted=p,
    )


def below(comparisons: Sequence[Comparison], floors: Mapping[str, float]) -> list[str]:
    """Return the name of every reranker whose mean of a measure is below its floor."""
    return [
        f"{found.dataset}: {system.name} has {measure} {system.means[measure]:.4f}, below {floor}"
        for found in comparisons
        for system in found.systems[1:]
        for measure, floor in floors.items()
        if system.means[measure] < floor
    ]


def possible_losses(comparisons: Sequence[Comparison], margin: float) -> list[str]:
    """Return the name of every reranker that may have lost more than `margin` to the first stage.

    A loss is possible where the lower end of the 95 % interval allows it. More queries narrow the
    interval.
    """
    return [
        f"{found.dataset}: {system.name} may lose {-gap.interval.low:.4f} {measure} to the "
        f"{found.systems[0].name}, more than {margin}"
        for found in comparisons
        for system in found.systems[1:]
        for measure, gap in system.differences.items()
        if gap.interval.low < -margin
    ]
