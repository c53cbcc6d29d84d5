"""How close an exported model's scores are to those that they should equal, on real pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..exits.segmented_model import SegmentedModel
from ..onnx.graph.verify import difference, probes
from ..onnx.options import OnnxOptions, labels, score_column
from ..onnx.session import open_graph, single_column

# Rounding: torch and ONNX Runtime add up in different orders.
ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Parity:
    """How close scores are.

    difference: the largest one, as a share of the expected scores' spread.
    same_order: True if all pairs further apart than rounding rank alike.
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
    before, after = (_keys(scores)[:, None] - _keys(scores) for scores in (wanted, given))
    distinct = before > ROUNDING * max(float(_keys(wanted).std()), 1e-12)
    return Parity(len(wanted), difference(wanted, given), bool((after[distinct] > 0.0).all()))


def of_segments(model: SegmentedModel) -> Parity:
    """Compare a model cut into segments, no candidate dropped, with its whole graph."""
    whole = open_graph(model.files.graph_file, literal=True)
    column = score_column(OnnxOptions(), model.files)
    batches = probes(model.tokenizer, model.max_tokens)
    named = labels(model.files)
    expected = [
        single_column(whole.run(batch), column, model.files.name, named) for batch in batches
    ]
    found = [model.scores(batch) for batch in batches]
    return between([scores[:, None] for scores in expected], [scores[:, None] for scores in found])


def _keys(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what orders pairs: the difference of two columns, else the last column."""
    two = columns.shape[1] == 2  # noqa: PLR2004 - irrelevant, relevant
    return columns[:, 1] - columns[:, 0] if two else columns[:, -1]
