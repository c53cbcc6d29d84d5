"""Draw what exits gain. Needs matplotlib, from the "eval" extra."""

from pathlib import Path

from .gain import Gain


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
