"""The planner: how much of a cascade fits into a request's budget, priced for its passages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..records import Code, Decision
from ..rules import plans
from ..rules.deadline import PLANNED_SHARE
from ..rules.keep import Keep, MarginKeep, ShareKeep
from ..rules.plans import Plan
from ..scoring import Priced, Reads, Scorer, Shortens
from ..scoring.runtime.fair_share import Share

# How often a plan is made smaller because its last batches do not fill all workers.
_TRIES = 3
_SMOOTHING = 0.1
# Bounds on the error that a single request can show, and on the correction of a whole group.
_REQUEST_ERROR, _GROUP_ERROR = (0.5, 2.0), (0.8, 1.6)
PredictionGroup: TypeAlias = tuple[bool, int]
"""Predictions with an error in common: whether other requests run, and log2 of the seconds."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """How much of the cascade a request may use.

    counts: candidates that each stage scores at most; None: all that reach it
    predicted_s: wall-clock seconds the stages should take; None: nothing was planned
    worker_s: worker seconds they should take; None likewise
    short_tokens: pairs are cut to about this length; None: as configured
    group: the predictions that share an error with this one
    """

    counts: tuple[int | None, ...]
    predicted_s: float | None = None
    worker_s: float | None = None
    decisions: tuple[Decision, ...] = ()
    short_tokens: int | None = None
    group: PredictionGroup = (False, 0)


class Planner:
    """Plans the requests of one cascade. Thread-safe.

    `qualities` are measured qualities of plans, `shorter` those with pairs cut to so many tokens.
    Without the first, qualities are estimated; without the second, pairs are not cut.
    """

    def __init__(
        self,
        qualities: Mapping[tuple[int, ...], float] | None = None,
        shorter: Mapping[int, Mapping[tuple[int, ...], float]] | None = None,
    ) -> None:
        self._measured: dict[int | None, Mapping[tuple[int, ...], float]] = {}
        if qualities:
            self._measured[None] = qualities
            for short_tokens, found in (shorter or {}).items():
                self._measured[short_tokens] = found
        self._fronts: dict[tuple[int, ...], Sequence[Plan]] = {}
        self._errors: dict[PredictionGroup, tuple[int, float]] = {}

    def learn(self, plan: RequestPlan, actual_s: float) -> None:
        """Correct later predictions by the time that a request took which ran as planned.

        Prices are learned batch by batch; this covers the rest: other requests in the queue, stages
        that wait for their last batch.
        """
        if plan.predicted_s:
            seen, error = self._errors.get(plan.group, (0, 1.0))
            weight = max(_SMOOTHING, 1.0 / (seen + 2.0))
            ratio = _clamped(actual_s / plan.predicted_s, _REQUEST_ERROR)
            moved = error * (1.0 + weight * (ratio - 1.0))
            self._errors[plan.group] = seen + 1, _clamped(moved, _GROUP_ERROR)

    def plan(
        self,
        stages: Sequence[tuple[Scorer, Keep | None]],
        chars: Sequence[int],
        *,
        left_s: float | None,
        share: Share | None = None,
    ) -> RequestPlan:
        """Return how much each stage may do within `left_s` for passages of `chars` characters.

        `share` is what the request may use of the workers; None: one worker, for itself.
        """
        prices = _prices(stages, chars)
        if left_s is None or not chars or not any(prices):
            return RequestPlan((None,) * len(stages))
        share = share or Share(left_s)
        caps = _caps([keep for _, keep in stages], len(chars))
        worker_s = PLANNED_SHARE * min(share.worker_s, share.workers * left_s)
        by_length: dict[int | None, list[float]] = {None: prices}
        for short in [length for length in self._measured if length is not None]:
            by_length[short] = _prices(stages, chars, short)
        everything = Plan((len(chars),) * len(stages), math.inf)
        front = (everything, *self._front(by_length))
        plan, needed_s = plans.afford(front, by_length, len(chars), worker_s, caps) or (
            Plan((1, *[0] * (len(stages) - 1)), 0.0),
            0.0,
        )
        if plan is everything:
            counts = _filled(everything, prices, len(chars), caps, worker_s)[0]
            wall_s, group = self._wall_s(stages, prices, counts, chars, share, left_s)
            return RequestPlan((None,) * len(stages), wall_s, needed_s, group=group)
        prices = by_length[plan.short_tokens]
        for _ in range(_TRIES):
            counts, needed_s = _filled(plan, prices, len(chars), caps, worker_s)
            # The first candidates may be longer or shorter than the mean of all.
            read = chars[: counts[0]]
            prices = _prices(stages, read, plan.short_tokens)
            wall_s, group = self._wall_s(stages, prices, counts, read, share, left_s)
            if wall_s <= PLANNED_SHARE * left_s:
                break
            worker_s *= PLANNED_SHARE * left_s / wall_s
        decision = _decision(counts, len(chars), plan.short_tokens, wall_s, left_s)
        # Work that would not end in time is not started.
        wall_s = min(wall_s, left_s)
        return RequestPlan(counts, wall_s, needed_s, (decision,), plan.short_tokens, group)

    def _wall_s(  # noqa: PLR0917 - a plan, and what it shares the workers with
        self,
        stages: Sequence[tuple[Scorer, Keep | None]],
        prices: Sequence[float],
        counts: Sequence[int],
        chars: Sequence[int],
        share: Share,
        left_s: float,
    ) -> tuple[float, PredictionGroup]:
        """Return wall-clock seconds: waiting, reading by one worker, computing by all of them."""
        total_s = share.wait_s
        for (scorer, _), price, count in zip(stages, prices, counts, strict=True):
            read_s = _read_s(scorer, chars, price)
            total_s += read_s * count + plans.wall_s(price - read_s, count, share.workers)
        busy = share.worker_s < 0.99 * share.workers * left_s
        group = busy, round(math.log2(total_s)) if total_s > 0.0 else 0
        return total_s * self._errors.get(group, (0, 1.0))[1], group

    def _front(self, prices: Mapping[int | None, Sequence[float]]) -> Sequence[Plan]:
        """Return the plans worth having, for pairs of each length.

        They are made once for each quarter that cutting pairs saves: short passages lose nothing by
        it, and save nothing.
        """
        whole = sum(prices[None])
        key = tuple(round(4 * sum(of_length) / whole) for of_length in prices.values())
        if key not in self._fronts:
            costs = {
                short: [price or 1e-9 for price in of_length] for short, of_length in prices.items()
            }
            measured = {
                short: {c: q for c, q in found.items() if len(c) == len(costs[None])}
                for short, found in self._measured.items()
            }
            self._fronts[key] = (
                plans.measured(measured, costs)
                if any(measured.values())
                else plans.plans(costs[None])
            )
        return self._fronts[key]


def _clamped(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _decision(
    counts: Sequence[int], candidates: int, short_tokens: int | None, wall_s: float, left_s: float
) -> Decision:
    cut = "" if short_tokens is None else f", pairs cut to {short_tokens} tokens"
    detail = (
        f"{' > '.join(map(str, counts))} of {candidates}{cut}; "
        f"predicted {1e3 * wall_s:.0f} of {1e3 * left_s:.0f} ms"
    )
    return Decision("budget", Code.PLAN, max(0, candidates - counts[0]), detail)


def _prices(
    stages: Sequence[tuple[Scorer, Keep | None]], chars: Sequence[int], short: int | None = None
) -> list[float]:
    """Return each stage's seconds per pair, for passages of `chars` characters, cut to `short`."""
    return [_price_s(scorer, chars, short) for scorer, _ in stages]


