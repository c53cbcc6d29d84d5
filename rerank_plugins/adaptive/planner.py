"""Choose a plan for a request: what its budget affords, priced for its own passages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..records import Code, Decision
from ..rules import plans
from ..rules.keep import Keep, MarginKeep, ShareKeep
from ..rules.plans import Plan
from ..scoring import Priced, Reads, Scorer, Shortens
from ..scoring.runtime.fair_share import Share

# The share of the time that is planned for; the rest absorbs what predictions miss.
_PLANNED = 0.9
# How often a plan is made smaller because whole batches do not fill the time.
_TRIES = 3
_SMOOTHING = 0.1
# One request is believed to be so much off at most, and all together so much.
_ODD, _OFF = (0.5, 2.0), (0.8, 1.6)
Kind: TypeAlias = tuple[bool, int]
"""Whether others are under way, and the size of a prediction: what is off alike."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many candidates each stage may score (None: as many as come), and what it should take.

    `predicted_s` is in wall-clock seconds, `worker_s` in worker seconds; None where nothing was
    planned. Pairs are cut to about `short_tokens` (None: not beyond what is configured). `kind`
    says which predictions it shares its error with.
    """

    counts: tuple[int | None, ...]
    predicted_s: float | None = None
    worker_s: float | None = None
    decisions: tuple[Decision, ...] = ()
    short_tokens: int | None = None
    kind: Kind = (False, 0)


class Planner:
    """Plans requests for one cascade. Thread-safe.

    `qualities` is what calibration measured for plans, `shorter` what it measured with pairs cut to
    so many tokens; without the former they are guessed, without the latter nothing is cut.
    """

    def __init__(
        self,
        qualities: Mapping[tuple[int, ...], float] | None = None,
        shorter: Mapping[int, Mapping[tuple[int, ...], float]] | None = None,
    ) -> None:
        self._measured: dict[int | None, Mapping[tuple[int, ...], float]] = {}
        if qualities:
            self._measured[None] = qualities
            for short, found in (shorter or {}).items():
                self._measured[short] = found
        self._fronts: dict[tuple[int, ...], Sequence[Plan]] = {}
        self._off: dict[Kind, tuple[int, float]] = {}

    def learn(self, effort: Effort, actual_s: float) -> None:
        """Correct later predictions by what a request took that ran as planned.

        Prices are learnt batch by batch; this is for what comes between: queues of others, stages
        that wait for their last batch.
        """
        if effort.predicted_s:
            seen, known = self._off.get(effort.kind, (0, 1.0))
            weight = max(_SMOOTHING, 1.0 / (seen + 2.0))
            ratio = min(max(actual_s / effort.predicted_s, _ODD[0]), _ODD[1])
            moved = known * (1.0 + weight * (ratio - 1.0))
            self._off[effort.kind] = seen + 1, min(max(moved, _OFF[0]), _OFF[1])

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
        lengths = [short for short in self._measured if short is not None]
        by_length: dict[int | None, list[float]] = {None: prices}
        by_length |= {short: _prices(stages, chars, short) for short in lengths}
        front = (everything, *self._plans(by_length))
        chosen = plans.afford(front, by_length, len(chars), worker_s, caps)
        if chosen is not None and chosen[0] is everything:
            counts = _stretched(everything, prices, len(chars), caps, worker_s)[0]
            wall_s, kind = self._wall_s(stages, prices, counts, chars, share, left_s)
            return Effort((None,) * len(stages), wall_s, chosen[1], kind=kind)
        plan = Plan((1, *[0] * (len(stages) - 1)), 0.0) if chosen is None else chosen[0]
        prices = by_length[plan.short_tokens]
        for _ in range(_TRIES):
            counts, needed_s = _stretched(plan, prices, len(chars), caps, worker_s)
            # The first candidates may be longer or shorter than all are on average.
            prices = _prices(stages, chars[: counts[0]], plan.short_tokens)
            read = chars[: counts[0]]
            wall_s, kind = self._wall_s(stages, prices, counts, read, share, left_s)
            if wall_s <= _PLANNED * left_s:
                break
            worker_s *= _PLANNED * left_s / wall_s
        cut = "" if plan.short_tokens is None else f", pairs cut to {plan.short_tokens} tokens"
        detail = (
            f"{' > '.join(map(str, counts))} of {len(chars)}{cut}; "
            f"predicted {1e3 * wall_s:.0f} of {1e3 * left_s:.0f} ms"
        )
        decision = Decision("budget", Code.PLAN, max(0, len(chars) - counts[0]), detail)
        # What would not end in time is not begun.
        wall_s = min(wall_s, left_s)
        return Effort(counts, wall_s, needed_s, (decision,), plan.short_tokens, kind)

    def _wall_s(  # noqa: PLR0917 - a plan, and what it runs beside
        self,
        stages: Sequence[tuple[Scorer, Keep | None]],
        prices: Sequence[float],
        counts: Sequence[int],
        chars: Sequence[int],
        share: Share,
        left_s: float,
    ) -> tuple[float, Kind]:
        """Predict when it is done: what goes first, reading on one worker, computing on all."""
        total_s = share.wait_s
        for (scorer, _), price, count in zip(stages, prices, counts, strict=True):
            read_s = min(price, scorer.read_s(chars)) if isinstance(scorer, Reads) else 0.0
            total_s += read_s * count + plans.wall_s(price - read_s, count, share.workers)
        busy = share.worker_s < 0.99 * share.workers * left_s
        kind = busy, round(math.log2(total_s)) if total_s > 0.0 else 0
        return total_s * self._off.get(kind, (0, 1.0))[1], kind

    def _plans(self, prices: Mapping[int | None, Sequence[float]]) -> Sequence[Plan]:
        """Give the plans worth having.

        They are laid out once for what cutting saves, in quarters: short passages lose nothing by
        it, and save nothing.
        """
        whole = sum(prices[None])
        key = tuple(round(4 * sum(one) / whole) for one in prices.values())
        if key not in self._fronts:
            costs = {short: [price or 1e-9 for price in one] for short, one in prices.items()}
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


def _prices(
    stages: Sequence[tuple[Scorer, Keep | None]], chars: Sequence[int], short: int | None = None
) -> list[float]:
    """Ask each stage what a pair costs, of passages with so many characters, cut to `short`."""
    scorers = [
        one if short is None or not isinstance(one, Shortens) else one.shortened(short)
        for one, _ in stages
    ]
    return [one.price_s(chars) if isinstance(one, Priced) else 0.0 for one in scorers]


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
