"""Verdicts for continuous integration: what must hold of every reranker on every dataset."""

from collections.abc import Mapping, Sequence

from .comparison import Comparison


def below(comparisons: Sequence[Comparison], floors: Mapping[str, float]) -> list[str]:
    """Name every reranker whose mean of a measure lies below its floor."""
    return [
        f"{one.dataset}: {system.name} has {measure} {system.means[measure]:.4f}, below {floor}"
        for one in comparisons
        for system in one.systems[1:]
        for measure, floor in floors.items()
        if system.means[measure] < floor
    ]


def worse(comparisons: Sequence[Comparison], margin: float) -> list[str]:
    """Name every reranker that may have lost more than `margin` to the first stage.

    "May": the lower end of the 95 % interval counts, for a loss that the data cannot exclude is
    not "no loss". More queries narrow the interval.
    """
    return [
        f"{one.dataset}: {system.name} may lose {-difference.interval.low:.4f} {measure} to the "
        f"{one.systems[0].name}, more than {margin}"
        for one in comparisons
        for system in one.systems[1:]
        for measure, difference in system.differences.items()
        if difference.interval.low < -margin
    ]
