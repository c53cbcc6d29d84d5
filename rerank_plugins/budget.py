"""What a request can afford: a cost model per stage, and plans that trade work for quality."""

import itertools
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PROFILES: Mapping[str, float] = {
    "search-as-you-type": 0.1,
    "interactive-chat": 0.3,
    "agent-step": 1.0,
    "report": 5.0,
}
"""Named budgets, in seconds."""

FINISH_S = 0.002
"""What merging, fusing and handing over take at most (measured: 0.6 ms for 200 candidates)."""

BATCH_S = 0.008
"""What a batch under a deadline takes at most, unless one pair alone takes longer.

Little is forgone when the next one would not end in time, and one that takes twice as long as
predicted is late by no more than that.
"""

_SMOOTHING = 0.1
_RECENT = 200
_MIN_RECENT = 20
_RECOUNT = 16
# More than that is a stall during calibration, not what a batch costs.
_MAX_OVERHEAD_TOKENS = 64.0
_DEPTHS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 150, 200, 400, 1000)
# How well the first stage orders on its own, against 1 for the last stage: a guess that
# calibration replaces. Only the trade between depth and stages depends on it.
_PRIOR_FIDELITY = 0.5


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds a batch takes: fixed + per_token t + per_square t L, of t = pairs x L tokens.

    The last term is attention; L is the padded length.
    """

    fixed_s: float
    per_token_s: float
    per_square_s: float

    def seconds(self, pairs: int, length_tokens: int) -> float:
        """Predict a batch's wall-clock time on one worker."""
        tokens = pairs * length_tokens
        return self.fixed_s + tokens * (self.per_token_s + length_tokens * self.per_square_s)


def fit(sizes: Sequence[tuple[int, int]], seconds: Sequence[float]) -> CostModel:
    """Fit a cost model to batches (pairs, length) and their times: non-negative least squares.

    Errors are relative, so that short batches count as much as long ones.

    >>> sizes = [(1, 16), (4, 16), (1, 128), (4, 128), (2, 64)]
    >>> model = fit(sizes, [1e-3 + 1e-5 * n * length for n, length in sizes])
    >>> round(model.seconds(3, 100), 6)
    0.004
    """
    times = np.asarray(seconds, dtype=np.float64)
    rows = np.array([(1.0, n * length, n * length * length) for n, length in sizes])
    rows /= times[:, None]
    # Columns of one size: squares of token counts are a million times the constant.
    scale = np.linalg.norm(rows, axis=0)
    best, least = np.zeros(3), math.inf
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(range(3), count) for count in (1, 2, 3)
    ):
        columns = list(chosen)
        part, *_ = np.linalg.lstsq(
            rows[:, columns] / scale[columns], np.ones(len(times)), rcond=None
        )
        error = float(((rows[:, columns] / scale[columns] @ part - 1.0) ** 2).sum())
        if (part >= 0.0).all() and error < least - 1e-12:
            best, least = np.zeros(3), error
            best[columns] = part / scale[columns]
    return CostModel(*best.tolist())


