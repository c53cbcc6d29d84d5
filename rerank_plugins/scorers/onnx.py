"""Any pairwise cross-encoder in ONNX Runtime: no torch, no remote code."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..batching import Batch
from ..errors import ConfigError, ModelError
from ..passages import Fold
from ..records import Code, Decision, Timing
from . import Scored, ScoreKind, State, graphs, pairs
from .files import ModelFiles
from .graphs import cache
from .graphs.verify import probes
from .pace import Pace
from .pairs import MIN_WINDOW_TOKENS, Long, Pairs, Windowing, lay_out
from .scheduler import Job, run_jobs
from .session import Graph, Provider, open_graph
from .tokens import PairTokenizer

# Position tables that start behind the padding index (RoBERTa and its kin) lose those rows.
_OFFSET_FAMILIES = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
    }
)
_FALLBACK_MAX_TOKENS = 512
_WARM_LENGTHS = (16, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How a model is run.

    `max_tokens` caps a pair (None: what the model can take). `long` says what happens to passages
    over the cap, `fold` how windows become one score. Batches hold up to `max_batch_tokens` padded
    tokens: small ones stay in the cache of a core. `score_column` picks the relevant output column
    of a head with more than two. `rewrite` allows rewrites of the graph that are proved to
    change no score, `graph_cache` keeps their result on disk for the next process.
    """

    max_tokens: int | None = None
    long: Long = "window"
    fold: Fold = "max"
    window_overlap: float = 0.5
    max_windows: int = 8
    provider: Provider = "cpu"
    intra_threads: int = 1
    max_batch_tokens: int = 512
    token_cache_bytes: int = 64 * 2**20
    score_column: int | None = None
    rewrite: bool = True
    graph_cache: bool = True


