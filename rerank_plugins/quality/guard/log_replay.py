"""The replay of a guard's log: its windows compared with a snapshot, and what the guard did."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ...errors import InvalidRequest
from ..drift.features import Observation
from ..drift.snapshot import Snapshot, snapshot
from ..drift.verdict import DriftReport, Verdict, judge
from .log import LogEntry
from .stance import GuardOptions


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """The report on a window; `start_s` and `end_s` are seconds since the epoch."""

    start_s: float
    end_s: float
    report: DriftReport


@dataclass(frozen=True, slots=True)
class LogReview:
    """What a log shows.

    reference: number of requests in the snapshot
    requests: number of requests after those it was learned from
    acted: number of the guard's own windows in which it changed how requests were served
    alarms: what else was harmful, canaries or feedback
    """

    reference: int
    requests: int
    windows: tuple[JudgedWindow, ...]
    acted: int
    alarms: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        """Return the number of windows with a verdict."""
        return sum(window.report.verdict == verdict for window in self.windows)


def replay_log(
    entries: Sequence[LogEntry],
    reference: Snapshot | None,
    how: GuardOptions,
    *,
    progress: Callable[[], None] = lambda: None,
) -> LogReview:
    """Return the verdict on each window of a log; `progress` is called after each request.

    Without a reference, the first `how.learn` requests become it. Raises `InvalidRequest` where
    the requests do not fill a window.
    """
    asked = [(entry.at_s, entry.observation) for entry in entries if entry.observation is not None]
    learning = how.learn if reference is None else 0
    if len(asked) < learning + how.window:
        message = (
            f"the log holds {len(asked)} requests; expected at least {learning + how.window}: "
            f"{f'{learning} to learn from and ' if learning else ''}a window of {how.window}. "
            "Give a snapshot or a smaller window, or wait for more"
        )
        raise InvalidRequest(message)
    reference = reference or snapshot([seen for _, seen in asked[:learning]], subject="", model="")
    windows = tuple(_judged(asked[learning:], reference, how, progress))
    alarms = [entry.kind for entry in entries if entry.harmful and entry.kind != "window"]
    return LogReview(
        reference.requests,
        len(asked) - learning,
        windows,
        sum(entry.acting for entry in entries),
        tuple(dict.fromkeys(alarms)),
    )


def _judged(
    asked: Sequence[tuple[float, Observation]],
    reference: Snapshot,
    how: GuardOptions,
    progress: Callable[[], None],
) -> Iterable[JudgedWindow]:
    window: list[tuple[float, Observation]] = []
    for request in asked:
        window.append(request)
        if len(window) >= how.window:
            report = judge(reference, [seen for _, seen in window], how.thresholds)
            yield JudgedWindow(window[0][0], window[-1][0], report)
            window = []
        progress()
