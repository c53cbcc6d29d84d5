"""What a batch costs: a model fitted to timed batches, kept true by what is seen."""

import itertools
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SMOOTHING = 0.1
_RECENT = 200
_MIN_RECENT = 20
_RECOUNT = 16
# More than that is a stall during calibration, not what a batch costs.
_MAX_OVERHEAD_TOKENS = 64.0


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds a batch takes: fixed + per_token t + per_square t L, of t = pairs x L tokens.

    The last term is attention; L is the padded length.
    """

    fixed_s: float
    per_token_s: float
    per_square_s: float

    def seconds(self, pairs: int, length_tokens: int) -> float:
        """Return the predicted wall-clock seconds of a batch on one worker."""
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
        """True if anything is known yet; predictions are 0 before."""
        return self._model is not None

    @property
    def inflation(self) -> float:
        """p95 / p50 of actual over predicted seconds, of the last batches."""
        return self._inflation

    def calibrate(self, sizes: Sequence[tuple[int, int]], seconds: Sequence[float]) -> None:
        """Fit the model to timed batches (pairs, length) and start anew."""
        with self._lock:
            self._model = fit(sizes, seconds)
            self._ratios.clear()
            self._ratio = 1.0

    def seconds(self, pairs: int, length_tokens: int, *, sure: bool = False) -> float:
        """Return the predicted seconds of a batch; `sure`: 95 of 100 such batches take less."""
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
        """What a batch costs besides its tokens, in tokens; 0 while nothing is known."""
        model = self._model
        if model is None or model.per_token_s <= 0.0:
            return 0.0
        return min(_MAX_OVERHEAD_TOKENS, max(0.0, model.fixed_s / model.per_token_s))

    def affordable_tokens(self, seconds: float, length_tokens: int) -> int:
        """Return how many tokens a batch of that length may hold to end within `seconds`.

        At least one pair's worth: smaller there is none.
        """
        one, two = (self.seconds(n, length_tokens, sure=True) for n in (1, 2))
        if two <= one or seconds <= one:
            return length_tokens
        return length_tokens * (1 + int((seconds - one) / (two - one)))