class OnnxScorer:
    """Scores pairs with an ONNX graph; see `OnnxOptions` for how.

    Complete once constructed: the graph is loaded and checked. Raises `ModelError`.
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
        self.tokenizer = PairTokenizer(
            files.tokenizer, cache_bytes=(options or OnnxOptions()).token_cache_bytes
        )
        self.options = _checked(options or OnnxOptions(), files)
        self.max_tokens = self.options.max_tokens or usable_tokens(files)
        prepared = self._prepare()
        self.graph: Graph = prepared.graph
        self._note = prepared.note
        self._column = _score_column(self.options, files)
        self._clock = clock
        self.windowing = Windowing(
            self.options.long, self.options.window_overlap, self.options.max_windows
        )
        self.pace = Pace(max_tokens=self.max_tokens, max_batch_tokens=self.options.max_batch_tokens)
        self._warm = False
        self._lock = threading.Lock()
        self._columns(self._probe(1, 8))

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        state: State | None = None,  # noqa: ARG002 - whole graphs go on from nothing
        deadline_s: float | None = None,
    ) -> Scored:
        """Score passages; those the deadline leaves no time for come back not done."""
        started = self._clock()
        ids, hits = self.tokenizer.passages(passages)
        query_ids = self.tokenizer.query(query)
        laid = lay_out(
            query_ids,
            ids,
            room_tokens=self.tokenizer.room(query_ids, self.max_tokens),
            special_tokens=self.tokenizer.template.special_tokens,
            windowing=self.windowing,
        )
        tokenised = self._clock()
        self.pace.observe_reading(
            sum(map(len, passages)), laid.lengths, sum(map(len, ids)), tokenised - started
        )
        batches = self.pace.batches(laid.lengths, deadline_s=deadline_s, now_s=tokenised)
        logits = await run_jobs(
            [self._job(laid, batch) for batch in batches],
            admit=self.pace.admission(deadline_s, self._clock),
        )
        scored = self._clock()
        scores, done = pairs.bring_back(laid, batches, logits, self.options.fold)
        self._check_finite(scores, done)
        timings = (
            Timing("tokenise", tokenised - started),
            Timing("score", scored - tokenised),
            Timing("fold", self._clock() - scored),
        )
        finished = [
            batch for batch, logit in zip(batches, logits, strict=True) if logit is not None
        ]
        return Scored(
            scores,
            done,
            laid.truncated,
            timings=timings,
            decisions=(*pairs.decisions(laid, done), *self._rewrite_decision(len(passages))),
            usage=replace(pairs.usage(laid, finished), token_cache_hits=hits),
        )

    def price_s(self, chars: Sequence[int]) -> float:
        """Predict worker seconds per pair for passages of so many characters; 0.0: unknown."""
        return self.pace.price_s(chars)

    def warm_up(self) -> None:
        """Run short and full length, one pair and a full batch; later calls do nothing."""
        with self._lock:
            if self._warm:
                return
            budget = self.options.max_batch_tokens
            sizes = [
                (count, length)
                for length in sorted({min(one, self.max_tokens) for one in _WARM_LENGTHS})
                for count in sorted({1, max(1, min(64, budget // length))})
            ]
            self._probe(1, min(self.max_tokens, 2048))
            self.pace.meter.calibrate(sizes, [self._timed(*size) for size in sizes])
            self._warm = True

    def close(self) -> None:
        """Do nothing: the session ends with the last reference to it."""

    def _rewrite_decision(self, candidates: int) -> tuple[Decision, ...]:
        return (Decision("score", Code.GRAPH, candidates, self._note),) if self._note else ()

    def _prepare(self) -> graphs.Prepared:
        options = self.options
        if not options.rewrite:
            return graphs.Prepared(
                open_graph(
                    self.files.graph,
                    provider=options.provider,
                    intra_threads=options.intra_threads,
                )
            )
        return graphs.prepare(
            self.files.graph,
            lambda: probes(self.tokenizer, self.max_tokens),
            provider=options.provider,
            intra_threads=options.intra_threads,
            folder=cache.directory() if options.graph_cache else None,
        )

    def _timed(self, count: int, length_tokens: int) -> float:
        """Time a batch of filler, the second of two runs: the first pays for its shapes."""
        self._probe(count, length_tokens)
        started = self._clock()
        self._probe(count, length_tokens)
        return self._clock() - started

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

    def _check_finite(self, scores: NDArray[np.float32], done: NDArray[np.bool_]) -> None:
        bad = int((~np.isfinite(scores[done])).sum())
        if bad:
            message = (
                f"model {self.name!r} gave {bad} of {int(done.sum())} scores that are not finite; "
                "the export or its quantisation is broken"
            )
            raise ModelError(message)

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
        return self._columns(columns)

    def _columns(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reduce a head's columns to one logit per pair."""
        count = columns.shape[1]
        if self._column is not None and -count <= self._column < count:
            return columns[:, self._column]
        if self._column is None and count == 1:
            return columns[:, 0]
        if self._column is None and count == 2:  # noqa: PLR2004 - irrelevant, relevant
            return columns[:, 1] - columns[:, 0]
        message = (
            f"model {self.name!r} gives {count} columns per pair and score_column is "
            f"{self._column}; expected 1 or 2 columns, or a score_column that says which one counts"
        )
        raise ModelError(message)


def usable_tokens(files: ModelFiles) -> int:
    """Read how many tokens a pair may have: the position table less its offset, and the card.

    The tokenizer's own limit counts too, where it is one (absurd values mean "none").
    """
    limits: list[int] = []
    positions = files.config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        offset = 0
        if files.config.get("model_type") in _OFFSET_FAMILIES:
            padding = files.config.get("pad_token_id")
            offset = (padding if isinstance(padding, int) else 1) + 1
        limits.append(positions - offset)
    for source, key in ((files.tokenizer_config, "model_max_length"), (files.card, "max_tokens")):
        value = source.get(key)
        if isinstance(value, int) and 0 < value < 10**6:
            limits.append(value)
    return min(limits) if limits else _FALLBACK_MAX_TOKENS


def _checked(options: OnnxOptions, files: ModelFiles) -> OnnxOptions:
    limit = usable_tokens(files)
    if options.max_tokens is not None and not MIN_WINDOW_TOKENS <= options.max_tokens <= limit:
        message = (
            f"max_tokens is {options.max_tokens}; model {files.name!r} takes "
            f"{MIN_WINDOW_TOKENS} to {limit} tokens a pair"
        )
        raise ConfigError(message)
    if options.max_batch_tokens < 1 or options.max_windows < 1 or options.intra_threads < 0:
        message = f"{options}: max_batch_tokens and max_windows must be at least 1"
        raise ConfigError(message)
    return options


def _score_column(options: OnnxOptions, files: ModelFiles) -> int | None:
    if options.score_column is not None:
        return options.score_column
    column = files.card.get("score_column")
    return column if isinstance(column, int) else None
