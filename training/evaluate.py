"""Score judged sets with a model and turn scores into measures."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from . import judged
from .model import EXITS, MAX_TOKENS, CrossEncoder
from .pairs import SPECIALS, collate, ragged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .judged import JudgedQuery


@torch.no_grad()
def score(
    model: CrossEncoder,
    queries: Sequence[str],
    passages: Sequence[Sequence[str]],
    *,
    max_tokens: int = 256,
    batch_tokens: int = 8_192,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cpu",
    quiet: bool = True,
) -> list[np.ndarray]:
    """Return scores [candidates, exits] per query; pairs are scored in batches of similar length.

    Passages are cut at `max_tokens`; queries are not, short of half the model's window.
    """
    running = copy.deepcopy(model).to(device).eval()
    running.embeddings.to(dtype)
    running.layers.to(dtype)
    running.bridges.to(dtype)
    texts = sorted({text for group in passages for text in group})
    place = {text: i for i, text in enumerate(texts)}
    ids_q = ragged(queries, MAX_TOKENS // 2 - SPECIALS)
    ids_p = ragged(texts, min(max_tokens, MAX_TOKENS // 2))
    pairs = [(i, place[text]) for i, group in enumerate(passages) for text in group]
    sizes_q, sizes_p = np.diff(ids_q.starts), np.diff(ids_p.starts)
    lengths = np.array([sizes_q[q] + sizes_p[p] + SPECIALS for q, p in pairs])
    order = np.argsort(-lengths, kind="stable")
    scores = np.zeros((len(pairs), len(EXITS)), np.float32)
    start, bar = 0, tqdm(total=len(pairs), desc="score", unit="pair", disable=quiet, mininterval=15)
    while start < len(order):
        picked = order[start : start + max(1, batch_tokens // int(lengths[order[start]]))]
        lines_q = [ids_q.line(pairs[i][0], MAX_TOKENS) for i in picked]
        lines_p = [ids_p.line(pairs[i][1], MAX_TOKENS) for i in picked]
        inputs = (part.to(device) for part in collate(lines_q, lines_p))
        scores[picked] = running(*inputs).float().cpu().numpy()
        bar.update(len(picked))
        start += len(picked)
    bar.close()
    ends = np.cumsum([len(group) for group in passages])
    return np.split(scores, ends[:-1])


def sample(root: Path, *, queries: int, depth: int, seed: int = 0) -> dict[str, list[JudgedQuery]]:
    """Return at most `queries` queries of every judged set, the same ones for the same seed."""
    chosen = {}
    for name in judged.SETS:
        found = judged.read(root, name, depth=depth)
        random.Random(seed).shuffle(found)
        chosen[name] = found[:queries]
    return chosen


def quick(
    model: CrossEncoder, sets: Mapping[str, list[JudgedQuery]], *, max_tokens: int = 192
) -> dict[str, float]:
    """Return mean nDCG@10 per exit and per set (last exit), and of the last exit fused with the first stage."""
    rows: dict[str, list[np.ndarray]] = {}
    for name, queries in sets.items():
        found = score(
            model, [q.text for q in queries], [q.passages for q in queries], max_tokens=max_tokens
        )
        for query, scores in zip(queries, found, strict=True):
            prior = judged.standardise(np.array(query.prior))
            fused = judged.standardise(scores[:, -1]) + 0.4 * prior
            columns = [*scores.T, fused, np.array(query.prior)]
            rows.setdefault(name, []).append(np.array([judged.ndcg_of(query, c) for c in columns]))
    means = {name: np.mean(values, 0) for name, values in rows.items()}
    overall = np.mean(list(means.values()), 0)
    names = ("exit_2", "exit_4", "final", "fused", "bm25")
    out = {name: round(float(value), 4) for name, value in zip(names, overall, strict=True)}
    return out | {f"final:{name}": round(float(value[2]), 4) for name, value in means.items()}
