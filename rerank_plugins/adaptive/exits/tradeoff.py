"""The gain of exits: speed against loss at every margin, and its plot beside simple baselines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...scoring.exits.calibration_file import Limits
from .calibrate import Calibrated, CalibrationOptions, Case, loss_of, replay, replayed_loss, work

_DEPTHS = (10, 15, 20, 30, 40, 50, 60, 75)


@dataclass(frozen=True, slots=True)
class Point:
    """A way to do less: its speedup in work, and its mean loss on held-out queries."""

    kind: str
    label: str
    speedup: float
    loss: float


@dataclass(frozen=True, slots=True)
class Gain:
    """The curve of the exits, the certified point (None: no level was), and the baselines."""

    curve: tuple[Point, ...]
    chosen: Point | None
    baselines: tuple[Point, ...]


def gain(
    done: Calibrated, costs: Sequence[float], how: CalibrationOptions, *, limits: Limits | None
) -> Gain:
    """Return the gain on the held-out cases; `costs` are each segment's per pair, in any unit."""
    curve = tuple(
        _point(
            "exits", f"{level:.2f}", done.cases, costs, how, done.exits.scale.at(level, how.top_k)
        )
        for level in done.exits.levels[::3]
    )
    chosen = None
    if limits is not None:
        chosen = _point("certified", "certified", done.cases, costs, how, limits)
    longest = max(len(case.final) for case in done.cases)
    whole = [replace(case, levels=[]) for case in done.cases]
    baselines = [
        _point("fixed depth", str(depth), whole, [1.0], how, Limits((), depth))
        for depth in _DEPTHS
        if depth < longest
    ]
    for place, fitted in enumerate(done.fitted):
        label, spent = f"layer {fitted.head.layer}", sum(costs[: place + 1]) / sum(costs)
        smaller = [replace(case, levels=[], final=case.levels[place]) for case in done.cases]
        loss = float(np.mean([replayed_loss(case, None, how) for case in smaller]))
        baselines.append(Point("fixed layer", label, 1.0 / spent, loss))
    return Gain(curve, chosen, tuple(baselines))


def _point(  # noqa: PLR0917 - a point's name and its ingredients
    kind: str,
    label: str,
    cases: Sequence[Case],
    costs: Sequence[float],
    how: CalibrationOptions,
    limits: Limits,
) -> Point:
    outcomes = [replay(case, limits, how) for case in cases]
    spent = float(np.mean([work(outcome, costs) for outcome in outcomes]))
    losses = [loss_of(case, done.order, how) for case, done in zip(cases, outcomes, strict=True)]
    return Point(kind, label, 1.0 / spent, float(np.mean(losses)))


def draw(gain: Gain, path: Path, *, loss: str, alpha: float, title: str) -> None:
    """Draw speedup against loss, with the baselines and the certified point, as SVG or PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = {"fixed depth": ("s", "tab:gray"), "fixed layer": ("^", "tab:orange")}
    for kind, (marker, colour) in styles.items():
        points = [point for point in gain.baselines if point.kind == kind]
        axes.plot(
            [point.speedup for point in points],
            [point.loss for point in points],
            marker=marker,
            linestyle=":" if kind == "fixed depth" else "",
            color=colour,
            label=kind,
        )
        for point in points:
            axes.annotate(
                point.label, (point.speedup, point.loss), textcoords="offset points", xytext=(4, 4),
                fontsize=7, color=colour,
            )  # fmt: skip
    axes.plot(
        [point.speedup for point in gain.curve],
        [point.loss for point in gain.curve],
        color="tab:blue",
        label="exits, every margin",
    )
    if gain.chosen is not None:
        axes.plot(
            [gain.chosen.speedup], [gain.chosen.loss], "o", markersize=9, color="tab:blue",
            label=f"certified for {alpha:g}: {gain.chosen.speedup:.2f}x",
        )  # fmt: skip
    axes.axhline(alpha, color="tab:red", linewidth=0.8, label=f"alpha = {alpha:g}")
    axes.set_xlim(left=1.0)
    axes.set_ylim(0.0, max(4.0 * alpha, 1.3 * max((p.loss for p in gain.curve), default=alpha)))
    axes.set_xlabel("speedup: work of the whole model on all candidates / work done")
    axes.set_ylabel(f"{loss} on held-out queries")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path)
