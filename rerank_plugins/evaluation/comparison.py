"""Before and after: the first stage's order against the orders of rerankers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..errors import InvalidRequest
from ..reranker import Reranker
from .answers import Cost, collect, cost
from .datasets import Dataset
from .measures import DEFAULT, check, per_query
from .significance import Interval, bootstrap

FIRST_STAGE = "first stage"


@dataclass(frozen=True, slots=True)
class System:
    """One way to order the candidates.

    `values` maps measure -> query id -> value, `differences` measure -> the mean difference to the
    first stage with its interval. The first stage itself has no cost and no differences.
    """

    name: str
    values: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Interval]
    cost: Cost | None

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

    `seed` fixes the bootstrap. Raises `InvalidRequest` where nothing is judged.
    """
    names = check(measures)
    judged = dataset.judged
    if not judged.topics:
        message = (
            f"no query of {dataset.name} is judged; expected qrels/test.tsv or qrels.txt in the "
            "folder, 'rel' in its lines, or --qrels FILE"
        )
        raise InvalidRequest(message)
    before = per_query({one.qid: one.docids for one in judged.topics}, judged.qrels, names)
    systems = [System(FIRST_STAGE, before, {}, None)]
    for name, reranker in rerankers.items():
        answers = collect(reranker, judged, progress=progress)
        after = per_query({one.qid: one.docids for one in answers}, judged.qrels, names)
        differences = {
            measure: bootstrap(_paired(before[measure], after[measure]), seed=seed)
            for measure in names
        }
        systems.append(System(name, after, differences, cost(answers)))
    candidates = sum(len(one.candidates) for one in judged.topics)
    return Comparison(dataset.name, len(judged.topics), candidates, names, tuple(systems))


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    return [after[qid] - value for qid, value in before.items()]