def _price_s(scorer: Scorer, chars: Sequence[int], short: int | None) -> float:
    """Return a scorer's seconds per pair, 0.0 where it knows none."""
    try:
        if short is not None and isinstance(scorer, Shortens):
            scorer = scorer.shortened(short)
        price = float(scorer.price_s(chars)) if isinstance(scorer, Priced) else 0.0
    except Exception:  # noqa: BLE001 - a scorer may raise anything, and will when it scores
        return 0.0
    return price if math.isfinite(price) and price > 0.0 else 0.0


def _read_s(scorer: Scorer, chars: Sequence[int], price: float) -> float:
    """Return what reading takes of a scorer's price."""
    try:
        read_s = float(scorer.read_s(chars)) if isinstance(scorer, Reads) else 0.0
    except Exception:  # noqa: BLE001
        return 0.0
    return min(price, read_s) if read_s > 0.0 else 0.0


def _filled(
    plan: Plan,
    prices: Sequence[float],
    candidates: int,
    caps: Sequence[int | None],
    worker_s: float,
) -> tuple[tuple[int, ...], float]:
    """Return counts that use up `worker_s`, and their seconds; deeper stages get more first."""
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
    """Return how many candidates reach each stage at most by the keep rules; None: not known."""
    caps: list[int | None] = [None]
    for keep in keeps[:-1]:
        if isinstance(keep, int):
            caps.append(keep)
        elif isinstance(keep, ShareKeep):
            kept = max(keep.min, math.ceil(keep.share * candidates))
            caps.append(min(keep.max or candidates, kept))
        else:
            caps.append(None if keep is None or isinstance(keep, MarginKeep) else keep.max)
    return caps
