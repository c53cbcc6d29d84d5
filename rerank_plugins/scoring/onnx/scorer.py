"""Any pairwise cross-encoder in ONNX Runtime: no torch, no remote code."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...records import Code, Decision, Timing
from ...rules.batching import Batch
from .. import Scored, ScoreKind, State
from ..models.files import ModelFiles, padding
from ..runtime.jobs import Job, run_jobs
from ..text import pairs
from ..text.pairs import Pairs
from ..text.tokenizer import PairTokenizer
from . import score_cache, throughput
from .decoder import MOST_BATCH_TOKENS, Decoder, open_decoder, prompt_of
from .graph import cache, int8, prepare
from .graph.verify import many, probes
from .options import OnnxOptions, checked, identity, score_column, usable_tokens
from .session import Graph, open_graph, single_column
from .throughput import Costs, Pace

# Batches are timed at the length of a typical passage.
_TUNING_LENGTH_TOKENS = 64


class OnnxScorer:
    """Scores pairs with an ONNX graph; see `OnnxOptions` for how.

    Complete once constructed: the graph is loaded and checked. `batch_tokens` is the size of
    micro-batches, measured at warm-up unless an option says it. `refusal` says why int8 kernels
    that were asked for do not run. Raises `ModelError`.
    """

    score_kind: ScoreKind = "logit"

    def __init__(
        self,
        files: ModelFiles,
        options: OnnxOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.files = files
        self.name = files.name
        self.options = checked(options or OnnxOptions(), files)
        self._asked = prompt_of(files, self.options.template, self.options.instruction)
        self.tokenizer = PairTokenizer(
            files.tokenizer,
            cache_bytes=self.options.token_cache_bytes,
            pad=padding(files),
            prompt=self._asked,
        )
        self.max_tokens = self.options.max_tokens or usable_tokens(files)
        self.refusal = ""
        self.graph, self._note, self._key = self._open()
        self._column = score_column(self.options, files)
        self._scores: score_cache.ScoreCache | None = None
        if self.options.score_cache_bytes:
            self._scores = score_cache.ScoreCache(
                identity(self.options, files), self.options.score_cache_bytes
            )
        self._fixed_tokens = self.options.max_batch_tokens
        if isinstance(self.graph, Decoder) and self.graph.every_token:
            self._fixed_tokens = min(self._fixed_tokens or MOST_BATCH_TOKENS, MOST_BATCH_TOKENS)
        self.batch_tokens = self._fixed_tokens or throughput.DEFAULT_BATCH_TOKENS
        self._clock = clock
        self.pace = Pace(max_tokens=self.max_tokens, intra_threads=self.options.intra_threads)
        self._warm = False
        self._lock = threading.Lock()
        # Two pairs: a graph exported for one has a fixed axis, and its user should know now.
        single_column(self._probe(2, 8), self._column, self.name)

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - whole graphs go on from nothing
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        if self._scores is None:
            return await self._compute(query, passages, deadline_s)
        return await score_cache.scores(
            self._scores,
            query,
            passages,
            lambda missing: self._compute(query, missing, deadline_s),
        )

    def warm_up(self) -> None:
        """Run real shapes and learn what they cost here; later calls do nothing."""
        with self._lock:
            if self._warm:
                return
            found = self._costs()
            self.batch_tokens = found.batch_tokens
            self.pace.meter.calibrate(found.sizes, found.seconds)
            self._warm = True

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""
        return self.pace.price_s(chars, batch_tokens=self.batch_tokens)

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of that."""
        return self.pace.read_s(chars)

    def timed(self, count: int, length_tokens: int) -> float:
        """Time a batch of filler in seconds, the second of two runs: the first pays for shapes."""
        self._probe(count, length_tokens)
        started = self._clock()
        self._probe(count, length_tokens)
        return self._clock() - started

    def close(self) -> None:
        """Do nothing: the session ends with the last reference to it."""

    async def _compute(
        self, query: str, passages: Sequence[str], deadline_s: float | None
    ) -> Scored:
        started = self._clock()
        laid, hits = pairs.read(
            self.tokenizer,
            query,
            passages,
            room=lambda asked: self.tokenizer.room(asked, self.max_tokens),
            windowing=self.options.windowing,
        )
        tokenised = self._clock()
        self.pace.observe_reading(sum(map(len, passages)), laid, tokenised - started)
        batches = self.pace.batches(
            laid.lengths,
            max_batch_tokens=self.batch_tokens,
            left_s=None if deadline_s is None else deadline_s - tokenised,
        )
        logits = await run_jobs(
            [self._job(laid, batch) for batch in batches],
            admit=self.pace.admission(deadline_s, self._clock),
        )
        scored = self._clock()
        scores, done = pairs.bring_back(laid, batches, logits, self.options.fold)
        self._check_finite(scores[done])
        timings = (
            Timing("tokenise", tokenised - started),
            Timing("score", scored - tokenised),
            Timing("fold", self._clock() - scored),
        )
        ran = [batch for batch, logit in zip(batches, logits, strict=True) if logit is not None]
        return Scored(
            scores,
            done,
            laid.truncated,
            timings=timings,
            decisions=(*pairs.decisions(laid, done), *self._graph_decisions(len(passages))),
            usage=replace(pairs.usage(laid, ran), token_cache_hits=hits),
        )

    def _check_finite(self, scores: NDArray[np.float32]) -> None:
        if not np.isfinite(scores).all():
            bad = int((~np.isfinite(scores)).sum())
            message = (
                f"model {self.name!r} gave {bad} of {len(scores)} scores that are not finite; the "
                "export or its quantisation is broken"
            )
            raise ModelError(message)

    def _graph_decisions(self, candidates: int) -> tuple[Decision, ...]:
        said = {Code.KERNELS: self.refusal or self.files.choice, Code.GRAPH: self._note}
        return tuple(Decision("score", code, candidates, why) for code, why in said.items() if why)

    def _costs(self) -> Costs:
        """Take what an earlier process measured if it still holds, or measure and keep it."""
        place = None
        if self._key:
            about = f"{self.pace.workers}x{self.options.intra_threads}-{self.max_tokens}"
            place = cache.directory() / f"{self._key}-{about}-{self._fixed_tokens or 'auto'}.json"
        known = None if place is None else throughput.kept(place)
        if known is not None:
            known = throughput.confirmed(
                known, lambda size: min(self.pace.time([size] * 2, self.timed))
            )
        if known is None:
            known = self._measured()
            if place is not None:
                throughput.keep(place, known)
        return known

    def _measured(self) -> Costs:
        """Run full length, short and long, one pair and full batches, and time them."""
        self._probe(1, min(self.max_tokens, 2048))
        batch_tokens = self._fixed_tokens or throughput.batch_tokens(self._run_about)
        sizes = self.pace.sizes(batch_tokens)
        return Costs(batch_tokens, sizes, tuple(self.pace.time(sizes, self.timed)))

    def _open(self) -> tuple[Graph | Decoder, str, str]:
        """Open the graph in its fastest form.

        Also say why it is not rewritten, if that failed, and under which key things are kept of it.
        """
        options, path = self.options, self.files.graph
        provider, threads = options.provider, options.intra_threads
        if self.files.int8:
            made = self._int8()
            if isinstance(made, prepare.Prepared):
                return made.graph, "", made.key
            self.refusal = f"no int8 kernels: {made}"
        if self._asked is not None:
            answers = self.tokenizer.answers()
            return open_decoder(path, answers, provider=provider, intra_threads=threads), "", ""
        if not options.rewrite:
            return open_graph(path, provider=provider, intra_threads=threads), "", ""
        prepared = prepare.prepare(
            path,
            lambda: probes(self.tokenizer, self.max_tokens),
            provider=provider,
            intra_threads=threads,
            folder=cache.directory() if options.graph_cache else None,
        )
        return prepared.graph, prepared.note, prepared.key

    def _int8(self) -> prepare.Prepared | str:
        """Open the graph with int8 kernels, or say why not."""
        options = self.options
        if self._asked is not None:
            return "the model is asked by a prompt"
        if not options.rewrite:
            return "rewrite is off"
        return int8.prepare(
            self.files.graph,
            lambda: many(self.tokenizer, self.max_tokens),
            provider=options.provider,
            intra_threads=options.intra_threads,
            folder=cache.directory() if options.graph_cache else None,
        )

    def _run_about(self, tokens: int) -> None:
        length = min(_TUNING_LENGTH_TOKENS, self.max_tokens)
        self._probe(max(1, tokens // length), length)

    def _probe(self, count: int, length_tokens: int) -> NDArray[np.float32]:
        """Run pairs of padding-free filler, timed; give the raw output columns."""
        room = length_tokens - self.tokenizer.template.special_tokens - 1
        query = np.zeros(1, dtype=np.int32)
        filler = np.full(max(1, room), self.tokenizer.pad_id, dtype=np.int32)
        length = self.tokenizer.template.special_tokens + 1 + len(filler)
        arrays = self.tokenizer.assemble(query, [filler] * count, length)
        try:
            return self.graph.run(arrays)
        except Exception as error:
            message = (
                f"model {self.name!r} fails on a batch of {count} x {length} tokens: {error}. "
                "Expected dynamic batch and sequence axes; export it again"
            )
            raise ModelError(message) from error

    def _job(self, laid: Pairs, batch: Batch) -> Job[NDArray[np.float32]]:
        return Job(
            lambda: self._run(laid, batch),
            tokens=batch.padded_tokens,
            length_tokens=batch.length_tokens,
        )

    def _run(self, laid: Pairs, batch: Batch) -> NDArray[np.float32]:
        """Compute one micro-batch: logits [pairs of the batch]."""
        started = self._clock()
        arrays = self.tokenizer.assemble(
            laid.query, [laid.ids[i] for i in batch.pairs], batch.length_tokens
        )
        try:
            columns = self.graph.run(arrays)
        except Exception as error:
            message = f"model {self.name!r} failed on {arrays.input_ids.shape}: {error}"
            raise ModelError(message) from error
        self.pace.meter.observe(len(batch.pairs), batch.length_tokens, self._clock() - started)
        return single_column(columns, self._column, self.name)
