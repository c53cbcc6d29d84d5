"""Plots as inline SVG, drawn without pyplot: no global state, no window."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from ..comparison import Comparison, System
from ..prior_weight import PriorWeightFit
from . import cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe and Ito's palette: colour-blind readers can distinguish it too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#777777"
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def pareto(comparisons: Sequence[Comparison]) -> str:
    """Plot quality against p95, both averaged over the datasets; the first stage is a line."""
    measure = comparisons[0].measures[0]
    names = [system.name for system in comparisons[0].systems]
    quality = cells.overall(comparisons)

    def draw(axes: "Axes") -> None:
        axes.axhline(quality[0], color=_GREY, linestyle="--", linewidth=1)
        axes.annotate(names[0], (0.01, quality[0]), xycoords=("axes fraction", "data"), va="bottom")
        seconds = [
            fmean(_p95(found, place) for found in comparisons) for place in range(len(names))
        ]
        front = pareto_front(list(zip(seconds, quality, strict=True))[1:])
        axes.plot(*zip(*((x * 1e3, y) for x, y in front), strict=True), color=_GREY, linewidth=0.8)
        for place, name in list(enumerate(names))[1:]:
            colour = _COLOURS[(place - 1) % len(_COLOURS)]
            axes.scatter([seconds[place] * 1e3], [quality[place]], color=colour, s=50)
            axes.annotate(
                name,
                (seconds[place] * 1e3, quality[place]),
                xytext=(6, 4),
                textcoords="offset points",
                color=colour,
            )
        axes.set_xscale("log")
        axes.margins(x=0.4, y=0.2)
        _plain_ticks(axes)
        axes.set_xlabel("p95 latency in ms, mean over sets")
        axes.set_ylabel(f"{measure}, mean over sets")

    return _svg(draw, "pareto")


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the (cost, quality) points that no cheaper point reaches, cheapest first.

    >>> pareto_front([(2.0, 0.5), (1.0, 0.4), (3.0, 0.45)])
    [(1.0, 0.4), (2.0, 0.5)]
    """
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def forest(comparisons: Sequence[Comparison]) -> str:
    """Plot each dataset's difference to the first stage with its 95 % interval."""
    measure = comparisons[0].measures[0]
    systems = [system.name for system in comparisons[0].systems[1:]]

    def draw(axes: "Axes") -> None:
        axes.axvline(0.0, color=_GREY, linewidth=1)
        for place, name in enumerate(systems):
            gaps = [found.systems[place + 1].differences[measure].interval for found in comparisons]
            means = [gap.mean for gap in gaps]
            ends = [[gap.mean - gap.low for gap in gaps], [gap.high - gap.mean for gap in gaps]]
            step = 0.6 / max(1, len(systems))
            rows = [row + (place - (len(systems) - 1) / 2) * step for row in range(len(gaps))]
            colour = _COLOURS[place % len(_COLOURS)]
            axes.errorbar(means, rows, xerr=ends, fmt="o", color=colour, capsize=3, label=name)
        axes.set_yticks(range(len(comparisons)), [found.dataset for found in comparisons])
        axes.invert_yaxis()
        axes.set_xlabel(f"{measure} less the first stage's, 95 % interval")
        axes.legend(frameon=False, fontsize=8)

    return _svg(draw, "forest", height=1.4 + 0.45 * len(comparisons))


def depth(comparison: Comparison) -> str:
    """Plot the first measure against the number of candidates reranked."""
    measure = comparison.measures[0]
    curves = {system.name: system.by_depth.items() for system in comparison.systems[1:]}
    level = comparison.systems[0].means[measure]

    def draw(axes: "Axes") -> None:
        axes.axhline(level, color=_GREY, linestyle="--", linewidth=1, label="first stage")
        _curves(axes, curves, x="candidates", y=measure)

    return _svg(draw, f"depth {comparison.dataset}", height=3.0)


def recall(comparison: Comparison) -> str:
    """Plot the first stage's recall against depth, the recommended depth marked."""
    found = comparison.recall

    def draw(axes: "Axes") -> None:
        axes.axvline(found.recommended, color=_GREY, linestyle=":", label=f"{found.recommended}")
        _curves(axes, {"first stage": found.by_depth.items()}, x="candidates", y="recall")

    return _svg(draw, f"recall {comparison.dataset}", height=3.0)


def reliability(system: System, dataset: str) -> str:
    """Plot the share that was relevant against the predicted probability."""
    curves = {
        f"{fitted.method}, ECE {fitted.ece:.3f}": [
            (part.said, part.relevant) for part in fitted.bins
        ]
        for fitted in system.reliability
    }

    def draw(axes: "Axes") -> None:
        axes.plot([0.0, 1.0], [0.0, 1.0], color=_GREY, linestyle="--", linewidth=1)
        _curves(axes, curves, x="probability", y="share relevant")

    return _svg(draw, f"reliability {system.name} {dataset}", height=3.0)


def weights(fit: PriorWeightFit, measure: str, salt: str) -> str:
    """Plot the measure against the prior's weight in the fusion."""

    def draw(axes: "Axes") -> None:
        axes.axhline(fit.reciprocal_ranks, color=_GREY, linestyle=":", label="reciprocal ranks")
        x = "prior_weight: 0 the model alone, 1 the first stage alone"
        _curves(axes, {"convex": fit.by_weight.items()}, x=x, y=measure)

    return _svg(draw, f"weights {salt}", height=3.0)


def _curves(
    axes: "Axes", curves: Mapping[str, Iterable[tuple[float, float]]], *, x: str, y: str
) -> None:
    """Draw named curves through points, with the names of both axes."""
    for place, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8)


def _plain_ticks(axes: "Axes") -> None:
    """Write 300, not 3 x 10^2, at few ticks of a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _p95(comparison: Comparison, place: int) -> float:
    cost = comparison.systems[place].cost
    return cost.latency.p95_s if cost is not None and cost.latency is not None else 0.0


def _svg(draw: Callable[["Axes"], None], salt: str, *, height: float = 3.6) -> str:
    """Draw on a new figure; the same data gives the same bytes."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed; run: pip install 'rerank-plugins[eval]'"
        ) from error
    # Salted: ids must differ between the plots of a page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    text = out.getvalue()
    return text[text.index("<svg") :]
