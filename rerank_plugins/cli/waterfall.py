"""A request on a time line in the terminal, where there is no trace viewer."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ..records import Decision, Result, StageRun, Usage
from ..telemetry import Step, layout

_WIDTH = 40
# Decisions of steps that take no time of their own, shown where they happen.
_WITH = {"fuse": ("fuse", "cut")}


def waterfall(result: Result) -> Table:
    """Draw when every step ran between submission and answer, and what it did."""
    steps = layout(result.timings)
    total_s = max([step.end_s for step in steps], default=0.0)
    table = Table(title=f"{escape(result.model)}: {total_s * 1e3:.1f} ms", title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for step in steps:
        table.add_row(
            escape(_name(step)),
            bar(step, total_s),
            f"{step.seconds * 1e3:.2f}",
            escape(_what(step, result)),
        )
    return table


def bar(step: Step, total_s: float, *, width: int = _WIDTH) -> str:
    """Draw when a step ran; even the shortest is visible.

    >>> bar(Step("score", 0.25, 0.5), 1.0, width=8)
    '  ████  '
    """
    total_s = total_s or 1.0
    start = min(round(width * (step.start_s / total_s)), width - 1)
    length = min(max(1, round(width * (step.seconds / total_s))), width - start)
    mark = "█" if step.name != "stage" else "░"
    return (" " * start + mark * length).ljust(width)


def _name(step: Step) -> str:
    if step.name == "stage":
        return f"{step.stage}"
    return f"  {step.name}" if step.stage is not None else step.name


def _what(step: Step, result: Result) -> str:
    if step.name == "stage" and step.place is not None and step.place < len(result.stages):
        return _stage(result.stages[step.place])
    if step.stage is None:
        return _decided(step.name, result.decisions)
    return ""


def _stage(run: StageRun) -> str:
    if run.error is not None:
        return f"failed on {run.candidates} candidates: {run.error}"
    return f"{run.scored} of {run.candidates} candidates scored; {_cost(run.usage)}"


def _cost(usage: Usage) -> str:
    parts = [f"{usage.pairs} pairs", f"{usage.tokens} tokens", f"{usage.batches} batches"]
    for count, what in (
        (usage.padding_tokens, "padding"),
        (usage.truncated_tokens, "truncated"),
        (usage.token_cache_hits, "passages cached"),
        (usage.score_cache_hits, "scores cached"),
        (usage.remote_calls, "remote calls"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return ", ".join(parts)


def _decided(step: str, decisions: Sequence[Decision]) -> str:
    return ", ".join(
        f"{decision.code.code} {decision.count}"
        for decision in decisions
        if decision.step in _WITH.get(step, (step,))
    )
