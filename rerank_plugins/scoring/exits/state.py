"""What an exit hands to the next one: hidden states of pairs, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...rules.batching import Batch
from .. import Floats
from ..onnx.pair_scoring import Computed
from ..text import pairs as text_pairs
from ..text.pairs import Pairs


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """Hidden states of pairs between two segments of a model.

    origin: the model, its weights included
    segment: the index of the segment that comes next
    rows: per pair [length, width], views of the batches that were computed
    scores: per pair, what the last exit gave
    ranks: per candidate, its place in first-stage order, from 0
    """

    origin: str
    segment: int
    pairs: Pairs
    rows: tuple[Floats, ...]
    scores: Floats
    ranks: NDArray[np.int64]

    def take(self, places: Sequence[int]) -> "HiddenStates":
        """Return the state of the survivors, in the order of `places`."""
        pairs, chosen = text_pairs.subset(self.pairs, places)
        return replace(
            self,
            pairs=pairs,
            rows=tuple(self.rows[i] for i in chosen),
            scores=self.scores[chosen],
            ranks=self.ranks[list(places)],
        )


def from_batches(
    computed: Computed, origin: str, segment: int, ranks: NDArray[np.int64]
) -> HiddenStates:
    """Return the hidden states of the batches that ran, per pair, for the next `segment`."""
    pairs = computed.pairs
    rows: list[Floats] = [np.zeros((0, 0), np.float32)] * len(pairs.ids)
    scores = np.zeros(len(pairs.ids), dtype=np.float32)
    for batch, output in zip(computed.batches, computed.outputs, strict=True):
        if output is None or output.hidden is None:
            continue
        scores[list(batch.pairs)] = output.scores
        for row, pair in enumerate(batch.pairs):
            rows[pair] = output.hidden[row, : int(pairs.lengths[pair])]
    return HiddenStates(origin, segment, pairs, tuple(rows), scores, ranks)


def gather(rows: Sequence[Floats], batch: Batch) -> Floats:
    """Bring hidden states into one batch [pairs, length, width]; padding is zero.

    Rows that already lie side by side, as when all survive, are handed over without a copy.
    """
    base = rows[0].base
    if (
        base is not None
        and base.shape[:2] == (len(rows), batch.length_tokens)
        and all(row.base is base and _index_in(base, row) == i for i, row in enumerate(rows))
    ):
        return base
    out = np.zeros((len(rows), batch.length_tokens, rows[0].shape[1]), dtype=np.float32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def _index_in(base: Floats, row: Floats) -> int:
    """Return which row of `base` a view is."""
    start = row.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return int(start // base.strides[0])
