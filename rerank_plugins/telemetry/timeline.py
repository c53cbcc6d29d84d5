"""From a result's timings to steps on a time line: what spans and waterfalls are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Timing

CALL = "remote_call"
# Other steps of this prefix are what the far side says about itself.
_FAR = "remote"


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the time line: seconds since the request was submitted, and how long it took.

    `place` counts the stages from 0; it is None for steps of the request itself.
    """

    name: str
    start_s: float
    seconds: float
    stage: str | None = None
    place: int | None = None

    @property
    def end_s(self) -> float:
        """Seconds from submission to the step's end."""
        return self.start_s + self.seconds


def layout(timings: Sequence[Timing]) -> tuple[Step, ...]:
    """Lay timings out in the order they happened, "total" left out and "stage" before its steps.

    Steps follow one another; fusing ends with the request.

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
        elif timing.stage is not None and is_far(timing.step):
            # Told by the other side of the call, by its own clock: it lies somewhere inside.
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


def is_far(step: str) -> bool:
    """Tell whether a step was timed by the other side of a remote call.

    >>> is_far("remote_inference"), is_far("remote_call"), is_far("score")
    (True, False, False)
    """
    return step.startswith(_FAR) and step != CALL


def total_s(timings: Sequence[Timing]) -> float:
    """Give the seconds from submission to result, 0 where nothing was timed."""
    return next((one.seconds for one in timings if one.step == "total"), 0.0)
