"""Any pairwise cross-encoder in ONNX Runtime: no torch, no remote code."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from ...errors import ModelError
from ...records import Code, Decision
from ...rules.batching import Batch
from .. import Floats, Scored, ScoreKind, State
from ..models.files import ModelFiles, padding
from ..text.pairs import Pairs
from ..text.tokenizer import PairArrays, PairTokenizer
from . import throughput
from .decoder import MOST_BATCH_TOKENS, Decoder, open_decoder, prompt_of
from .graph import cache
from .graph.prepare import Prepared, open_rewritten
from .graph.verify import many, probes
from .options import OnnxOptions, checked, identity, labels, score_column, usable_tokens
from .pair_scoring import BatchOutput, PairScoring
from .score_cache import ScoreCache
from .session import Graph, open_graph, single_column
from .throughput import Costs, Throughput

# The most tokens of the pair that warm-up runs first.
_LONGEST_FILLER_TOKENS = 2048


class OnnxScorer:
    """Scores pairs with an ONNX graph; see `OnnxOptions` for how.

    The graph is loaded and checked when the scorer is made; raises `ModelError`.

    int8_failure: why int8 kernels that were asked for do not run, or ""
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
        self._prompt = prompt_of(files, self.options.template, self.options.instruction)
        self.tokenizer = PairTokenizer(
            files.tokenizer,
            cache_bytes=self.options.token_cache_bytes,
            pad=padding(files),
            prompt=self._prompt,
            listed=files.listed,
        )
        self.max_tokens = self.options.max_tokens or usable_tokens(files)
        self.int8_failure = ""
        self.graph, self._rewrite_failure, self._cache_key = self._open()
        self._column = score_column(self.options, files)
        self._labels = labels(files)
        self._score_cache: ScoreCache | None = None
        if self.options.score_cache_bytes:
            model = identity(self.options, files)
            self._score_cache = ScoreCache(model, self.options.score_cache_bytes)
        self._fixed_tokens = self.options.max_batch_tokens
        if isinstance(self.graph, Decoder) and self.graph.every_token:
            self._fixed_tokens = min(self._fixed_tokens or MOST_BATCH_TOKENS, MOST_BATCH_TOKENS)
        self.throughput = Throughput(
            max_tokens=self.max_tokens,
            batch_tokens=self._fixed_tokens or throughput.DEFAULT_BATCH_TOKENS,
            intra_threads=self.options.intra_threads,
            most_chars=self.options.most_chars(self.max_tokens),
            workers=self.options.workers,
        )
        self._scoring = PairScoring(
            self.name,
            self.tokenizer,
            self.options,
            self.throughput,
            clock,
            partial(self.tokenizer.room, max_tokens=self.max_tokens),
        )
        # Two pairs: a graph exported for one has a fixed axis, and its user should know now.
        single_column(self._run_filler(2, 8), self._column, self.name, self._labels)

    @property
    def batch_tokens(self) -> int:
        """The size of micro-batches, in padded tokens: as an option says, or measured."""
        return self.throughput.batch_tokens

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - a whole model continues from nothing
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        compute = partial(self._compute, query, deadline_s)
        if self._score_cache is None:
            return await compute(passages)
        return await self._score_cache.score(query, passages, compute)

    def warm_up(self) -> None:
        """Run real shapes and learn what they cost here; later calls do nothing."""
        self.throughput.calibrate_once(self._costs)

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""
        return self.throughput.price_s(chars)

    def read_s(self, chars: Sequence[int]) -> float:
        """Predict what tokenising takes of `price_s`."""
        return self.throughput.read_s(chars)

    def time_batch(self, pairs: int, length_tokens: int) -> float:
        """Return the seconds that a batch of filler takes."""
        return self._scoring.time_second(partial(self._run_filler, pairs, length_tokens))

    def close(self) -> None:
        """Do nothing: the session ends with the last reference to it."""

    async def _compute(
        self, query: str, deadline_s: float | None, passages: Sequence[str]
    ) -> Scored:
        computed = await self._scoring.compute(
            query, passages, self._run_batch, deadline_s=deadline_s
        )
        kernels_reason = self.int8_failure or self.files.kernels_reason
        reasons = ((Code.KERNELS, kernels_reason), (Code.GRAPH, self._rewrite_failure))
        n = len(passages)
        decisions = [Decision("score", code, n, reason) for code, reason in reasons if reason]
        return self._scoring.result(computed, decisions=decisions)

    def _run_batch(self, _pairs: Pairs, _batch: Batch, arrays: PairArrays) -> BatchOutput:
        """Compute one micro-batch. Raises `ModelError`."""
        try:
            columns = self.graph.run(arrays)
        except Exception as error:
            message = f"model {self.name!r} failed on {arrays.input_ids.shape}: {error}"
            raise ModelError(message) from error
        return BatchOutput(single_column(columns, self._column, self.name, self._labels))

    def _costs(self) -> Costs:
        return self.throughput.kept_costs(
            self._cache_key,
            self._fixed_tokens,
            self._run_filler,
            self.time_batch,
            longest_tokens=min(self.max_tokens, _LONGEST_FILLER_TOKENS),
        )

    def _run_filler(self, pairs: int, length_tokens: int) -> Floats:
        """Run pairs of filler without padding and return the raw output columns."""
        arrays = self._scoring.filler(pairs, length_tokens)
        try:
            return self.graph.run(arrays)
        except Exception as error:
            message = (
                f"model {self.name!r} fails on a batch of {pairs} x {arrays.input_ids.shape[1]} "
                f"tokens: {error}. Expected dynamic batch and sequence axes; export it again"
            )
            raise ModelError(message) from error

    def _open(self) -> tuple[Graph | Decoder, str, str]:
        """Open the graph in its fastest form.

        Also return why it was not rewritten if that failed, and the key under which facts about it
        are cached on disk; "" where there is none.
        """
        options, path = self.options, self.files.graph_file
        provider, threads = options.provider, options.intra_threads
        folder = cache.usable() if options.graph_cache else None
        obstacle = "" if options.rewrite else "rewrite is off"
        if self._prompt is not None:
            obstacle = "the model is asked by a prompt"
        if self.files.int8:
            # It imports onnx, which takes longer than opening a kept graph.
            from .graph.int8 import open_int8

            batches = partial(many, self.tokenizer, self.max_tokens)
            made = obstacle or open_int8(
                path, batches, provider=provider, intra_threads=threads, folder=folder
            )
            if isinstance(made, Prepared):
                return made.graph, "", made.key
            self.int8_failure = f"no int8 kernels: {made}"
        if self._prompt is not None:
            answers = self.tokenizer.answers()
            return open_decoder(path, answers, provider=provider, intra_threads=threads), "", ""
        if obstacle:
            return open_graph(path, provider=provider, intra_threads=threads), "", ""
        batches = partial(probes, self.tokenizer, self.max_tokens)
        prepared = open_rewritten(
            path, batches, provider=provider, intra_threads=threads, folder=folder
        )
        return prepared.graph, prepared.note, prepared.key
