"""What an exit hands to the next one: hidden states of pairs, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...rules.batching import Batch
from .. import State
from ..text import pairs
from ..text.pairs import Pairs

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hidden:
    """Hidden states of pairs between two segments, `place` being the next one.

    `rows` holds [length, width] per pair, views of the batches that made them; `scores` what the
    exit gave each pair, `ranks` each candidate's place in first-stage order.
    """

    origin: str
    place: int
    laid: Pairs
    rows: tuple[Floats, ...]
    scores: Floats
    ranks: NDArray[np.int64]

    def take(self, places: Sequence[int]) -> "Hidden":
        """Give the state of the survivors, in the order of `places`."""
        laid, chosen = pairs.subset(self.laid, places)
        return replace(
            self,
            laid=laid,
            rows=tuple(self.rows[i] for i in chosen),
            scores=self.scores[chosen],
            ranks=self.ranks[list(places)],
        )

    def join(self, others: Sequence[State]) -> "Hidden":
        """Put the rows of `others`, which have the same origin, behind these."""
        parts = [self, *(one for one in others if isinstance(one, Hidden))]
        before = np.cumsum([0, *(int(part.ranks.max(initial=-1)) + 1 for part in parts[:-1])])
        return replace(
            self,
            laid=pairs.join([part.laid for part in parts]),
            rows=tuple(row for part in parts for row in part.rows),
            scores=np.concatenate([part.scores for part in parts]),
            ranks=np.concatenate([p.ranks + start for p, start in zip(parts, before, strict=True)]),
        )


def gather(rows: Sequence[Floats], batch: Batch) -> Floats:
    """Bring hidden states into one batch [pairs, length, width]; what is padding is zero.

    Rows that already lie side by side, as when all survive, are handed over without a copy.
    """
    base = rows[0].base
    if (
        base is not None
        and base.shape[:2] == (len(rows), batch.length_tokens)
        and all(row.base is base and _offset(row, base) == i for i, row in enumerate(rows))
    ):
        return base
    out = np.zeros((len(rows), batch.length_tokens, rows[0].shape[1]), dtype=np.float32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def _offset(row: Floats, base: Floats) -> int:
    """Say which row of `base` a view is."""
    start = row.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return int(start // base.strides[0])
