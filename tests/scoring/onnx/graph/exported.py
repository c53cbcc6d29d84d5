"""Tiny encoders as torch's exporters write them, and batches to run them on."""

from pathlib import Path

import numpy as np

from rerank_plugins.scoring.text.tokenizer import PairArrays

FOLDER = Path(__file__).parents[3] / "data" / "graphs"
POST_NORM = sorted(path.stem for path in FOLDER.glob("[!m]*.onnx"))


def batches() -> tuple[PairArrays, ...]:
    """Make batches of several sizes and lengths; one has padding."""
    random = np.random.default_rng(0)
    made = []
    for pairs, length in ((1, 4), (3, 17), (2, 40)):
        ids = random.integers(5, 40, (pairs, length))
        mask = np.ones_like(ids)
        if pairs > 2:
            mask[1, length // 2 :] = 0
            ids[1, length // 2 :] = 1
        types = np.zeros_like(ids)
        types[:, length // 3 :] = 1
        made.append(PairArrays(ids, mask, types))
    return tuple(made)
