"""A log looked through afterwards: its windows against a snapshot, and what the guard did."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ...errors import InvalidRequest
from ..drift import Observation, Report, Snapshot, Verdict, Watch, Window, judge, snapshot
from .log import Entry


@dataclass(frozen=True, slots=True)
class Judged:
    """The report on the requests from `start_s` to `end_s`, seconds since the epoch."""

    start_s: float
    end_s: float
    report: Report


@dataclass(frozen=True, slots=True)
class Review:
    """What a log shows.

    `reference` counts the snapshot's requests and `requests` those that were judged or left over
    for no whole window. `acted` is in how many of its own windows the guard served requests
    otherwise; `alarms` name what else it found harmful, the canaries or feedback.
    """

    reference: int
    requests: int
    windows: tuple[Judged, ...]
    acted: int
    alarms: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        """Count the windows with a verdict."""
        return sum(one.report.verdict == verdict for one in self.windows)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a log is read: the first `learn` requests are the snapshot where none is given."""

    window: int = 100
    learn: int = 300
    watch: Watch = field(default_factory=Watch)


def review(
    entries: Sequence[Entry],
    reference: Snapshot | None,
    how: Reading,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Review:
    """Judge a log's requests window by window; call `progress` after each request.

    Raises `InvalidRequest` where they fill no window.
    """
    asked = [(one.at_s, one.observation) for one in entries if one.observation is not None]
    learning = how.learn if reference is None else 0
    if len(asked) < learning + how.window:
        message = (
            f"the log holds {len(asked)} requests; expected at least {learning + how.window}: "
            f"{f'{learning} to learn from and ' if learning else ''}a window of {how.window}. "
            "Give a snapshot or a smaller window, or wait for more"
        )
        raise InvalidRequest(message)
    reference = reference or snapshot([one for _, one in asked[:learning]], subject="", model="")
    windows = tuple(_judged(asked[learning:], reference, how, progress))
    alarms = [one.kind for one in entries if one.harmful and one.kind != "window"]
    return Review(
        reference.requests,
        len(asked) - learning,
        windows,
        sum(one.acting for one in entries),
        tuple(dict.fromkeys(alarms)),
    )


def _judged(
    asked: Sequence[tuple[float, Observation]],
    reference: Snapshot,
    how: Reading,
    progress: Callable[[], None],
) -> Iterable[Judged]:
    start_s, window = 0.0, Window(how.window)
    for at_s, one in asked:
        if not window.observations:
            start_s = at_s
        window.add(one)
        if window.full:
            yield Judged(start_s, at_s, judge(reference, window, how.watch))
            window = Window(how.window)
        progress()
