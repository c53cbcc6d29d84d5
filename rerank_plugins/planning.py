"""Choose a plan for a request: what its budget affords, priced for its own passages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import budget
from .budget import Plan
from .keep import Keep, MarginKeep, ShareKeep
from .records import Code, Decision
from .scorers import Priced, Scorer
from .scorers.claims import Share

# The share of the time that is planned for; the rest absorbs what predictions miss.
_PLANNED = 0.9
# How often a plan is made smaller because whole batches do not fill the time.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """How many candidates each stage may score (None: as many as come), and what it should take.

    `predicted_s` is in wall-clock seconds, `worker_s` in worker seconds; None where nothing was
    planned.
    """

    counts: tuple[int | None, ...]
    predicted_s: float | None = None
    worker_s: float | None = None
    decisions: tuple[Decision, ...] = ()


class Planner:
    """Plans requests for one cascade. Thread-safe.

    `qualities` is what calibration measured for plans; without it they are guessed. Either way the
    front of those worth having is laid out when the first prices are known.
    """

    def __init__(self, qualities: Mapping[tuple[int, ...], float] | None = None) -> None:
        self._qualities = dict(qualities or {})
        self._front: Sequence[Plan] = ()

    def plan(
        self,
        stages: Sequence[tuple[Scorer, Keep | None]],
        chars: Sequence[int],
        *,
        left_s: float | None,
        share: Share | None = None,
    ) -> Effort:
        """Choose how much each stage may do for passages of so many characters within `left_s`.

        `share` is what it may count on of the workers; None: one of them, alone.
        """
        prices = _prices(stages, chars)
        if left_s is None or not chars or not any(prices):
            return Effort((None,) * len(stages))
        share = share or Share(left_s)
        caps = _caps([keep for _, keep in stages], len(chars))
        worker_s = min(share.worker_s, share.workers * left_s) * _PLANNED
        everything = Plan((len(chars),) * len(stages), math.inf)
        front = (everything, *self._plans(prices))
        chosen = budget.afford(front, prices, len(chars), worker_s, caps)
        if chosen is not None and chosen[0] is everything:
            counts = _stretched(everything, prices, len(chars), caps, worker_s)[0]
            wall_s = share.wait_s + _wall_s(prices, counts, share)
            return Effort((None,) * len(stages), wall_s, chosen[1])
        plan = Plan((1, *[0] * (len(stages) - 1)), 0.0) if chosen is None else chosen[0]
        for _ in range(_TRIES):
            counts, needed_s = _stretched(plan, prices, len(chars), caps, worker_s)
            # The first candidates may be longer or shorter than all are on average.
            prices = _prices(stages, chars[: counts[0]])
            wall_s = share.wait_s + _wall_s(prices, counts, share)
            if wall_s <= _PLANNED * left_s:
                break
            worker_s *= _PLANNED * left_s / wall_s
        detail = (
            f"{' > '.join(map(str, counts))} of {len(chars)}; "
            f"predicted {1e3 * wall_s:.0f} of {1e3 * left_s:.0f} ms"
        )
        decision = Decision("budget", Code.PLAN, max(0, len(chars) - counts[0]), detail)
        return Effort(counts, wall_s, needed_s, (decision,))

    def _plans(self, prices: Sequence[float]) -> Sequence[Plan]:
        """Give the plans worth having, laid out when the first prices are known."""
        if not self._front:
            costs = [price or 1e-9 for price in prices]
            measured = {c: q for c, q in self._qualities.items() if len(c) == len(costs)}
            self._front = budget.measured(measured, costs) if measured else budget.plans(costs)
        return self._front


def _wall_s(prices: Sequence[float], counts: Sequence[int], share: Share) -> float:
    return sum(
        budget.wall_s(price, count, share.workers)
        for price, count in zip(prices, counts, strict=True)
    )


def _prices(stages: Sequence[tuple[Scorer, Keep | None]], chars: Sequence[int]) -> list[float]:
    """Ask each stage what a pair costs, for passages of so many characters."""
    return [one.price_s(chars) if isinstance(one, Priced) else 0.0 for one, _ in stages]


def _stretched(
    plan: Plan,
    prices: Sequence[float],
    candidates: int,
    caps: Sequence[int | None],
    worker_s: float,
) -> tuple[tuple[int, ...], float]:
    """Spend what is left of the time on the deepest stage of the plan that can take more."""
    counts: list[int] = []
    for count, cap in zip(plan.counts, caps, strict=True):
        most = min(counts[-1] if counts else candidates, candidates if cap is None else cap)
        counts.append(min(count, most))
    spent_s = sum(price * count for price, count in zip(prices, counts, strict=True))
    for place in reversed(range(len(counts))):
        cap = caps[place]
        most = min(counts[place - 1] if place else candidates, candidates if cap is None else cap)
        if prices[place] and (counts[place] or place == 0):
            more = min(most - counts[place], int((worker_s - spent_s) / prices[place]))
            counts[place] += max(0, more)
            spent_s += max(0, more) * prices[place]
    return tuple(counts), spent_s


def _caps(keeps: Sequence[Keep | None], candidates: int) -> list[int | None]:
    """Bound what each stage gets by the keep rule before it, where that is known beforehand."""
    caps: list[int | None] = [None]
    for keep in keeps[:-1]:
        if isinstance(keep, int):
            caps.append(keep)
        elif isinstance(keep, ShareKeep):
            caps.append(min(keep.max or candidates, math.ceil(keep.share * candidates)))
        else:
            caps.append(None if keep is None or isinstance(keep, MarginKeep) else keep.max)
    return caps
