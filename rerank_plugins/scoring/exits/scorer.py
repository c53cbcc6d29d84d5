"""An exit as a scorer: it continues where the exit before it stopped, with who is left."""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...records import Code, Decision, Timing
from ...rules.batching import Batch
from .. import Scored, ScoreKind, State
from ..onnx.throughput import Pace
from ..runtime.jobs import Job, run_jobs
from ..text import pairs
from ..text.pairs import Pairs
from . import heads
from .segmented_model import Trunk
from .state import Hidden, gather

Floats: TypeAlias = NDArray[np.float32]
_BATCH_TOKENS = 512
# Pairs and tokens of a batch that stands for many, and how often it is timed.
_TYPICAL_BATCH, _TURNS = (5, 96), 9


@dataclass(frozen=True, slots=True)
class _Ran:
    """What a batch gave: a score per pair and, unless the model ended, the hidden states."""

    scores: Floats
    hidden: Floats | None


class ExitScorer:
    """Scores at exit `place` of a trunk; the place behind its last head is the whole model.

    Given the state of the exit before, only the layers in between run, on the survivors alone;
    without it the model runs from its beginning.
    """

    score_kind: ScoreKind = "logit"

    def __init__(
        self, trunk: Trunk, place: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trunk = trunk
        self.place = place
        self.files = trunk.files
        last = place == len(trunk.heads)
        self.name = trunk.files.name if last else f"{trunk.files.name}@{trunk.heads[place].layer}"
        self.pace = Pace(max_tokens=trunk.max_tokens, intra_threads=trunk.options.intra_threads)
        self.batch_tokens = trunk.options.max_batch_tokens or _BATCH_TOKENS
        self._clock = clock
        self._warm = False
        self._lock = threading.Lock()

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        started = self._clock()
        hits = 0
        known = state if isinstance(state, Hidden) and self._continues(state) else None
        if known is not None:
            laid = known.laid
        else:
            laid, hits = pairs.read(
                self.trunk.tokenizer,
                query,
                passages,
                room=self.trunk.room,
                windowing=self.trunk.options.windowing,
            )
        tokenised = self._clock()
        if known is None:
            self.pace.observe_reading(
                sum(map(len, passages)), laid, tokenised - started, cut=self.trunk.short
            )
        batches = self.pace.batches(
            laid.lengths,
            max_batch_tokens=self.batch_tokens,
            left_s=None if deadline_s is None else deadline_s - tokenised,
        )
        ranks = np.arange(len(passages)) if known is None else known.ranks
        ran = await run_jobs(
            [self._job(laid, batch, ranks, known) for batch in batches],
            admit=self.pace.admission(deadline_s, self._clock),
        )
        scored = self._clock()
        logits = [None if one is None else one.scores for one in ran]
        scores, done = pairs.bring_back(laid, batches, logits, self.trunk.options.fold)
        if not np.isfinite(scores[done]).all():
            message = f"model {self.name!r} gave scores that are not finite; export it again"
            raise ModelError(message)
        finished = [batch for batch, one in zip(batches, ran, strict=True) if one is not None]
        usage = replace(pairs.usage(laid, finished), token_cache_hits=hits)
        return Scored(
            scores,
            done,
            laid.truncated,
            state=self._state(laid, batches, ran, ranks),
            timings=(
                Timing("tokenise", tokenised - started),
                Timing("score", scored - tokenised),
                Timing("fold", self._clock() - scored),
            ),
            decisions=(
                *pairs.decisions(laid, done, again=known is not None),
                *(self._kernels(len(passages)) if known is None else ()),
            ),
            usage=usage if known is None else replace(usage, truncated_tokens=0),
        )

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""
        return self.pace.price_s(
            chars,
            batch_tokens=self.batch_tokens,
            read=self.place == 0,
            short_tokens=self.trunk.max_tokens if self.trunk.short else None,
        )

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of that: the first exit reads."""
        return self.pace.read_s(chars) if self.place == 0 else 0.0

    def shortened(self, max_tokens: int) -> "ExitScorer":
        """Give the same scorer, what it has learnt included, for pairs of fewer tokens."""
        made = copy.copy(self)
        made.trunk = self.trunk.shortened(max_tokens)
        return made

    def warm_up(self) -> None:
        """Time short and long batches of this segment, few and many pairs; once."""
        with self._lock:
            if self._warm:
                return
            sizes = self.pace.sizes(self.batch_tokens)
            self.pace.meter.calibrate(sizes, self.pace.time(sizes, self.timed))
            self._warm = True

    def close(self) -> None:
        """Do nothing: the sessions end with the last reference to the trunk."""

    def _kernels(self, candidates: int) -> tuple[Decision, ...]:
        if not self.trunk.files.int8:
            return ()
        detail = "no int8 kernels: with exits the exact graph runs"
        return (Decision("score", Code.KERNELS, candidates, detail),)

    def _continues(self, state: Hidden) -> bool:
        return state.origin == self.trunk.origin and state.place == self.place

    def _job(
        self, laid: Pairs, batch: Batch, ranks: NDArray[np.int64], state: Hidden | None
    ) -> Job[_Ran]:
        return Job(
            lambda: self._run(laid, batch, ranks, state),
            tokens=batch.padded_tokens,
            length_tokens=batch.length_tokens,
        )

    def _run(
        self, laid: Pairs, batch: Batch, ranks: NDArray[np.int64], state: Hidden | None
    ) -> _Ran:
        """Compute one micro-batch: from the state, or all segments up to this one."""
        started = self._clock()
        chosen = list(batch.pairs)
        arrays = self.trunk.tokenizer.assemble(
            laid.query, [laid.ids[i] for i in chosen], batch.length_tokens
        )
        depths = ranks[laid.owners[chosen]].astype(np.float32)
        first = 0 if state is None else self.place
        hidden = None if state is None else gather([state.rows[i] for i in chosen], batch)
        scores = np.zeros(len(chosen), np.float32) if state is None else state.scores[chosen]
        for place in range(first, self.place + 1):
            step = self.trunk.run(place, arrays, hidden)
            hidden = step.hidden
            if step.scores is not None:
                scores = step.scores
            elif hidden is not None:
                scores = self._head(place, hidden, scores, depths, laid, batch)
        self.pace.meter.observe(len(chosen), batch.length_tokens, self._clock() - started)
        return _Ran(scores, hidden)

    def _head(  # noqa: PLR0917 - what a head can read
        self,
        place: int,
        hidden: Floats,
        scores: Floats,
        ranks: Floats,
        laid: Pairs,
        batch: Batch,
    ) -> Floats:
        head = self.trunk.heads[place]
        if head.kind == "probe":
            return heads.apply(head, hidden[:, 0], scores, ranks)
        return heads.alike(head, hidden, laid, batch.pairs, self.trunk.tokenizer.template)

    def _state(
        self,
        laid: Pairs,
        batches: Sequence[Batch],
        ran: Sequence[_Ran | None],
        ranks: NDArray[np.int64],
    ) -> Hidden | None:
        if self.place == len(self.trunk.heads):
            return None
        nothing = np.zeros((0, 0), dtype=np.float32)
        rows: list[Floats] = [nothing] * len(laid.ids)
        scores = np.zeros(len(laid.ids), dtype=np.float32)
        for batch, one in zip(batches, ran, strict=True):
            if one is None or one.hidden is None:
                continue
            scores[list(batch.pairs)] = one.scores
            for row, pair in enumerate(batch.pairs):
                rows[pair] = one.hidden[row, : int(laid.lengths[pair])]
        return Hidden(self.trunk.origin, self.place + 1, laid, tuple(rows), scores, ranks)

    def timed(self, count: int, length_tokens: int) -> float:
        """Time this segment alone on filler, the second of two runs."""
        tokenizer = self.trunk.tokenizer
        filler = np.full(
            max(1, length_tokens - tokenizer.template.special_tokens - 1),
            tokenizer.pad_id,
            np.int32,
        )
        length = tokenizer.template.special_tokens + 1 + len(filler)
        arrays = tokenizer.assemble(np.zeros(1, np.int32), [filler] * count, length)
        hidden = None
        for place in range(self.place):
            hidden = self.trunk.run(place, arrays, hidden).hidden
        self.trunk.run(self.place, arrays, hidden)
        started = self._clock()
        self.trunk.run(self.place, arrays, hidden)
        return self._clock() - started


def segment_costs(trunk: Trunk) -> list[float]:
    """Time each segment on a typical batch, in turns: seconds per pair, medians."""
    scorers = stages_of(trunk)
    pairs, tokens = _TYPICAL_BATCH
    length = min(tokens, trunk.max_tokens)
    runs = [[one.timed(pairs, length) for one in scorers] for _ in range(_TURNS)]
    return [float(one) / pairs for one in np.median(runs, axis=0)]


def stages_of(trunk: Trunk) -> tuple[ExitScorer, ...]:
    """Make a scorer for each exit, and one for the whole model."""
    return tuple(ExitScorer(trunk, place) for place in range(len(trunk)))
