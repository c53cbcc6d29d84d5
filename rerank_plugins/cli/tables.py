"""Tables of an evaluation for the screen."""

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from ..evaluation import Comparison, Difference, System
from ..evaluation.label_free import LabelFreeComparison
from ..evaluation.report import cells


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
    """Return what the labels recommend: a calibration and a prior weight, with their evidence."""
    lines = []
    for fitted in system.reliability:
        if fitted.parameters is not None and fitted.method == "platt":
            a, b = fitted.parameters
            lines.append(
                f"{system.name}: calibration = [{a:.4f}, {b:.4f}] has an expected error of "
                f"{fitted.ece:.3f} on queries it was not fitted to"
            )
    if system.fusion is not None:
        lines.append(
            f"{system.name}: prior_weight = {system.fusion.prior_weight:g} fits best; "
            f"{found.measures[0]} {system.fusion.crosswise} over the "
            "model alone, on queries it was not fitted to"
        )
    return lines


def _systems(found: Comparison) -> Table:
    title = f"{found.dataset}: {found.queries:,} queries, {found.candidates:,} candidates"
    caption = r"\[...]: 95 % interval of the difference to the first stage; wins/ties/losses"
    table = Table(title=escape(title), caption=caption)
    table.add_column("")
    for name in (*found.measures, *cells.COST):
        table.add_column(name, justify="right")
    for system in found.systems:
        table.add_row(
            escape(system.name), *_quality(found, system), *cells.cost(system, missing="-")
        )
    return table


def _quality(found: Comparison, system: System) -> list[str]:
    row = []
    for name in found.measures:
        cell = cells.quality(system, name, judged=" (judged {})")
        difference = system.differences.get(name)
        row.append(escape(cell if difference is None else f"{cell}\n{_difference(difference)}"))
    return row


def _difference(found: Difference) -> str:
    counts = f"{found.wins}/{found.ties}/{found.losses}"
    return f"{found.interval}\n{counts}, p {found.p_adjusted:.3f}"


def _buckets(found: Comparison) -> Table:
    table = Table(title="latency by size of the request")
    for name in cells.SIZE:
        table.add_column(name, justify="right")
    for name, *row in cells.by_size(found):
        table.add_row(escape(name), *row)
    return table


def _recall(found: Comparison) -> str:
    recall = found.recall
    curve = ", ".join(f"@{depth} {value:.3f}" for depth, value in recall.by_depth.items())
    return (
        f"first-stage recall {curve}: reranking {recall.recommended} candidates "
        "reaches 95 % of what the deepest finds"
    )


def label_free(found: LabelFreeComparison) -> Table:
    """Show what was measured without labels."""
    caption = (
        "overlap: share of the first stage's first ten that stay; "
        f"regret: what the first ten lose of {found.reference}'s; phantoms: share of the first ten "
        "that passages of other queries took, ten of them mixed in; null score: 99 % of those "
        "passages score less"
    )
    title = f"{found.dataset}: {found.queries:,} queries, no labels used"
    table = Table(title=escape(title), caption=escape(caption))
    for name in ("", "overlap", "regret", "phantoms", "null score", *cells.PERCENTILES[:2]):
        table.add_column(name, justify="right")
    for system in found.systems:
        latency = system.cost.latency if system.cost else None
        table.add_row(
            escape(system.name),
            f"{system.overlap:.3f}",
            f"{system.regret:.3f}",
            "-" if system.phantoms is None else f"{system.phantoms:.3f}",
            "-" if system.null_score is None else f"{system.null_score:.3f}",
            *(["-"] * 2 if latency is None else cells.percentiles(latency)[:2]),
        )
    return table
