"""Steps on a time line, from a result's timings; spans and waterfalls are drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Timing

CALL = "remote_call"
# Other steps of this prefix were timed by the remote server.
_REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Step:
    """A step on the time line.

    start_s: seconds since the request was submitted
    stage: name of the stage's model; None for steps of the request itself
    place: the stage's position, from 0; None likewise
    """

    name: str
    start_s: float
    seconds: float
    stage: str | None = None
    place: int | None = None

    @property
    def end_s(self) -> float:
        """Return the seconds from submission to the step's end."""
        return self.start_s + self.seconds


def layout(timings: Sequence[Timing]) -> tuple[Step, ...]:
    """Return timings as steps in the order they happened, without "total".

    A "stage" comes before its steps. Steps follow each other; fusing ends with the request.

    >>> steps = layout([Timing("queue", 1.0), Timing("score", 2.0, "m"), Timing("stage", 3.0, "m")])
    >>> [(step.name, step.start_s, step.end_s) for step in steps]
    [('queue', 0.0, 1.0), ('stage', 1.0, 4.0), ('score', 1.0, 3.0)]
    """
    steps: list[Step] = []
    cursor = stage_start = 0.0
    place = first = 0
    total = total_s(timings)
    for timing in timings:
        if timing.step == "total":
            continue
        if timing.step == "stage":
            whole = Step("stage", stage_start, timing.seconds, timing.stage, place)
            steps.insert(first, whole)
            cursor, place = max(cursor, whole.end_s), place + 1
        elif timing.stage is not None and is_remote(timing.step):
            # Timed by the remote server's own clock: it lies somewhere inside the stage.
            steps.append(Step(timing.step, stage_start, timing.seconds, timing.stage, place))
            continue
        elif timing.stage is not None:
            steps.append(Step(timing.step, cursor, timing.seconds, timing.stage, place))
            cursor += timing.seconds
            continue
        else:
            start = max(cursor, total - timing.seconds) if timing.step == "fuse" else cursor
            steps.append(Step(timing.step, start, timing.seconds))
            cursor = start + timing.seconds
        stage_start, first = cursor, len(steps)
    return tuple(steps)


def is_remote(step: str) -> bool:
    """True if a step was timed by the server of a remote call.

    >>> is_remote("remote_inference"), is_remote("remote_call"), is_remote("score")
    (True, False, False)
    """
    return step.startswith(_REMOTE) and step != CALL


def total_s(timings: Sequence[Timing]) -> float:
    """Return the seconds from submission to result, 0 if nothing was timed."""
    return next((timing.seconds for timing in timings if timing.step == "total"), 0.0)