class Meter:
    """A stage's cost model, kept true by what is seen. Thread-safe.

    Predictions are the fitted model times an online ratio per length bucket (powers of two).
    """

    def __init__(self) -> None:
        self._model: CostModel | None = None
        self._ratios: dict[int, float] = {}
        self._ratio = 1.0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._inflation = 1.0
        self._seen = 0
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Tell whether anything is known yet; predictions are 0 before."""
        return self._model is not None

    @property
    def inflation(self) -> float:
        """Give p95 / p50 of actual over predicted, of the last batches."""
        return self._inflation

    def calibrate(self, sizes: Sequence[tuple[int, int]], seconds: Sequence[float]) -> None:
        """Fit the model to timed batches (pairs, length) and start anew."""
        with self._lock:
            self._model = fit(sizes, seconds)
            self._ratios.clear()
            self._ratio = 1.0

    def seconds(self, pairs: int, length_tokens: int, *, sure: bool = False) -> float:
        """Predict a batch's time; `sure` gives what 95 of 100 such batches stay below."""
        if self._model is None or pairs == 0:
            return 0.0
        ratio = self._ratios.get(length_tokens.bit_length(), self._ratio)
        predicted = ratio * self._model.seconds(pairs, length_tokens)
        return predicted * self._inflation if sure else predicted

    def observe(self, pairs: int, length_tokens: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        with self._lock:
            if self._model is None:
                self._model = CostModel(0.0, seconds / (pairs * length_tokens), 0.0)
                return
            bucket = length_tokens.bit_length()
            model_s = self._model.seconds(pairs, length_tokens)
            if model_s <= 0.0 or seconds <= 0.0:
                return
            known = self._ratios.get(bucket, self._ratio)
            seen = seconds / model_s
            self._recent.append(seen / known)
            # A stall (a busy neighbour) is for the inflation to cover, not for the level.
            level = min(seen, 2.0 * known)
            self._ratios[bucket] = known + _SMOOTHING * (level - known)
            self._ratio += _SMOOTHING * (level - self._ratio)
            self._seen += 1
            if self._seen % _RECOUNT == 0 and len(self._recent) >= _MIN_RECENT:
                middle, high = np.quantile(np.array(self._recent), (0.5, 0.95))
                self._inflation = float(np.clip(high / middle, 1.0, 3.0))

    def doubt(self, pairs: int, length_tokens: int, left_s: float) -> None:
        """Lean towards the fitted model where by that alone a refused batch would have fitted.

        After a stall everything may look too expensive for a budget, and what is never tried is
        never learnt anew.
        """
        with self._lock:
            if self._model is None or self._model.seconds(pairs, length_tokens) > left_s:
                return
            bucket = length_tokens.bit_length()
            known = self._ratios.get(bucket, self._ratio)
            self._ratios[bucket] = known + _SMOOTHING * (1.0 - known)
            self._inflation += _SMOOTHING * (1.0 - self._inflation)

    @property
    def overhead_tokens(self) -> float:
        """Say what a batch costs besides its tokens, in tokens; 0 while nothing is known."""
        model = self._model
        if model is None or model.per_token_s <= 0.0:
            return 0.0
        return min(_MAX_OVERHEAD_TOKENS, max(0.0, model.fixed_s / model.per_token_s))

    def affordable_tokens(self, seconds: float, length_tokens: int) -> int:
        """Say how many tokens a batch of that length may hold to end within `seconds`.

        At least one pair's worth: smaller there is none.
        """
        one, two = (self.seconds(n, length_tokens, sure=True) for n in (1, 2))
        if two <= one or seconds <= one:
            return length_tokens
        return length_tokens * (1 + int((seconds - one) / (two - one)))


@dataclass(frozen=True, slots=True)
class Plan:
    """How many candidates each stage may score at most; `quality` orders plans, higher first.

    Pairs are cut to about `short_tokens` (None: not beyond what is configured).
    """

    counts: tuple[int, ...]
    quality: float
    short_tokens: int | None = None


def plans(costs: Sequence[float], *, limit: int = 30) -> tuple[Plan, ...]:
    """Lay out the plans that are worth having, best first, from each stage's cost per pair.

    Quality is a guess until calibration measures it: what rank i of a stage's order is worth falls
    like 1 / i, and a stage's fidelity grows with the root of the work up to it. Only plans on the
    Pareto front of work and quality are kept, at most `limit` of them, evenly over the work.

    >>> best = plans([1.0, 2.0])[0]
    >>> best.counts
    (1000, 1000)
    """
    done = np.cumsum(costs)
    fidelity = [_PRIOR_FIDELITY]
    fidelity += [
        _PRIOR_FIDELITY + (1.0 - _PRIOR_FIDELITY) * math.sqrt(at / done[-1]) for at in done
    ]
    gains = [fidelity[i + 1] - fidelity[i] for i in range(len(costs))]
    found: list[tuple[float, Plan]] = []
    for counts in itertools.combinations_with_replacement((0, *_DEPTHS), len(costs)):
        falling = counts[::-1]
        if falling[0] == 0:
            continue
        quality = sum(g * math.log1p(n) for g, n in zip(gains, falling, strict=True))
        work = sum(c * n for c, n in zip(costs, falling, strict=True))
        found.append((work, Plan(falling, quality)))
    return _front(found, limit)


def measured(
    results: Mapping[int | None, Mapping[tuple[int, ...], float]],
    costs: Mapping[int | None, Sequence[float]],
    *,
    limit: int = 30,
) -> tuple[Plan, ...]:
    """Lay out plans whose quality was measured: `results` maps counts to a mean quality.

    Both are given for each length that pairs are cut to, None: not cut.
    """
    return _front(
        [
            (
                sum(c * n for c, n in zip(costs[short], counts, strict=True)),
                Plan(counts, quality, short),
            )
            for short, found in results.items()
            for counts, quality in found.items()
        ],
        limit,
    )


def seconds(
    plan: Plan, prices: Sequence[float], candidates: int, caps: Sequence[int | None] = ()
) -> float:
    """Predict a plan's work in worker seconds: each stage's price per pair times its pairs.

    `caps` bounds what each stage gets by the keep rule before it.
    """
    total, alive = 0.0, candidates
    for place, (price, count) in enumerate(zip(prices, plan.counts, strict=True)):
        cap = caps[place] if place < len(caps) else None
        alive = min(alive, count) if cap is None else min(alive, count, cap)
        total += price * alive
    return total


def wall_s(price_s: float, pairs: int, workers: float, *, batch_s: float = BATCH_S) -> float:
    """Predict how long a stage takes; batches are whole, so some of the workers idle at its end.

    >>> wall_s(0.008, 3, 2)  # two rounds: the last pair has one worker to itself
    0.016
    """
    if not pairs or not price_s:
        return 0.0
    together = min(pairs, max(1, int(batch_s / price_s)))
    batches = math.ceil(pairs / together)
    if batches <= 2 * workers:
        return math.ceil(batches / workers) * together * price_s
    return price_s * (pairs / workers + together * (workers - 1.0) / (2.0 * workers))


def afford(
    front: Sequence[Plan],
    prices: Mapping[int | None, Sequence[float]],
    candidates: int,
    worker_s: float,
    caps: Sequence[int | None] = (),
) -> tuple[Plan, float] | None:
    """Choose the best plan whose predicted work fits `worker_s`; also give the prediction.

    `prices` are per pair and stage, for each length that pairs are cut to. None where not even the
    smallest plan fits.
    """
    for plan in front:
        predicted = seconds(plan, prices[plan.short_tokens], candidates, caps)
        if predicted <= worker_s:
            return plan, predicted
    return None


def _front(found: list[tuple[float, Plan]], limit: int) -> tuple[Plan, ...]:
    """Keep the plans that no cheaper one equals, best first, thinned evenly over log work."""
    kept: list[tuple[float, Plan]] = []
    for work, plan in sorted(found, key=lambda one: (one[0], -one[1].quality)):
        if not kept or plan.quality > kept[-1][1].quality:
            kept.append((work, plan))
    if len(kept) > limit:
        logs = np.log([work for work, _ in kept])
        marks = np.linspace(logs[0], logs[-1], limit)
        kept = [kept[i] for i in sorted({int(np.abs(logs - mark).argmin()) for mark in marks})]
    return tuple(plan for _, plan in reversed(kept))
