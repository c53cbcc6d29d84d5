"""What requests under way still mean to compute, and what that leaves for one of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Claim:
    """One request's claim on the workers, from `arrival_s` to `deadline_s` (None: no hurry).

    Requests are served by `key_s`, lowest first; an infinite one takes spare time. `planned_s`
    worker seconds are what it means to compute, None while nobody knows; `spent_s` are done.
    """

    key_s: float
    arrival_s: float
    deadline_s: float | None = None
    planned_s: float | None = None
    spent_s: float = 0.0

    @property
    def spare(self) -> bool:
        """Tell whether it is only for workers that have nothing else to do."""
        return math.isinf(self.key_s)

    def plan(self, worker_s: float) -> None:
        """Note what it means to compute from now on."""
        self.planned_s = self.spent_s + worker_s

    @property
    def left_s(self) -> float:
        """Give the planned worker seconds that are still to come."""
        return max(0.0, (self.planned_s or 0.0) - self.spent_s)


@dataclass(frozen=True, slots=True)
class Share:
    """What a request may count on: `worker_s` on `workers` at once, `wait_s` from now on."""

    worker_s: float
    workers: float = 1.0
    wait_s: float = 0.0


def share(
    own: Claim, others: Sequence[Claim], *, workers: int, now_s: float, expected: float = 1.0
) -> Share:
    """Divide the workers' time up to the deadline of `own` among those that want some of it.

    Claims served first come off. Of what is left, whoever has not planned yet gets as much as
    `own`, also behind it: the time up to each later deadline has to serve all that end by then.
    Where fewer requests are under way than are `expected`, the missing ones are taken to come now
    with a budget of the same length. `own` must have a deadline.

    >>> share(Claim(2.0, 1.0, 2.0), [], workers=2, now_s=1.0)
    Share(worker_s=2.0, workers=2, wait_s=0.0)
    >>> share(Claim(2.0, 1.0, 2.0), [Claim(2.5, 1.0, 2.5)], workers=2, now_s=1.0).worker_s
    1.5
    """
    deadline_s = own.key_s if own.deadline_s is None else own.deadline_s
    first_s = sum(one.left_s for one in others if one.key_s <= own.key_s)
    rivals = [one.key_s for one in others if one.deadline_s is not None and one.planned_s is None]
    missing = max(0, round(expected) - 1 - len(others))
    ends = sorted([*rivals, *[now_s + deadline_s - own.arrival_s] * missing])
    before = sum(end <= deadline_s for end in ends)
    least_s = (workers * (deadline_s - now_s) - first_s) / (1 + before)
    for place, end_s in enumerate(ends[before:], start=before + 2):
        promised_s = sum(one.left_s for one in others if one.key_s <= end_s)
        least_s = min(least_s, (workers * (end_s - now_s) - promised_s) / place)
    return Share(max(0.0, least_s), workers, first_s / workers)
