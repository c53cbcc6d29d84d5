"""How the workers' time is divided among the requests under way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Claim:
    """What one request means to compute, and when.

    key_s: requests with a lower key are served first; infinite: only idle workers serve it.
    arrival_s, deadline_s: instants; no deadline (None) means that the request can wait.
    planned_s: worker seconds that it means to compute, None while that is not known.
    spent_s: worker seconds that it has computed.
    """

    key_s: float
    arrival_s: float
    deadline_s: float | None = None
    planned_s: float | None = None
    spent_s: float = 0.0

    @property
    def background(self) -> bool:
        """True if only workers that have nothing else to do serve this request."""
        return math.isinf(self.key_s)

    def plan(self, worker_s: float) -> None:
        """Note how many worker seconds the request means to compute from now on."""
        self.planned_s = self.spent_s + worker_s

    @property
    def left_s(self) -> float:
        """Return the planned worker seconds that are still to come."""
        return max(0.0, (self.planned_s or 0.0) - self.spent_s)


@dataclass(frozen=True, slots=True)
class Share:
    """What a request may count on.

    worker_s: worker seconds, summed over all workers.
    workers: how many compute for it at once.
    wait_s: seconds from now until they begin.
    """

    worker_s: float
    workers: float = 1.0
    wait_s: float = 0.0


def share(
    own: Claim, others: Sequence[Claim], *, workers: int, now_s: float, usual_requests: float = 1.0
) -> Share:
    """Divide the workers' time up to the deadline of `own`, which must have one.

    Claims with lower keys are served first, and their time comes off. The rest is divided equally
    among all requests that have not planned yet. Later deadlines count too: the time up to each of
    them has to serve all requests that end by then. Where fewer requests are under way than
    `usual_requests`, the missing ones are assumed to arrive now, with as much time as `own` had.

    >>> share(Claim(2.0, 1.0, 2.0), [], workers=2, now_s=1.0)
    Share(worker_s=2.0, workers=2, wait_s=0.0)
    >>> share(Claim(2.0, 1.0, 2.0), [Claim(2.5, 1.0, 2.5)], workers=2, now_s=1.0).worker_s
    1.5
    """
    deadline_s = own.key_s if own.deadline_s is None else own.deadline_s
    first_s = sum(other.left_s for other in others if other.key_s <= own.key_s)
    rivals = [
        other.key_s for other in others if other.deadline_s is not None and other.planned_s is None
    ]
    missing = max(0, round(usual_requests) - 1 - len(others))
    ends = sorted([*rivals, *[now_s + deadline_s - own.arrival_s] * missing])
    before = sum(end <= deadline_s for end in ends)
    least_s = (workers * (deadline_s - now_s) - first_s) / (1 + before)
    for place, end_s in enumerate(ends[before:], start=before + 2):
        promised_s = sum(other.left_s for other in others if other.key_s <= end_s)
        least_s = min(least_s, (workers * (end_s - now_s) - promised_s) / place)
    return Share(max(0.0, least_s), workers, first_s / workers)
