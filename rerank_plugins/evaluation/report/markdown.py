"""The report as Markdown tables."""

from collections.abc import Iterator, Sequence

from ..comparison import Comparison, System
from ..worst_queries import QueryLoss
from . import cells

_FEW = 3


def page(comparisons: Sequence[Comparison]) -> str:
    """Write a section per dataset: quality and cost, depth, latency by size, losses.

    With several datasets, a table of the first measure over all of them comes first.
    """
    lines = ["# Evaluation", ""]
    if len(comparisons) > 1:
        lines += _overview(comparisons)
    for found in comparisons:
        lines += _section(found)
    return "\n".join(lines)


def _overview(comparisons: Sequence[Comparison]) -> Iterator[str]:
    measure = comparisons[0].measures[0]
    systems = comparisons[0].systems
    rows = [
        (
            found.dataset,
            str(found.queries),
            *(_quality(system, measure) for system in found.systems),
        )
        for found in comparisons
    ]
    means = cells.overall(comparisons)
    rows.append(("**mean**", "", *(f"**{value:.3f}**" for value in means)))
    yield from _table((measure, "queries", *(system.name for system in systems)), rows)


def _quality(system: System, measure: str) -> str:
    cell = cells.quality(system, measure, judged=" (judged {})")
    difference = system.differences.get(measure)
    return cell if difference is None else f"{cell}<br>{difference.interval}"


def _section(found: Comparison) -> Iterator[str]:
    yield f"## {found.dataset}"
    yield ""
    yield f"{found.queries:,} queries, {found.candidates:,} candidates."
    yield ""
    yield from _table(
        ("", *found.measures, "wins/ties/losses", "p (Holm)", *cells.COST),
        [_system(found, system) for system in found.systems],
    )
    yield from _depths(found)
    yield from _table(cells.SIZE[:-1], [row[:-1] for row in cells.by_size(found)])
    for system in found.systems[1:]:
        if system.worst:
            yield f"What {system.name} made worst, of {len(system.worst)} shown in the HTML report:"
            yield ""
            yield from (_loss(found, loss) for loss in system.worst[:_FEW])
            yield ""


def _system(found: Comparison, system: System) -> tuple[str, ...]:
    row = [system.name, *(_quality(system, name) for name in found.measures)]
    first = system.differences.get(found.measures[0])
    if first is None:
        row += ["", ""]
    else:
        row += [f"{first.wins}/{first.ties}/{first.losses}", f"{first.p_adjusted:.4f}"]
    return (*row, *cells.cost(system))


def _depths(found: Comparison) -> Iterator[str]:
    depths = list(found.recall.by_depth)
    rows = [("first-stage recall", *(f"{value:.3f}" for value in found.recall.by_depth.values()))]
    rows += [
        (
            f"{system.name}, {found.measures[0]}",
            *(f"{system.by_depth[depth]:.3f}" for depth in depths),
        )
        for system in found.systems[1:]
    ]
    yield from _table(("by candidates reranked", *map(str, depths)), rows)
    yield f"{found.recall.recommended} candidates reach 95 % of the deepest recall."
    yield ""


def _loss(found: Comparison, loss: QueryLoss) -> str:
    return (
        f"* {_cell(loss.query)}: {found.measures[0]} {loss.before:.3f} to {loss.after:.3f}; "
        f"on top now: {_cell(loss.top_after[:160])}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield f"|{'---|' * len(head)}"
        yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")
