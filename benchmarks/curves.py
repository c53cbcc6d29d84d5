"""The plots of the adaptive benchmark, as SVG."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cuts
import numpy as np
from clocked import BUDGETS_MS, Kept
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from replayed import Measured, Replay

from rerank_plugins.rules import selection
from rerank_plugins.rules.calibration import apply
from rerank_plugins.rules.selection import Cut, GapCut, ProbabilityCut

Returned: TypeAlias = Callable[[Sequence[float], Sequence[float]], int]
"""How many hits a rule returns, by their scores and probabilities."""


def cascades(
    one: Replay, rows: Sequence[Measured], found: Sequence[Measured], path: Path, title: str
) -> None:
    """Draw nDCG@10 against the speedup of cascades, exits, depths and layers."""
    figure, axes = _figure()
    styles = {
        "exits": ("-", "tab:blue", "exits, every margin"),
        "first exit > whole": ("o", "tab:green", "first exit, adaptive depth, whole model"),
        "fixed depth": ("s:", "tab:gray", "fixed depth"),
        "fixed layer": ("^", "tab:orange", "fixed layer"),
    }
    for way, (style, colour, label) in styles.items():
        points = sorted((p.speedup, p.ndcg) for p in (*rows, *found) if p.way == way)
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
    axes.axhline(0.99 * one.whole, color="tab:red", linewidth=0.8, label="1 % below whole")
    axes.axhline(one.whole, color="black", linewidth=0.8, label="whole model")
    axes.set_xlabel("speedup: work of the whole model on all candidates / work done")
    _finish(figure, axes, path, title)


def budgets(rows: Sequence[Kept], lines: Mapping[str, float], path: Path, title: str) -> None:
    """Draw nDCG@10 against the budget, for one caller and for four."""
    figure, axes = _figure()
    colours = {way: f"C{i}" for i, way in enumerate(dict.fromkeys(row.way for row in rows))}
    for way, colour in colours.items():
        for callers, style in ((1, "o-"), (4, "o--")):
            points = [
                next(
                    (r.ndcg for r in rows if _cell(r) == (way, callers, budget)),
                    float("nan"),
                )
                for budget in BUDGETS_MS
            ]
            label = f"{way}, {callers} at once"
            axes.plot(BUDGETS_MS, points, style, color=colour, label=label, markersize=4)
    for name, value in lines.items():
        axes.axhline(value, linewidth=0.8, color="black" if name == "whole model" else "gray")
        axes.annotate(name, (BUDGETS_MS[0], value), fontsize=7, va="bottom")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS_MS, [str(one) for one in BUDGETS_MS])
    axes.minorticks_off()
    axes.set_xlabel("budget, ms")
    _finish(figure, axes, path, title)


def top_k(one: Replay, path: Path, title: str) -> None:
    """Draw how many relevant passages of the first 20 each rule returns, by how much it returns."""
    figure, axes = _figure()
    rules: dict[str, list[Returned]] = {
        "fixed": [_rule(k) for k in (1, 2, 3, 5, 8, 10, 15, 20)],
        "probability": [_rule(ProbabilityCut(p)) for p in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)],
        "mass": [partial(_by_mass, m) for m in (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)],
        "largest gap, and some more": [_rule(GapCut(buffer=b)) for b in (0, 1, 2, 4, 8)],
        "null rate": [
            partial(_by_null_rate, one.nulls, rate) for rate in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        ],
    }
    for name, settings in rules.items():
        points = [_returned(one, rule) for rule in settings]
        style = "s:" if name == "fixed" else "o-"
        axes.plot(*zip(*sorted(points), strict=True), style, label=name, markersize=4)
    axes.set_xlabel("passages returned of the best 20, mean over queries")
    _finish(figure, axes, path, title, label="share of the relevant ones among them")


def _rule(rule: Cut) -> Returned:
    return partial(selection.cut, rule)


def _by_mass(mass: float, _scores: Sequence[float], chances: Sequence[float]) -> int:
    return cuts.by_mass(chances, mass)


def _by_null_rate(
    nulls: Sequence[float], rate: float, scores: Sequence[float], _chances: Sequence[float]
) -> int:
    return cuts.by_null_rate(scores, nulls, rate)


def _returned(one: Replay, rule: Returned, most: int = 20) -> tuple[float, float]:
    sizes, recalls = [], []
    for case, query in zip(one.cases, one.asked, strict=True):
        order = case.full[:most]
        scores = case.final[order].tolist()
        chances = apply(one.done.probability, case.final[order].astype(np.float32)).tolist()
        count = rule(scores, chances)
        relevant = [query.relevances.get(query.docids[i], 0) > 0 for i in order]
        sizes.append(count)
        recalls.append(sum(relevant[:count]) / sum(relevant) if any(relevant) else float("nan"))
    return float(np.mean(sizes)), float(np.nanmean(recalls))


def _cell(row: Kept) -> tuple[str, int, float]:
    # Other depths have their own candidates, and a curve is of one set.
    return (row.way if row.k == 100 else "", row.callers, row.budget_ms)  # noqa: PLR2004


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, path: Path, title: str, *, label: str = "nDCG@10") -> None:
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
