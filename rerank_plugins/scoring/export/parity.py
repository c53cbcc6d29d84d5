"""How close two ways of computing a model's scores are, on the same pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..exits.segmented_model import Trunk
from ..onnx.graph.verify import probes
from ..onnx.options import OnnxOptions, score_column
from ..onnx.session import open_graph, single_column

# fp32 kernels differ in the order of their sums, and no more than that.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Parity:
    """How scores compare with those they should equal, on real pairs.

    `difference` is the largest one, as a share of the expected scores' spread; `same_order` tells
    whether all that are further apart than rounding rank alike.
    """

    pairs: int
    difference: float
    same_order: bool


def between(
    expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]
) -> Parity:
    """Compare batches of scores [pairs, columns]."""
    wanted = np.concatenate(expected).astype(np.float64)
    given = np.concatenate(found).astype(np.float64)
    spread = np.maximum(wanted.std(axis=0), 1e-12)
    difference = float((np.abs(wanted - given) / spread).max())
    before, after = (_keys(scores)[:, None] - _keys(scores) for scores in (wanted, given))
    apart = before > TOLERANCE * max(float(_keys(wanted).std()), 1e-12)
    return Parity(len(wanted), difference, bool((after[apart] > 0.0).all()))


def of_segments(trunk: Trunk) -> Parity:
    """Compare a model that is cut into segments, everyone kept, with its whole graph."""
    whole = open_graph(trunk.files.graph, literal=True)
    column = score_column(OnnxOptions(), trunk.files)
    batches = probes(trunk.tokenizer, trunk.max_tokens)
    expected = [single_column(whole.run(one), column, trunk.files.name)[:, None] for one in batches]
    return between(expected, [trunk.scores(one)[:, None] for one in batches])


def _keys(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what orders: of two columns their difference, else the last one."""
    two = columns.shape[1] == 2  # noqa: PLR2004 - irrelevant, relevant
    return columns[:, 1] - columns[:, 0] if two else columns[:, -1]
