"""One model cut into segments: each continues where the one before it stopped."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ModelError
from ..models.files import ModelFiles
from ..onnx.decoder import prompt_of
from ..onnx.graph.verify import TOLERANCE, probes
from ..onnx.options import OnnxOptions, checked, identity, score_column, usable_tokens
from ..onnx.session import Graph, open_graph, open_session, score_output, single_column
from ..text.pairs import MIN_WINDOW_TOKENS
from ..text.tokenizer import Ids, PairArrays, PairTokenizer
from .heads import Head, listed

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """What a segment gives for a batch: scores [pairs] where it has any, hidden [pairs, L, H]."""

    scores: Floats | None
    hidden: Floats | None


class Trunk:
    """The segments of a model, cut after the layers of `heads`; loaded and checked when made.

    Segments are cut from the rewritten graph where that gives the model's scores, else from the
    graph as it was exported. Raises `ModelError` where neither does.
    """

    def __init__(
        self, files: ModelFiles, heads: Sequence[Head], options: OnnxOptions | None = None
    ) -> None:
        self.files = files
        self.heads = tuple(heads)
        self.options = checked(options or OnnxOptions(), files)
        self.tokenizer = PairTokenizer(files.tokenizer, cache_bytes=self.options.token_cache_bytes)
        self.max_tokens = self._most_tokens = self.options.max_tokens or usable_tokens(files)
        if prompt_of(files, self.options.template, self.options.instruction) is not None:
            message = (
                f"model {files.name!r} is asked by a prompt; only encoders of pairs have exits"
            )
            raise ModelError(message)
        self.origin = identity(self.options, files)
        self._column = score_column(self.options, files)
        provider, threads = self.options.provider, self.options.intra_threads
        original = open_graph(files.graph, provider=provider, intra_threads=threads, literal=True)
        self._output = original.output
        tries = (True, False) if self.options.rewrite else (False,)
        apart = 0.0
        for rewritten in tries:
            self._sessions = [
                open_session(one, provider=provider, intra_threads=threads)
                for one in _cut(files, self.heads, original.output, rewritten=rewritten)
            ]
            apart = self._difference(original)
            if apart <= TOLERANCE:
                return
        message = (
            f"model {files.name!r}: its segments' scores differ from the whole graph's by "
            f"{apart:.1e} of their spread; use it without exits"
        )
        raise ModelError(message)

    @property
    def short(self) -> bool:
        """Tell whether pairs are cut shorter than the options say."""
        return self.max_tokens < self._most_tokens

    def shortened(self, max_tokens: int) -> "Trunk":
        """Give the same trunk, sessions shared, for pairs of fewer tokens: passages are cut."""
        made = copy.copy(self)
        made.max_tokens = min(max_tokens, self.max_tokens)
        made.options = replace(self.options, long="truncate")
        return made

    def room(self, query: Ids) -> int:
        """Count the passage tokens beside a query. Raises `InvalidRequest` if the model has none.

        Where pairs are shortened a long query still leaves room for a few.
        """
        room = self.tokenizer.room(query, self._most_tokens)
        if not self.short:
            return room
        left = self.max_tokens - self.tokenizer.template.special_tokens - len(query)
        return min(room, max(MIN_WINDOW_TOKENS, left))

    def __len__(self) -> int:
        return len(self._sessions)

    def run(self, place: int, arrays: PairArrays, hidden: Floats | None) -> Step:
        """Run segment `place` on a batch; `hidden` is what the segment before gave."""
        session = self._sessions[place]
        feeds: dict[str, object] = {}
        for name in (one.name for one in session.get_inputs()):
            known = name in {"input_ids", "attention_mask", "token_type_ids"}
            value = getattr(arrays, name) if known else hidden
            feeds[name] = value
        names = [one.name for one in session.get_outputs()]
        try:
            values = dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:
            message = (
                f"model {self.files.name!r} failed in segment {place} on "
                f"{arrays.input_ids.shape}: {error}"
            )
            raise ModelError(message) from error
        if place == len(self.heads):
            columns = np.asarray(values[self._output], dtype=np.float32)
            columns = columns[:, None] if columns.ndim == 1 else columns
            return Step(single_column(columns, self._column, self.files.name), None)
        head = self.heads[place]
        scores = None
        if head.kind == "output":
            own = np.asarray(values[head.output], dtype=np.float32).reshape(
                len(arrays.input_ids), -1
            )
            scores = head.gain * own[:, -1] + np.float32(head.offset)
        return Step(scores, values[head.hidden])

    def scores(self, arrays: PairArrays) -> Floats:
        """Score a batch [pairs] by all segments, each going on from the one before."""
        step = Step(None, None)
        for place in range(len(self._sessions)):
            step = self.run(place, arrays, step.hidden)
        return np.zeros(0, np.float32) if step.scores is None else step.scores

    def _difference(self, original: Graph) -> float:
        """Give the largest score difference to the whole graph, as a share of the spread."""
        expected: list[float] = []
        found: list[float] = []
        for batch in probes(self.tokenizer, self.max_tokens):
            expected += single_column(original.run(batch), self._column, "").tolist()
            found += self.scores(batch).tolist()
        if not np.isfinite(found).all():
            return float("inf")
        spread = max(float(np.std(expected)), 1e-3 * float(np.abs(expected).max()), 1e-30)
        return float(np.abs(np.subtract(expected, found)).max()) / spread


def layers(files: ModelFiles) -> Mapping[int, str]:
    """Say after which layers a model can be cut, and name the hidden state there."""
    import onnx

    from ..onnx.graph.segments import narrows

    model = onnx.load(str(files.graph))
    found = narrows(model, score_output([one.name for one in model.graph.output]))
    return {layer: found.after(layer) for layer in sorted(set(found.layers))}


def heads_at(files: ModelFiles, wanted: Sequence[int] | None = None) -> tuple[Head, ...]:
    """Name heads after the layers `wanted`: the model's own where it has them, probes elsewhere.

    None takes the layers on the model's card or, without any, after one and two thirds. Probes are
    still to be fitted; after layer 0 tokens are compared. Raises `ConfigError`.
    """
    own = {head.layer: head for head in listed(files.card) if head.kind == "output"}
    known = {head.layer: head.hidden for head in listed(files.card)}
    if wanted is None and known:
        wanted = sorted(known)
    cuts = layers(files) if wanted is None or not set(wanted) <= known.keys() else {}
    if wanted is None:
        last = max(cuts)
        wanted = sorted({max(1, round(last / 3)), max(1, round(2 * last / 3))})
    places = {**cuts, **known}
    missing = [layer for layer in wanted if layer not in places]
    if missing:
        message = f"no exit after layers {missing}; this model can be cut after {sorted(places)}"
        raise ConfigError(message)
    return tuple(
        own.get(layer) or Head(layer, places[layer], "probe" if layer else "similarity")
        for layer in wanted
    )


def _cut(files: ModelFiles, heads: Sequence[Head], output: str, *, rewritten: bool) -> list[bytes]:
    import onnx

    from ..onnx.graph.rewrite import rewrite
    from ..onnx.graph.segments import segments

    model = onnx.load(str(files.graph))
    hidden = [head.hidden for head in heads]
    outputs = [[head.output] if head.kind == "output" else [] for head in heads] + [[output]]
    if rewritten:
        rewrite(model, [*hidden, *(name for names in outputs for name in names)])
    return [one.SerializeToString() for one in segments(model, hidden, outputs)]
