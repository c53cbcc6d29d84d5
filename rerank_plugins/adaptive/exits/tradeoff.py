"""What exits gain: speed against loss at every margin, beside fixed depths and fixed layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...scoring.exits.calibration_file import Limits
from .calibrate import Calibrated, Case, Plan, loss_of, replay, work
from .simulate import simulate

_DEPTHS = (10, 15, 20, 30, 40, 50, 60, 75)


@dataclass(frozen=True, slots=True)
class Point:
    """One way to do less: how many times less work it is, and what it loses on held-out queries."""

    kind: str
    label: str
    speedup: float
    loss: float


@dataclass(frozen=True, slots=True)
class Gain:
    """The curve of the exits, the point that was certified (None: no level was), the baselines."""

    curve: tuple[Point, ...]
    chosen: Point | None
    baselines: tuple[Point, ...]


def gain(done: Calibrated, costs: Sequence[float], how: Plan, *, limits: Limits | None) -> Gain:
    """Replay the held-out cases; `costs` is what each segment takes per pair, in any unit."""
    curve = [
        _point(
            "exits", f"{level:.2f}", done.cases, costs, how, done.exits.shape.at(level, how.top_k)
        )
        for level in done.exits.levels[::3]
    ]
    chosen = None
    if limits is not None:
        chosen = _point("certified", "certified", done.cases, costs, how, limits)
    baselines = [_fixed_depth(done.cases, depth, how) for depth in _DEPTHS]
    for place, one in enumerate(done.fitted):
        label = f"layer {one.head.layer}"
        baselines.append(_fixed_layer(done.cases, place, label, costs, how))
    return Gain(tuple(curve), chosen, tuple(one for one in baselines if one is not None))


def _point(  # noqa: PLR0917 - a point's name and its ingredients
    kind: str,
    label: str,
    cases: Sequence[Case],
    costs: Sequence[float],
    how: Plan,
    limits: Limits,
) -> Point:
    outcomes = [replay(case, limits, how) for case in cases]
    spent = float(np.mean([work(one, costs) for one in outcomes]))
    losses = [loss_of(case, one.order, how) for case, one in zip(cases, outcomes, strict=True)]
    return Point(kind, label, 1.0 / spent, float(np.mean(losses)))


def _fixed_depth(cases: Sequence[Case], depth: int, how: Plan) -> Point | None:
    """Score the first `depth` candidates in full, the usual way to do less."""
    if all(len(case.final) <= depth for case in cases):
        return None
    losses, shares = [], []
    for case in cases:
        shallow = simulate(
            [],
            case.final,
            counts=[depth],
            top_k=how.top_k,
            priors=case.priors,
            prior_weight=how.prior_weight,
        )
        losses.append(loss_of(case, shallow.order, how))
        shares.append(shallow.shares[0])
    return Point("fixed depth", str(depth), 1.0 / float(np.mean(shares)), float(np.mean(losses)))


def _fixed_layer(
    cases: Sequence[Case], place: int, label: str, costs: Sequence[float], how: Plan
) -> Point:
    """Let every candidate leave at one exit: a smaller model."""
    losses = []
    for case in cases:
        shallow = simulate(
            [],
            case.levels[place],
            top_k=how.top_k,
            priors=case.priors,
            prior_weight=how.prior_weight,
        )
        losses.append(loss_of(case, shallow.order, how))
    spent = sum(costs[: place + 1]) / sum(costs)
    return Point("fixed layer", label, 1.0 / spent, float(np.mean(losses)))


def draw(gain: Gain, path: Path, *, loss: str, alpha: float, title: str) -> None:
    """Draw speedup against loss, with the baselines and the certified point, as SVG or PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = {"fixed depth": ("s", "tab:gray"), "fixed layer": ("^", "tab:orange")}
    for kind, (marker, colour) in styles.items():
        points = [one for one in gain.baselines if one.kind == kind]
        axes.plot(
            [one.speedup for one in points],
            [one.loss for one in points],
            marker=marker,
            linestyle=":" if kind == "fixed depth" else "",
            color=colour,
            label=kind,
        )
        for one in points:
            axes.annotate(
                one.label, (one.speedup, one.loss), textcoords="offset points", xytext=(4, 4),
                fontsize=7, color=colour,
            )  # fmt: skip
    axes.plot(
        [one.speedup for one in gain.curve],
        [one.loss for one in gain.curve],
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
