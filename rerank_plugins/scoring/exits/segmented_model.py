"""One model cut into segments: each continues where the one before it stopped."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ConfigError, ModelError
from .. import Floats
from ..models.files import ModelFiles
from ..onnx.decoder import prompt_of
from ..onnx.graph import verify
from ..onnx.options import OnnxOptions, checked, identity, labels, score_column, usable_tokens
from ..onnx.session import (
    KNOWN_INPUTS,
    Graph,
    as_declared,
    open_graph,
    open_session,
    score_columns,
    score_output,
    single_column,
)
from ..text.pairs import MIN_WINDOW_TOKENS
from ..text.tokenizer import Ids, PairArrays, PairTokenizer
from .heads import Head, card_heads


@dataclass(frozen=True, slots=True)
class SegmentOutput:
    """What a segment gives for a batch.

    scores: [pairs], None where a head has yet to be applied
    hidden: hidden states [pairs, length, width], None after the last segment
    """

    scores: Floats | None
    hidden: Floats | None


class SegmentedModel:
    """The segments of a model, cut after the layers of `heads`; loaded and checked when made.

    Segments are cut from the rewritten graph if their scores are the model's, else from the graph
    as it was exported. Raises `ModelError` where neither gives the model's scores.

    origin: identifies the model, its weights and options included
    """

    def __init__(
        self, files: ModelFiles, heads: Sequence[Head], options: OnnxOptions | None = None
    ) -> None:
        self.files = files
        self.heads = tuple(heads)
        self.options = checked(options or OnnxOptions(), files)
        self.tokenizer = PairTokenizer(
            files.tokenizer, cache_bytes=self.options.token_cache_bytes, listed=files.listed
        )
        self.max_tokens = self._most_tokens = self.options.max_tokens or usable_tokens(files)
        if prompt_of(files, self.options.template, self.options.instruction) is not None:
            message = (
                f"model {files.name!r} is asked by a prompt; only encoders of pairs have exits"
            )
            raise ModelError(message)
        self.origin = identity(self.options, files)
        self._column = score_column(self.options, files)
        self._labels = labels(files)
        provider, threads = self.options.provider, self.options.intra_threads
        original = open_graph(
            files.graph_file, provider=provider, intra_threads=threads, literal=True
        )
        self._output = original.output
        difference = 0.0
        for rewritten in (True, False) if self.options.rewrite else (False,):
            self._sessions = [
                open_session(graph, provider=provider, intra_threads=threads)
                for graph in _cut(files, self.heads, original.output, rewritten=rewritten)
            ]
            difference = self._difference(original)
            if difference <= verify.TOLERANCE:
                return
        message = (
            f"model {files.name!r}: its segments' scores differ from the whole graph's by "
            f"{difference:.1e} of their spread; use it without exits"
        )
        raise ModelError(message)

    @property
    def shorter(self) -> bool:
        """True if pairs are cut shorter than the options say."""
        return self.max_tokens < self._most_tokens

    def shortened(self, max_tokens: int) -> "SegmentedModel":
        """Return the same model, sessions shared, for pairs of fewer tokens: passages are cut."""
        made = copy.copy(self)
        made.max_tokens = min(max_tokens, self.max_tokens)
        made.options = replace(self.options, long="truncate")
        return made

    def room(self, query: Ids) -> int:
        """Count the passage tokens beside a query. Raises `InvalidRequest` if the model has none.

        Where pairs are shortened a long query still leaves room for a few.
        """
        room = self.tokenizer.room(query, self._most_tokens)
        if not self.shorter:
            return room
        left = self.max_tokens - self.tokenizer.template.special_tokens - len(query)
        return min(room, max(MIN_WINDOW_TOKENS, left))

    def __len__(self) -> int:
        return len(self._sessions)

    def run(self, segment: int, arrays: PairArrays, hidden: Floats | None) -> SegmentOutput:
        """Run a segment on a batch; `hidden` is what the segment before gave."""
        session = self._sessions[segment]
        feeds = {
            value.name: as_declared(getattr(arrays, value.name), value.type)
            if value.name in KNOWN_INPUTS
            else hidden
            for value in session.get_inputs()
        }
        names = [value.name for value in session.get_outputs()]
        try:
            values = dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:
            message = (
                f"model {self.files.name!r} failed in segment {segment} on "
                f"{arrays.input_ids.shape}: {error}"
            )
            raise ModelError(message) from error
        if segment == len(self.heads):
            columns = score_columns(values[self._output], len(arrays.input_ids))
            return SegmentOutput(self._logits(columns), None)
        head = self.heads[segment]
        scores = None
        if head.kind == "output":
            columns = np.asarray(values[head.output], np.float32).reshape(len(arrays.input_ids), -1)
            scores = head.gain * columns[:, -1] + np.float32(head.offset)
        return SegmentOutput(scores, values[head.hidden])

    def scores(self, arrays: PairArrays) -> Floats:
        """Score a batch [pairs] by all segments, each continuing from the one before."""
        output = SegmentOutput(None, None)
        for segment in range(len(self)):
            output = self.run(segment, arrays, output.hidden)
        return np.zeros(0, np.float32) if output.scores is None else output.scores

    def _logits(self, columns: Floats) -> Floats:
        return single_column(columns, self._column, self.files.name, self._labels)

    def _difference(self, original: Graph) -> float:
        """Return the largest score difference to the whole graph, as a share of the spread."""
        batches = verify.probes(self.tokenizer, self.max_tokens)
        expected = [self._logits(original.run(batch)) for batch in batches]
        found = [self.scores(batch) for batch in batches]
        return verify.difference(
            np.concatenate(expected, dtype=np.float64), np.concatenate(found, dtype=np.float64)
        )


def layers(files: ModelFiles) -> Mapping[int, str]:
    """Return the layers after which a model can be cut, with the name of the hidden state."""
    from ..onnx.graph.read import load
    from ..onnx.graph.segments import cut_points

    model = load(files.graph_file)
    found = cut_points(model, score_output([value.name for value in model.graph.output]))
    return {layer: found.after(layer) for layer in sorted(set(found.layers))}


def heads_at(files: ModelFiles, wanted: Sequence[int] | None = None) -> tuple[Head, ...]:
    """Return heads after the layers `wanted`: the model's own if it has them, else probes.

    None takes the layers on the model's card or, without any, a third and two thirds of all.
    Probes are still to be fitted; after layer 0 tokens are compared. Raises `ConfigError`.
    """
    listed = card_heads(files.card)
    own = {head.layer: head for head in listed if head.kind == "output"}
    known = {head.layer: head.hidden for head in listed}
    if wanted is None and known:
        wanted = sorted(known)
    cuts = layers(files) if wanted is None or not set(wanted) <= known.keys() else {}
    if wanted is None:
        last = max(cuts)
        wanted = sorted({max(1, round(last / 3)), max(1, round(2 * last / 3))})
    cuts = {**cuts, **known}
    missing = [layer for layer in wanted if layer not in cuts]
    if missing:
        message = f"no exit after layers {missing}; this model can be cut after {sorted(cuts)}"
        raise ConfigError(message)
    return tuple(
        own.get(layer) or Head(layer, cuts[layer], "probe" if layer else "similarity")
        for layer in wanted
    )


def _cut(files: ModelFiles, heads: Sequence[Head], output: str, *, rewritten: bool) -> list[bytes]:
    from ..onnx.graph.read import load
    from ..onnx.graph.rewrite import rewrite
    from ..onnx.graph.segments import segments

    model = load(files.graph_file)
    hidden = [head.hidden for head in heads]
    outputs = [[head.output] if head.kind == "output" else [] for head in heads] + [[output]]
    if rewritten:
        rewrite(model, [*hidden, *(name for names in outputs for name in names)])
    return [part.SerializeToString() for part in segments(model, hidden, outputs)]
