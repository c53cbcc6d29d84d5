"""Scores passages by their vectors: the query is encoded, and passages not remembered."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...records import Code, Decision, Timing
from ...rules.batching import Batch
from .. import Floats, Scored, ScoreKind, State
from ..onnx import throughput
from ..onnx.pair_scoring import BatchOutput, PairScoring
from ..onnx.throughput import Costs, Throughput
from ..runtime.jobs import Job, run_jobs
from ..text.pairs import Pairs
from ..text.tokenizer import PairArrays
from .encoder import Encoder
from .memory import Remembered, VectorMemory

# The weight of a request in the share of passages that are expected to be new.
_SMOOTHING = 0.1


class VectorScorer:
    """Scores by the similarity of two vectors, as the encoder's configuration says.

    memory: where passages' vectors are kept, made for this encoder; None: nowhere
    """

    def __init__(
        self,
        encoder: Encoder,
        memory: VectorMemory | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.encoder = encoder
        self.files = encoder.files
        self.name = encoder.files.name
        self.score_kind: ScoreKind = "cosine" if encoder.layout.similarity == "cosine" else "logit"
        self.throughput = Throughput(
            max_tokens=encoder.max_tokens,
            batch_tokens=encoder.options.max_batch_tokens or throughput.DEFAULT_BATCH_TOKENS,
            intra_threads=encoder.options.intra_threads,
        )
        self._memory = memory
        self._clock = clock
        self._scoring = PairScoring(
            self.name,
            encoder.tokenizer,
            encoder.options,
            self.throughput,
            clock,
            encoder.room,
        )
        self._new_share = 1.0
        self._lock = threading.Lock()

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - an encoder continues from nothing
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        started_s = self._clock()
        keys, remembered = self._remembered(passages)
        looked_s = self._clock()
        missing = np.flatnonzero(~remembered.known).tolist()
        vector = await self._query_vector(query, deadline_s) if passages else None
        encoded_s = self._clock()
        if vector is None:
            return _nothing(len(passages))
        run = partial(self._run_batch, vector, [keys[i] for i in missing] if keys else [])
        texts = self.encoder.passage_texts([passages[i] for i in missing])
        computed = await self._scoring.compute("", texts, run, deadline_s=deadline_s)
        fresh = self._scoring.result(computed, decisions=self._decisions(len(passages)))
        self._observe(len(missing), len(passages))
        timings = (
            Timing("look up", looked_s - started_s),
            Timing("encode query", encoded_s - looked_s),
            *fresh.timings,
        )
        return replace(_merged(fresh, missing, remembered, vector), timings=timings)

    def remembered(self, passages: Sequence[str]) -> NDArray[np.bool_]:
        """Return which passages have a vector already [passages]."""
        return self._remembered(passages)[1].known

    async def remember(self, passages: Sequence[str], *, deadline_s: float | None = None) -> int:
        """Encode the passages that are not remembered; return how many were."""
        keys, found = self._remembered(passages)
        missing = np.flatnonzero(~found.known).tolist()
        if not keys or not missing:
            return 0
        nothing = np.zeros(self.encoder.dimensions, np.float32)
        run = partial(self._run_batch, nothing, [keys[i] for i in missing])
        texts = self.encoder.passage_texts([passages[i] for i in missing])
        computed = await self._scoring.compute("", texts, run, deadline_s=deadline_s)
        return int(self._scoring.result(computed).done.sum())

    def warm_up(self) -> None:
        """Run real shapes and learn what they cost here; later calls do nothing."""
        self.throughput.calibrate_once(self._costs)

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per passage; as many are taken to be new as were lately."""
        return self._new_share * self.throughput.price_s(chars)

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of `price_s`."""
        return self._new_share * self.throughput.read_s(chars)

    def time_batch(self, texts: int, length_tokens: int) -> float:
        """Return the seconds that a batch of filler takes."""
        return self._scoring.time_second(partial(self._run_filler, texts, length_tokens))

    def close(self) -> None:
        """Close the memory; the session ends with the last reference to it."""
        if self._memory is not None:
            self._memory.close()

    def _remembered(self, passages: Sequence[str]) -> tuple[list[bytes], Remembered]:
        """Return the passages' keys, if there is a memory, and what is known of them."""
        if self._memory is None:
            n = len(passages)
            vectors = np.zeros((n, self.encoder.dimensions), np.float32)
            return [], Remembered(np.zeros(n, np.bool_), vectors, np.zeros(n, np.int64))
        keys = self._memory.keys(passages)
        return keys, self._memory.get(keys)

    async def _query_vector(self, query: str, deadline_s: float | None) -> Floats | None:
        """Encode the query [dimensions]; None where the deadline leaves no time."""
        arrays = self.encoder.query_arrays(query)
        length = arrays.input_ids.shape[1]
        job = Job(partial(self.encoder.query_vectors, arrays), tokens=length, length_tokens=length)
        (made,) = await run_jobs([job], admit=self.throughput.admission(deadline_s, self._clock))
        return None if made is None else made[0]

    def _run_batch(
        self, query: Floats, keys: Sequence[bytes], pairs: Pairs, batch: Batch, arrays: PairArrays
    ) -> BatchOutput:
        """Encode one micro-batch of passages, remember their vectors, and compare them."""
        vectors = self.encoder.passage_vectors(arrays)
        owners = pairs.owners[list(batch.pairs)]
        if self._memory is not None:
            truncated = pairs.truncated[owners].tolist()
            vectors = self._memory.put([keys[owner] for owner in owners], vectors, truncated)
        return BatchOutput(_similarities(vectors, query))

    def _decisions(self, n: int) -> list[Decision]:
        reason = self.encoder.rewrite_failure
        return [Decision("score", Code.GRAPH, n, reason)] if reason else []

    def _observe(self, new: int, n: int) -> None:
        if n:
            with self._lock:
                self._new_share += _SMOOTHING * (new / n - self._new_share)

    def _costs(self) -> Costs:
        return self.throughput.kept_costs(
            self.encoder.cache_key,
            self.encoder.options.max_batch_tokens,
            self._run_filler,
            self.time_batch,
            longest_tokens=self.encoder.max_tokens,
        )

    def _run_filler(self, texts: int, length_tokens: int) -> Floats:
        return self.encoder.passage_vectors(self._scoring.filler(texts, length_tokens))


def _merged(fresh: Scored, missing: Sequence[int], known: Remembered, query: Floats) -> Scored:
    """Put the scores of remembered passages between those that were computed."""
    n = len(known.known)
    if len(missing) == n:
        return fresh
    found = fresh.scatter(missing, n)
    found.scores[known.known] = _similarities(known.vectors[known.known], query)
    found.truncated_tokens[known.known] = known.truncated[known.known]
    found.done[known.known] = True
    return found


def _similarities(vectors: Floats, query: Floats) -> Floats:
    """Return a product for each passage, which does not depend on its neighbours."""
    return np.asarray(np.einsum("nd,d->n", vectors, query), np.float32)


def _nothing(n: int) -> Scored:
    """Return n results of which none is done, for lack of time."""
    decisions = (Decision("score", Code.DEADLINE, n),) if n else ()
    return Scored(
        np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n, np.int64), decisions=decisions
    )
