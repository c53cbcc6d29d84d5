"""Hard negatives and teacher scores: one list of candidates per query, from all sources together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import Stemmer
from tqdm import tqdm

from .judged import standardise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

K1, B = 0.9, 0.4


@dataclass(frozen=True, slots=True)
class Plan:
    """How many candidates of each kind a query's list holds, besides its positive."""

    dense: int = 24
    lexical: int = 16
    middle: int = 14
    random: int = 9

    @property
    def width(self) -> int:
        """Length of every list, the positive included."""
        return 1 + self.dense + self.lexical + self.middle + self.random


@dataclass(frozen=True, slots=True)
class Weights:
    """The teacher: weights of the standardised signals, and the bonus of the labelled positive."""

    dense: float = 1.0
    lexical: float = 0.25
    label: float = 1.5


def lexical_index(passages: Sequence[str]) -> tuple[bm25s.BM25, Stemmer.Stemmer]:
    """Return a BM25 index with stemming and the stemmer that queries need."""
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25(k1=K1, b=B)
    index.index(
        bm25s.tokenize(list(passages), stemmer=stemmer, show_progress=False), show_progress=False
    )
    return index, stemmer


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    part = np.argpartition(-scores, count)[:count]
    return part[np.argsort(-scores[part])]


def _candidates(
    positive: int, signals: Mapping[str, np.ndarray], plan: Plan, rng: np.random.Generator
) -> list[int]:
    """Return `plan.width` distinct passages: the positive first, then hard to easy."""
    dense = _top(signals["dense"], 300)
    pools = (
        (dense, plan.dense),
        (_top(signals["lexical"], 60), plan.lexical),
        (rng.permutation(dense[plan.dense :]), plan.middle),
        (rng.integers(len(signals["dense"]), size=100), plan.random),
    )
    chosen, taken = [positive], {positive}
    for pool, count in pools:
        fresh = list(dict.fromkeys(int(i) for i in pool if i not in taken))[:count]
        chosen += fresh
        taken.update(fresh)
    return chosen


def mine(
    queries: Sequence[str],
    positives: Sequence[int],
    passages: Sequence[str],
    embeddings: tuple[np.ndarray, np.ndarray],
    *,
    plan: Plan,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return candidates [queries, width] and their standardised signals [queries, width].

    `embeddings`: the encoder's unit rows of queries and of passages.
    """
    index, stemmer = lexical_index(passages)
    rng = np.random.default_rng(seed)
    shape = (len(queries), plan.width)
    out = {name: np.zeros(shape, np.float16) for name in ("dense", "lexical")}
    out["candidates"] = np.zeros(shape, np.int32)
    out["raw"] = np.zeros(shape, np.float16)
    rows, columns = embeddings[0].astype(np.float32), embeddings[1].astype(np.float32).T
    tokens = bm25s.tokenize(list(queries), stemmer=stemmer, show_progress=False, return_ids=False)
    for start in tqdm(range(0, len(queries), 256), desc="mine", unit="256 queries", mininterval=10):
        stop = min(start + 256, len(queries))
        block = rows[start:stop] @ columns
        for i in range(start, stop):
            known = [token for token in tokens[i] if token in index.vocab_dict]
            lexical = index.get_scores(known) if known else np.zeros(len(passages), np.float32)
            signals = {"dense": block[i - start], "lexical": lexical}
            chosen = _candidates(positives[i], signals, plan, rng)
            out["candidates"][i] = chosen
            out["raw"][i] = signals["dense"][chosen]
            for name, signal in signals.items():
                out[name][i] = standardise(signal[chosen])
    return out


def teacher_scores(mined: Mapping[str, np.ndarray], weights: Weights) -> np.ndarray:
    """Return the teacher's scores [queries, width]: weighted, standardised again, label bonus on column 0."""
    mixed = weights.dense * mined["dense"].astype(np.float32)
    mixed += weights.lexical * mined["lexical"].astype(np.float32)
    mixed = (mixed - mixed.mean(1, keepdims=True)) / mixed.std(1, keepdims=True)
    mixed[:, 0] += weights.label
    return mixed


def false_negatives(mined: Mapping[str, np.ndarray], *, margin: float = 0.03) -> np.ndarray:
    """Return a mask [queries, width] of candidates that may answer as well as the positive.

    Dropped are those more similar to the query than the positive less `margin`, unless the
    positive is itself so dissimilar (below .3) that the encoder does not understand the pair.
    """
    cosine = mined["raw"].astype(np.float32)
    above = (cosine > cosine[:, :1] - margin) & (cosine[:, :1] > 0.3)
    above[:, 0] = False
    return above
