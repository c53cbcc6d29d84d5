"""Any pairwise cross-encoder in ONNX Runtime: no torch, no remote code."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..batching import Batch, plan
from ..errors import ConfigError, ModelError
from ..passages import Fold, fold, windows
from ..records import Code, Decision, Timing, Usage
from . import Scored, ScoreKind, State, graphs
from .files import ModelFiles
from .graphs import cache
from .graphs.verify import probes
from .scheduler import Job, run_jobs
from .session import Graph, Provider, open_graph
from .tokens import Ids, PairTokenizer

Long: TypeAlias = Literal["window", "truncate", "error"]

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
# A window must hold enough of the passage to be worth a model run.
_MIN_WINDOW_TOKENS = 16
_TIER_PAIRS = 16
_SMOOTHING = 0.2


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


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of a request: which candidate owns each, its passage ids, its full length."""

    query: Ids
    ids: list[Ids]
    owners: NDArray[np.intp]
    lengths: NDArray[np.int64]
    truncated: NDArray[np.int64]
    refused: NDArray[np.bool_]
    windowed: int


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
        self._token_s = 0.0
        self._warm = False
        self._lock = threading.Lock()
        self._columns(self._probe(pairs=1, length_tokens=8))

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
        pairs = self._pairs(query, ids)
        batches = plan(
            pairs.lengths,
            max_batch_tokens=self.options.max_batch_tokens,
            tier_pairs=None if deadline_s is None else _TIER_PAIRS,
        )
        tokenised = self._clock()
        logits = await run_jobs(
            [self._job(pairs, batch) for batch in batches],
            admit=None if deadline_s is None else self._admit(deadline_s),
        )
        scored = self._clock()
        scores, done = self._fold(pairs, batches, logits, len(passages))
        timings = (
            Timing("tokenise", tokenised - started),
            Timing("score", scored - tokenised),
            Timing("fold", self._clock() - scored),
        )
        ran = [batch for batch, logit in zip(batches, logits, strict=True) if logit is not None]
        return Scored(
            scores,
            done,
            pairs.truncated,
            timings=timings,
            decisions=(*_decisions(pairs, done), *self._rewrite_decision(len(passages))),
            usage=replace(_usage(pairs, ran), token_cache_hits=hits),
        )

    def warm_up(self) -> None:
        """Run short and full length, one pair and a full batch; later calls do nothing."""
        with self._lock:
            if self._warm:
                return
            budget = self.options.max_batch_tokens
            for length in sorted({min(16, self.max_tokens), min(128, self.max_tokens)}):
                for count in {1, max(1, min(64, budget // length))}:
                    self._probe(count, length)
            self._probe(1, min(self.max_tokens, 2048))
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

    def _probe(self, pairs: int, length_tokens: int) -> NDArray[np.float32]:
        """Run pairs of padding-free filler, timed; give the raw output columns."""
        room = length_tokens - self.tokenizer.template.special_tokens - 1
        query = np.zeros(1, dtype=np.int32)
        filler = np.full(max(1, room), self.tokenizer.pad_id, dtype=np.int32)
        length = self.tokenizer.template.special_tokens + 1 + len(filler)
        arrays = self.tokenizer.assemble(query, [filler] * pairs, length)
        try:
            return self.graph.run(arrays)
        except Exception as error:
            message = (
                f"model {self.name!r} fails on a batch of {pairs} x {length} tokens: {error}. "
                "Expected dynamic batch and sequence axes; export it again"
            )
            raise ModelError(message) from error

    def _pairs(self, query_text: str, passages: Sequence[Ids]) -> _Pairs:
        query = self.tokenizer.query(query_text)
        room = self.tokenizer.room(query, self.max_tokens)
        long = self.options.long
        if long == "window" and room < _MIN_WINDOW_TOKENS:
            long = "truncate"
        ids: list[Ids] = []
        owners: list[int] = []
        truncated = np.zeros(len(passages), dtype=np.int64)
        refused = np.zeros(len(passages), dtype=np.bool_)
        windowed = 0
        for i, passage in enumerate(passages):
            limit = self.options.max_windows if long == "window" else 1
            spans = windows(len(passage), room, overlap=self.options.window_overlap, limit=limit)
            truncated[i] = len(passage) - spans[-1][1]
            if truncated[i] and long == "error":
                refused[i] = True
                continue
            windowed += len(spans) > 1
            ids += [passage[start:stop] for start, stop in spans]
            owners += [i] * len(spans)
        extra = len(query) + self.tokenizer.template.special_tokens
        lengths = np.array([len(one) + extra for one in ids], dtype=np.int64)
        return _Pairs(
            query, ids, np.array(owners, dtype=np.intp), lengths, truncated, refused, windowed
        )

    def _job(self, pairs: _Pairs, batch: Batch) -> Job[NDArray[np.float32]]:
        return Job(lambda: self._run(pairs, batch), tokens=batch.padded_tokens)

    def _run(self, pairs: _Pairs, batch: Batch) -> NDArray[np.float32]:
        """Compute one micro-batch: logits [pairs of the batch]."""
        started = self._clock()
        arrays = self.tokenizer.assemble(
            pairs.query, [pairs.ids[i] for i in batch.pairs], batch.length_tokens
        )
        try:
            columns = self.graph.run(arrays)
        except Exception as error:
            message = f"model {self.name!r} failed on {arrays.input_ids.shape}: {error}"
            raise ModelError(message) from error
        seen_s = (self._clock() - started) / batch.padded_tokens
        self._token_s += (_SMOOTHING if self._token_s else 1.0) * (seen_s - self._token_s)
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

    def _admit(self, deadline_s: float) -> Callable[[Job[NDArray[np.float32]]], bool]:
        return lambda job: self._clock() + job.tokens * self._token_s <= deadline_s

    def _fold(
        self,
        pairs: _Pairs,
        batches: Sequence[Batch],
        logits: Sequence[NDArray[np.float32] | None],
        candidates: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Bring logits back into candidate order; a candidate is done with its last window."""
        flat = np.zeros(len(pairs.ids), dtype=np.float32)
        ran = np.zeros(len(pairs.ids), dtype=np.bool_)
        for batch, values in zip(batches, logits, strict=True):
            if values is not None:
                flat[list(batch.pairs)] = values
                ran[list(batch.pairs)] = True
        if not np.isfinite(flat).all():
            bad = int((~np.isfinite(flat)).sum())
            message = (
                f"model {self.name!r} gave {bad} of {len(flat)} scores that are not finite; the "
                "export or its quantisation is broken"
            )
            raise ModelError(message)
        done = ~pairs.refused
        done[pairs.owners[~ran]] = False
        scores = np.zeros(candidates, dtype=np.float32)
        if len(flat):
            whole = ~pairs.refused
            names = np.cumsum(whole) - 1
            scores[whole] = fold(flat, names[pairs.owners], int(whole.sum()), self.options.fold)
        return scores, done


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
    if options.max_tokens is not None and not _MIN_WINDOW_TOKENS <= options.max_tokens <= limit:
        message = (
            f"max_tokens is {options.max_tokens}; model {files.name!r} takes "
            f"{_MIN_WINDOW_TOKENS} to {limit} tokens a pair"
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


def _decisions(pairs: _Pairs, done: NDArray[np.bool_]) -> tuple[Decision, ...]:
    truncated = int(((pairs.truncated > 0) & ~pairs.refused).sum())
    missed = int((~done & ~pairs.refused).sum())
    counts: Mapping[Code, tuple[str, int]] = {
        Code.WINDOWED: ("split", pairs.windowed),
        Code.TRUNCATED: ("split", truncated),
        Code.TOO_LONG: ("split", int(pairs.refused.sum())),
        Code.DEADLINE: ("score", missed),
    }
    return tuple(Decision(step, code, n) for code, (step, n) in counts.items() if n)


def _usage(pairs: _Pairs, ran: Sequence[Batch]) -> Usage:
    real = sum(int(pairs.lengths[i]) for batch in ran for i in batch.pairs)
    return Usage(
        pairs=sum(len(batch.pairs) for batch in ran),
        tokens=real,
        padding_tokens=sum(batch.padded_tokens for batch in ran) - real,
        truncated_tokens=int(pairs.truncated[~pairs.refused].sum()),
        batches=len(ran),
    )
