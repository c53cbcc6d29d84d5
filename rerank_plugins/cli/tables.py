"""An evaluation as tables for the screen."""

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from ..evaluation import Comparison, Difference, System
from ..evaluation.label_free import Unlabelled


def comparison(found: Comparison) -> list[RenderableType]:
    """Show quality and cost in one table, then latency by size, then the recommended depth."""
    parts: list[RenderableType] = [_systems(found)]
    if any(len(system.buckets) > 1 for system in found.systems):
        parts.append(_buckets(found))
    if found.recall.recommended:
        parts.append(_recall(found))
    parts += [escape(line) for system in found.systems[1:] for line in advice(system, found)]
    return parts


def advice(system: System, found: Comparison) -> list[str]:
    """Say what the labels recommend: a calibration and a prior weight, with their evidence."""
    lines = []
    for one in system.reliability:
        if one.parameters is not None and one.method == "platt":
            a, b = one.parameters
            lines.append(
                f"{system.name}: calibration = [{a:.4f}, {b:.4f}] has an expected error of "
                f"{one.ece:.3f} on queries it was not fitted to"
            )
    if system.fusion is not None:
        gain = system.fusion.crosswise
        lines.append(
            f"{system.name}: prior_weight = {system.fusion.prior_weight:g} fits best; "
            f"{found.measures[0]} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over the "
            "model alone, on queries it was not fitted to"
        )
    return lines


def _systems(found: Comparison) -> Table:
    title = f"{found.dataset}: {found.queries:,} queries, {found.candidates:,} candidates"
    caption = r"\[...]: 95 % interval of the difference to the first stage; wins/ties/losses"
    table = Table(title=escape(title), caption=caption)
    table.add_column("")
    for name in (*found.measures, "p50 ms", "p95 ms", "p99 ms", "pairs/s", "truncated"):
        table.add_column(name, justify="right")
    for system in found.systems:
        table.add_row(escape(system.name), *_quality(found, system), *_cost(system))
    return table


def _quality(found: Comparison, system: System) -> list[str]:
    cells = []
    for name in found.measures:
        cell, one = f"{system.means[name]:.3f}", system.differences.get(name)
        if name in system.judged_only:
            cell += f" (judged {system.judged_only[name]:.3f})"
        cells.append(escape(cell if one is None else f"{cell}\n{difference(one)}"))
    return cells


def difference(one: Difference) -> str:
    """Write a difference with its interval, counts and adjusted p-value, on two lines."""
    interval = one.interval
    return (
        f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]\n"
        f"{one.wins}/{one.ties}/{one.losses}, p {one.p_adjusted:.3f}"
    )


def _cost(system: System) -> list[str]:
    cost = system.cost
    if cost is None or cost.latency is None:
        return ["-"] * 5
    latency = cost.latency
    percentiles = (latency.p50_s, latency.p95_s, latency.p99_s)
    return [
        *_ms(*percentiles),
        f"{cost.pairs_per_s:.0f}",
        f"{cost.truncated_share:.1%}",
    ]


def _buckets(found: Comparison) -> Table:
    table = Table(title="latency by size of the request")
    columns = ("", "candidates", "tokens a pair", "requests", "p50 ms", "p95 ms", "p99 ms")
    for name in columns:
        table.add_column(name, justify="right")
    for system in found.systems:
        for one in system.buckets:
            latency = one.latency
            percentiles = (latency.p50_s, latency.p95_s, latency.p99_s)
            table.add_row(
                escape(system.name),
                one.candidates,
                one.tokens,
                str(latency.n),
                *_ms(*percentiles),
            )
    return table


def _recall(found: Comparison) -> str:
    recall = found.recall
    curve = ", ".join(f"@{depth} {value:.3f}" for depth, value in recall.by_depth.items())
    return (
        f"first-stage recall {curve}: reranking {recall.recommended} candidates "
        "reaches 95 % of what the deepest finds"
    )


def unlabelled(found: Unlabelled) -> Table:
    """Show what was seen without labels."""
    caption = (
        "overlap: share of the first stage's first ten that stay; "
        f"regret: what the first ten lose of {found.reference}'s; phantoms: share of the first ten "
        "that passages of other queries took, ten of them mixed in; null score: 99 % of those "
        "passages score less"
    )
    title = f"{found.dataset}: {found.queries:,} queries, no labels used"
    table = Table(title=escape(title), caption=escape(caption))
    for name in ("", "overlap", "regret", "phantoms", "null score", "p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    for one in found.systems:
        latency = one.cost.latency if one.cost else None
        table.add_row(
            escape(one.name),
            f"{one.overlap:.3f}",
            f"{one.regret:.3f}",
            "-" if one.phantoms is None else f"{one.phantoms:.3f}",
            "-" if one.null_score is None else f"{one.null_score:.3f}",
            *(["-"] * 2 if latency is None else _ms(latency.p50_s, latency.p95_s)),
        )
    return table


def _ms(*seconds: float) -> list[str]:
    return [f"{one * 1e3:.0f}" for one in seconds]
