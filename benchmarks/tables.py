"""The tables of the drift benchmark, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams import half
from thresholds import Outcome, Stream, Thresholds, Tried

CHOSEN = (
    "thresholds",
    "agreement",
    "separation",
    "length",
    "least",
    "canaries",
    "told on",
    "detected",
    "worst loss",
    "false alarms",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One stream: what is found, and what a guard serves by each choice of thresholds.

    `found_by` and `verdict`, the most frequent one, are those of the shipped thresholds.
    `agreement` and `separation` are the shares of the snapshot's means that are left, `length` the
    mean rank correlation of scores and lengths.
    `in_sample` is by the thresholds chosen on the stream's own half of the sets, `held_out` by
    those of the other.
    """

    stream: Stream
    half: str
    found_by: int | None
    verdict: str
    moved: tuple[str, ...]
    agreement: float
    separation: float
    length: float
    shipped: Outcome
    in_sample: Outcome
    held_out: Outcome


def markdown(found: Sequence[Row]) -> str:
    """Return the table of streams."""
    head = (
        "| stream | half | queries | found by window | verdict | what moved most | agreement left "
        "| separation left | length "
        "| canaries | first stage | model alone | reranker | guard acts: in sample | held out "
        "| guarded: in sample | held out | below the better: in sample | held out |"
    )
    lines = [head, "|---|---|--:|--:|---|---|" + "--:|" * 13]
    for row in found:
        one, own, other = row.stream, row.in_sample, row.held_out
        off = "" if one.canaries is None else f"{one.canaries:.2f}"
        lines.append(
            f"| {one.name} | {row.half} | {one.queries} | {row.found_by or 'not'} | {row.verdict} "
            f"| {', '.join(row.moved)} | {row.agreement:.2f} | {row.separation:.2f} "
            f"| {row.length:.2f} | {off} "
            f"| {one.first_stage:.3f} | {one.model:.3f} | {one.reranker:.3f} "
            f"| {own.acts:.0%} | {other.acts:.0%} | {own.guarded:.3f} "
            f"| {other.guarded:.3f} | {own.loss:.3f} | {other.loss:.3f} |"
        )
    return "\n".join(lines) + "\n"


def choosing(tried: Tried, choices: Mapping[str, Thresholds]) -> str:
    """Return the table of what is chosen on which sets, and what it is worth on which."""
    names = {
        "A": [name for name in tried.streams if half(name) == 0],
        "B": [name for name in tried.streams if half(name) == 1],
        "both": list(tried.streams),
    }
    lines = [
        f"| {' | '.join(CHOSEN)} |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for by, one in choices.items():
        for on, streams_ in names.items():
            worth = tried.merit(streams_, one)
            lines.append(
                f"| {by} | {one.agreement:.1f} | {one.separation:.2f} | {one.length:.1f} "
                f"| {one.least:.2f} | {one.tolerance:.1f} | {on} | {worth.detected:.1%} "
                f"| {worth.loss:.3f} | {worth.alarms:.1%} |"
            )
    return "\n".join(lines) + "\n"
