"""What local models share: read a request, compute it in micro-batches, fold it into scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from ...records import Decision, Timing
from ...rules.batching import Batch
from ...rules.deadline import READING_SHARE
from .. import Floats, Scored, State, check_finite
from ..runtime.jobs import Job, run_jobs
from ..text import pairs as text_pairs
from ..text.pairs import Pairs
from ..text.tokenizer import Ids, PairArrays, PairTokenizer
from .options import OnnxOptions
from .throughput import Throughput, seconds_of


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """What a model gave for a micro-batch.

    scores: [pairs] float32
    hidden: hidden states [pairs, length, width]; None where the model ends here
    """

    scores: Floats
    hidden: Floats | None = None


RunBatch: TypeAlias = Callable[[Pairs, Batch, PairArrays], BatchOutput]


@dataclass(frozen=True, slots=True)
class Computed:
    """The pairs of a request after their micro-batches have run.

    outputs: per batch, None where the deadline left no time
    read_before: an earlier stage tokenised the pairs
    times_s: the instants of the start, after tokenising, and after computing
    """

    pairs: Pairs
    batches: tuple[Batch, ...]
    outputs: list[BatchOutput | None]
    read_before: bool
    token_cache_hits: int
    times_s: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PairScoring:
    """The part of scoring that does not depend on how a model runs a batch.

    room: counts the passage tokens that fit beside a query
    shortened: passages are cut for a plan
    """

    name: str
    tokenizer: PairTokenizer
    options: OnnxOptions
    throughput: Throughput
    clock: Callable[[], float]
    room: Callable[[Ids], int]
    shortened: bool = False

    async def compute(
        self,
        query: str,
        passages: Sequence[str],
        run: RunBatch,
        *,
        known: Pairs | None = None,
        deadline_s: float | None = None,
    ) -> Computed:
        """Compute passages in micro-batches as far as the deadline allows.

        `known` are the same passages where an earlier stage has read them.
        """
        started_s = self.clock()
        pairs, hits = (known, 0) if known is not None else self._read(query, passages, deadline_s)
        read_s = self.clock()
        if known is None:
            chars = sum(min(len(text), self.throughput.most_chars) for text in passages)
            self.throughput.observe_reading(chars, pairs, read_s - started_s, cut=self.shortened)
        left_s = None if deadline_s is None else deadline_s - read_s
        batches = self.throughput.batches(pairs.lengths, left_s=left_s)
        jobs = [
            Job(
                partial(self._run_micro_batch, run, pairs, batch),
                tokens=batch.padded_tokens,
                length_tokens=batch.length_tokens,
            )
            for batch in batches
        ]
        outputs = await run_jobs(jobs, admit=self.throughput.admission(deadline_s, self.clock))
        times_s = (started_s, read_s, self.clock())
        return Computed(pairs, batches, outputs, known is not None, hits, times_s)

    def result(
        self, computed: Computed, *, state: State | None = None, decisions: Sequence[Decision] = ()
    ) -> Scored:
        """Fold windows into passages. Raises `ModelError` for scores that are not finite."""
        pairs = computed.pairs
        logits = [None if output is None else output.scores for output in computed.outputs]
        fold = self.options.fold
        scores, done = text_pairs.candidate_scores(pairs, computed.batches, logits, fold)
        advice = "the export or its quantisation is broken"
        check_finite(scores[done], f"model {self.name!r}", advice)
        finished = zip(computed.batches, logits, strict=True)
        ran = [batch for batch, logit in finished if logit is not None]
        usage = replace(text_pairs.usage(pairs, ran), token_cache_hits=computed.token_cache_hits)
        if computed.read_before:
            usage = replace(usage, truncated_tokens=0)
        read_decisions = text_pairs.decisions(pairs, done, again=computed.read_before)
        started_s, read_s, computed_s = computed.times_s
        return Scored(
            scores,
            done,
            pairs.truncated,
            state=state,
            timings=(
                Timing("tokenise", read_s - started_s),
                Timing("score", computed_s - read_s),
                Timing("fold", self.clock() - computed_s),
            ),
            decisions=(*read_decisions, *decisions),
            usage=usage,
        )

    def filler(self, pairs: int, length_tokens: int) -> PairArrays:
        """Return a batch without padding and without meaning, to time a model with."""
        special = self.tokenizer.template.special_tokens + 1
        passage = np.full(max(1, length_tokens - special), self.tokenizer.pad_id, np.int32)
        return self.tokenizer.assemble(
            np.zeros(1, np.int32), [passage] * pairs, special + len(passage)
        )

    def time_second(self, run: Callable[[], object]) -> float:
        """Return the seconds of the second of two runs: the first pays for new shapes."""
        run()
        return seconds_of(run, self.clock)

    def _read(
        self, query: str, passages: Sequence[str], deadline_s: float | None
    ) -> tuple[Pairs, int]:
        in_time = None
        if deadline_s is not None:
            now_s = self.clock()
            until_s = now_s + READING_SHARE * max(0.0, deadline_s - now_s)
            in_time = partial(_before, until_s, self.clock)
        return text_pairs.read(
            self.tokenizer,
            query,
            passages,
            room=self.room,
            windowing=self.options.windowing,
            in_time=in_time,
        )

    def _run_micro_batch(self, run: RunBatch, pairs: Pairs, batch: Batch) -> BatchOutput:
        """Compute one micro-batch, and learn how long it took."""
        started_s = self.clock()
        ids = [pairs.ids[i] for i in batch.pairs]
        output = run(pairs, batch, self.tokenizer.assemble(pairs.query, ids, batch.length_tokens))
        taken_s = self.clock() - started_s
        self.throughput.meter.observe(len(ids), batch.length_tokens, taken_s)
        return output


def _before(until_s: float, clock: Callable[[], float]) -> bool:
    return clock() < until_s
