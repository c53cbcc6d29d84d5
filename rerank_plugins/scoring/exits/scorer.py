"""An exit as a scorer: it continues where the exit before it stopped, with who is left."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...records import Code, Decision
from ...rules.batching import Batch
from .. import Scored, ScoreKind, State
from ..onnx.pair_scoring import BatchOutput, PairScoring
from ..onnx.throughput import DEFAULT_BATCH_TOKENS, Costs, Throughput
from ..text.pairs import Pairs
from ..text.tokenizer import PairArrays
from . import heads
from .segmented_model import SegmentedModel
from .state import HiddenStates, from_batches, gather

# Pairs and tokens of a batch that stands for many, and how often it is timed.
_TYPICAL_BATCH, _TURNS = (5, 96), 9


class ExitScorer:
    """Scores at the exit behind a segment of a model; behind the last segment, by the whole model.

    Given the state of the exit before, only this segment runs, on the survivors alone; without it
    the model runs from its beginning.

    segment: the index of the segment
    """

    score_kind: ScoreKind = "logit"

    def __init__(
        self,
        model: SegmentedModel,
        segment: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.segment = segment
        self.files = model.files
        last = segment == len(model.heads)
        self.name = model.files.name if last else f"{model.files.name}@{model.heads[segment].layer}"
        self.throughput = Throughput(
            max_tokens=model.max_tokens,
            batch_tokens=model.options.max_batch_tokens or DEFAULT_BATCH_TOKENS,
            intra_threads=model.options.intra_threads,
            most_chars=model.options.most_chars(model.max_tokens),
            workers=model.options.workers,
        )
        self._scoring = PairScoring(
            self.name, model.tokenizer, model.options, self.throughput, clock, model.room
        )

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        known = state if isinstance(state, HiddenStates) and self._continues(state) else None
        ranks = np.arange(len(passages)) if known is None else known.ranks
        computed = await self._scoring.compute(
            query,
            passages,
            partial(self._run_batch, known, ranks),
            known=None if known is None else known.pairs,
            deadline_s=deadline_s,
        )
        following = None
        if self.segment < len(self.model.heads):
            following = from_batches(computed, self.model.origin, self.segment + 1, ranks)
        decisions: list[Decision] = []
        if known is None and self.model.files.int8:
            reason = "no int8 kernels: with exits the exact graph runs"
            decisions.append(Decision("score", Code.KERNELS, len(passages), reason))
        return self._scoring.result(computed, state=following, decisions=decisions)

    def warm_up(self) -> None:
        """Time short and long batches of this segment, few and many pairs; once."""
        self.throughput.calibrate_once(self._costs)

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""
        return self.throughput.price_s(
            chars,
            read=self.segment == 0,
            short_tokens=self.model.max_tokens if self.model.shorter else None,
        )

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of `price_s`: the first exit reads."""
        return self.throughput.read_s(chars) if self.segment == 0 else 0.0

    def shortened(self, max_tokens: int) -> "ExitScorer":
        """Return the same scorer, what it has learnt included, for pairs of fewer tokens."""
        made = copy.copy(self)
        made.model = model = self.model.shortened(max_tokens)
        made._scoring = replace(  # noqa: SLF001 - its own copy
            self._scoring, options=model.options, room=model.room, shortened=model.shorter
        )
        return made

    def time_batch(self, pairs: int, length_tokens: int) -> float:
        """Return the seconds that this segment alone takes for a batch of filler."""
        arrays = self._scoring.filler(pairs, length_tokens)
        hidden = None
        for segment in range(self.segment):
            hidden = self.model.run(segment, arrays, hidden).hidden
        return self._scoring.time_second(partial(self.model.run, self.segment, arrays, hidden))

    def close(self) -> None:
        """Do nothing: the sessions end with the last reference to the model."""

    def _costs(self) -> Costs:
        return self.throughput.measure(self.throughput.batch_tokens, self.time_batch)

    def _continues(self, state: HiddenStates) -> bool:
        return state.origin == self.model.origin and state.segment == self.segment

    def _run_batch(
        self,
        state: HiddenStates | None,
        ranks: NDArray[np.int64],
        pairs: Pairs,
        batch: Batch,
        arrays: PairArrays,
    ) -> BatchOutput:
        """Compute one micro-batch: from the state, or all segments up to this one."""
        chosen = list(batch.pairs)
        if state is None:
            first, hidden = 0, None
            scores = np.zeros(len(chosen), np.float32)
        else:
            first, hidden = self.segment, gather([state.rows[i] for i in chosen], batch)
            scores = state.scores[chosen]
        depths = ranks[pairs.owners[chosen]].astype(np.float32)
        for segment in range(first, self.segment + 1):
            output = self.model.run(segment, arrays, hidden)
            hidden = output.hidden
            if output.scores is not None:
                scores = output.scores
            elif hidden is not None:
                head = self.model.heads[segment]
                scores = (
                    heads.probe_scores(head, hidden[:, 0], scores, depths)
                    if head.kind == "probe"
                    else heads.similarity_scores(
                        head, hidden, pairs, chosen, self.model.tokenizer.template
                    )
                )
        return BatchOutput(scores, hidden)


def segment_costs(model: SegmentedModel) -> list[float]:
    """Time each segment on a typical batch, in turns: seconds per pair, medians."""
    scorers = exit_scorers(model)
    pairs, tokens = _TYPICAL_BATCH
    length = min(tokens, model.max_tokens)
    runs = [[scorer.time_batch(pairs, length) for scorer in scorers] for _ in range(_TURNS)]
    return [float(seconds) / pairs for seconds in np.median(runs, axis=0)]


def exit_scorers(model: SegmentedModel) -> tuple[ExitScorer, ...]:
    """Make a scorer for each exit, and one for the whole model."""
    return tuple(ExitScorer(model, segment) for segment in range(len(model)))
