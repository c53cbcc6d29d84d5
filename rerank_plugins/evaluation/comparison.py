"""Before and after: the first stage's order against the orders of rerankers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..errors import InvalidRequest
from ..reranker import Reranker
from . import depth_curves, latency_buckets, prior_weight, reliability, worst_queries
from .datasets import Dataset
from .depth_curves import Recall
from .latency_buckets import Bucket
from .measures import DEFAULT, Qrels, check, judged_only, per_query
from .prior_weight import FusionFit
from .reliability import Reliability
from .runs import Cost, Ranking, collect, cost, first_stage
from .significance import Interval, bootstrap, holm, permutation
from .worst_queries import Loss

FIRST_STAGE = "first stage"
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """A system's measure less the first stage's, over paired queries.

    `interval` is the bootstrap's at 95 %, `p` the permutation test's, `p_adjusted` the same after
    Holm over every difference of this measure in the evaluation.
    """

    interval: Interval
    wins: int
    ties: int
    losses: int
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class System:
    """One way to order the candidates.

    `values` maps measure -> query id -> value; `judged_only` measure -> mean with unjudged
    documents left out, empty where nothing is judged not relevant. `by_depth` is the first measure
    where only the first k candidates are reranked. The first stage has no cost, no differences.
    """

    name: str
    values: Mapping[str, Mapping[str, float]]
    judged_only: Mapping[str, float]
    differences: Mapping[str, Difference]
    by_depth: Mapping[int, float]
    worst: tuple[Loss, ...]
    buckets: tuple[Bucket, ...]
    cost: Cost | None
    reliability: tuple[Reliability, ...] = ()
    fusion: FusionFit | None = None

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
    rankings = [collect(name, one, judged, progress=progress) for name, one in rerankers.items()]
    return measure(judged, rankings, measures=names, seed=seed)


def require_judged(dataset: Dataset) -> Dataset:
    """Keep the judged topics. Raises `InvalidRequest` where there is none."""
    judged = dataset.judged
    if not judged.topics:
        message = (
            f"no query of {dataset.name} is judged; expected qrels/test.tsv or qrels.txt in the "
            "folder, 'rel' in its lines, or --qrels FILE. Without labels, --label-free says what "
            "can be said, and --label-sample FILE writes a table to label"
        )
        raise InvalidRequest(message)
    return judged


def measure(
    judged: Dataset, rankings: Sequence[Ranking], *, measures: Sequence[str], seed: int = 0
) -> Comparison:
    """Measure rankings of the same judged topics against the first stage."""
    before = first_stage(judged, FIRST_STAGE)
    start = _first_system(before, judged.qrels, measures)
    systems = [_system(one, start, judged.qrels, measures, seed) for one in rankings]
    return Comparison(
        judged.name,
        len(judged.topics),
        sum(len(one.candidates) for one in judged.topics),
        tuple(measures),
        depth_curves.recall(before, judged.qrels),
        (start, *systems),
    )


def adjust(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Adjust the p-values of each measure over all datasets and systems (Holm)."""
    keys = [
        (at, place, measure)
        for at, one in enumerate(comparisons)
        for place, system in enumerate(one.systems)
        for measure in system.differences
    ]
    adjusted: dict[tuple[int, int, str], float] = {}
    for measure in {key[2] for key in keys}:
        family = [key for key in keys if key[2] == measure]
        values = [comparisons[at].systems[place].differences[measure].p for at, place, _ in family]
        adjusted |= dict(zip(family, holm(values), strict=True))
    return tuple(_adjusted(one, at, adjusted) for at, one in enumerate(comparisons))


def without_texts(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Leave out every query and passage, for reports that go further than the texts may."""
    return tuple(
        replace(one, systems=tuple(replace(system, worst=()) for system in one.systems))
        for one in comparisons
    )


def _adjusted(
    comparison: Comparison, at: int, adjusted: Mapping[tuple[int, int, str], float]
) -> Comparison:
    systems = [
        replace(
            system,
            differences={
                measure: replace(one, p_adjusted=adjusted[at, place, measure])
                for measure, one in system.differences.items()
            },
        )
        for place, system in enumerate(comparison.systems)
    ]
    return replace(comparison, systems=tuple(systems))


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
        latency_buckets.split(after.answers),
        cost(after.answers),
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
        wins=sum(one > _SAME for one in paired),
        ties=sum(abs(one) <= _SAME for one in paired),
        losses=sum(one < -_SAME for one in paired),
        p=p,
        p_adjusted=p,
    )
