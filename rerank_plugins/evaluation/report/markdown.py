"""The report as Markdown tables."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ..comparison import Comparison, System
from ..worst_queries import Loss

_FEW = 3


def page(comparisons: Sequence[Comparison]) -> str:
    """Write one section a dataset: quality and cost, depth, latency by size, losses.

    With several datasets a table of the first measure over all of them goes before.
    """
    lines = ["# Evaluation", ""]
    if len(comparisons) > 1:
        lines += _overview(comparisons)
    for one in comparisons:
        lines += _section(one)
    return "\n".join(lines)


def _overview(comparisons: Sequence[Comparison]) -> Iterator[str]:
    measure = comparisons[0].measures[0]
    systems = comparisons[0].systems
    rows = [
        (one.dataset, str(one.queries), *(_brief(system, measure) for system in one.systems))
        for one in comparisons
    ]
    means = [
        fmean(one.systems[place].means[measure] for one in comparisons)
        for place in range(len(systems))
    ]
    rows.append(("**mean**", "", *(f"**{value:.3f}**" for value in means)))
    yield from _table((measure, "queries", *(one.name for one in systems)), rows)


def _brief(system: System, measure: str) -> str:
    cell = f"{system.means[measure]:.3f}"
    one = system.differences.get(measure)
    if one is None:
        return cell
    return f"{cell}<br>{one.interval.mean:+.3f} [{one.interval.low:+.3f}, {one.interval.high:+.3f}]"


def _section(found: Comparison) -> Iterator[str]:
    yield f"## {found.dataset}"
    yield ""
    yield f"{found.queries:,} queries, {found.candidates:,} candidates."
    yield ""
    costs = ("p50 ms", "p95 ms", "p99 ms", "pairs/s", "truncated")
    yield from _table(
        ("", *found.measures, "wins/ties/losses", "p (Holm)", *costs),
        [_system(found, one) for one in found.systems],
    )
    yield from _depths(found)
    rows = [
        (one.name, b.candidates, b.tokens, str(b.latency.n), *_ms(b.latency.p50_s, b.latency.p95_s))
        for one in found.systems
        for b in one.buckets
    ]
    yield from _table(("", "candidates", "tokens a pair", "requests", "p50 ms", "p95 ms"), rows)
    for system in found.systems[1:]:
        if system.worst:
            yield f"What {system.name} made worst, of {len(system.worst)} shown in the HTML report:"
            yield ""
            yield from (_loss(found, one) for one in system.worst[:_FEW])
            yield ""


def _system(found: Comparison, system: System) -> tuple[str, ...]:
    cells = [system.name]
    for name in found.measures:
        one = system.differences.get(name)
        cell = f"{system.means[name]:.3f}"
        if name in system.judged_only:
            cell += f" (judged {system.judged_only[name]:.3f})"
        if one is not None:
            gap = one.interval
            cell += f"<br>{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        cells.append(cell)
    first = system.differences.get(found.measures[0])
    cost = system.cost
    if first is None or cost is None or cost.latency is None:
        return (*cells, *[""] * 7)
    latency = cost.latency
    return (
        *cells,
        f"{first.wins}/{first.ties}/{first.losses}",
        f"{first.p_adjusted:.4f}",
        *_ms(latency.p50_s, latency.p95_s, latency.p99_s),
        f"{cost.pairs_per_s:.0f}",
        f"{cost.truncated_share:.1%}",
    )


def _depths(found: Comparison) -> Iterator[str]:
    depths = list(found.recall.by_depth)
    rows = [("first-stage recall", *(f"{value:.3f}" for value in found.recall.by_depth.values()))]
    rows += [
        (
            f"{one.name}, {found.measures[0]}",
            *(f"{one.by_depth[depth]:.3f}" for depth in depths),
        )
        for one in found.systems[1:]
    ]
    yield from _table(("by candidates reranked", *map(str, depths)), rows)
    yield f"{found.recall.recommended} candidates reach 95 % of the deepest recall."
    yield ""


def _loss(found: Comparison, one: Loss) -> str:
    return (
        f"* {_cell(one.query)}: {found.measures[0]} {one.before:.3f} to {one.after:.3f}; "
        f"on top now: {_cell(one.top_after[:160])}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield f"|{'---|' * len(head)}"
        yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")


def _ms(*seconds: float) -> tuple[str, ...]:
    return tuple(f"{one * 1e3:.0f}" for one in seconds)
