"""The plot of the drift benchmark, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from thresholds import Stream, Thresholds

_COLOURS = {"A": "tab:blue", "B": "tab:orange"}


def drift_map(
    streams: Mapping[str, Sequence[Stream]],
    left: Mapping[str, float],
    choices: Mapping[str, Thresholds],
    path: Path,
) -> None:
    """Draw what reranking gains on each stream, by half, against what is `left` of its agreement.

    Chosen thresholds are lines: streams to their left are harmful. Crosses are damaged streams.
    """
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for half, several in streams.items():
        for one in several:
            if one.name.endswith("settings"):  # the same requests as without
                continue
            damaged = ", " in one.name
            gain = one.reranker - one.first_stage
            axes.plot(left[one.name], gain, "x" if damaged else "o", color=_COLOURS[half])
            axes.annotate(
                one.name,
                (left[one.name], gain),
                fontsize=6,
                xytext=(4, 2),
                textcoords="offset points",
            )
        axes.axvline(
            choices[half].agreement,
            color=_COLOURS[half],
            linestyle="--",
            linewidth=0.8,
            label=f"chosen on half {half}",
        )
    axes.axhline(0.0, color="black", linewidth=0.8, label="first stage")
    axes.set_xlabel(
        "what is left of the agreement with the first stage, as a share of the snapshot's mean"
    )
    axes.set_ylabel("nDCG@10 of the reranker minus the first stage's")
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
