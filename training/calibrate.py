"""Turn scores into probabilities: Platt's two parameters per exit, and the error they leave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from .evaluate import score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .card import Scored
    from .model import CrossEncoder

EXIT_NAMES = ("exit_2", "exit_4", "final")


def probability(scores: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return sigmoid(a * score + b).

    >>> float(probability(np.array(0.0), 1.0, 0.0))
    0.5
    """
    return 1 / (1 + np.exp(-(a * scores + b)))


def platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return a and b that maximise the likelihood, with Platt's smoothed targets (Platt 1999)."""
    from scipy.optimize import minimize

    hits, misses = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def loss(ab: np.ndarray) -> float:
        z = ab[0] * scores + ab[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    found = minimize(
        loss,
        np.array([1.0, -float(scores.mean())]),
        method="Nelder-Mead",
        options={"maxiter": 2_000},
    )
    return float(found.x[0]), float(found.x[1])


def error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal count (Naeini et al. 2015)."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, bins)
    gaps = [abs(probabilities[p].mean() - labels[p].mean()) * len(p) for p in parts if len(p)]
    return float(sum(gaps) / len(probabilities))


def _held_out_pairs(data: Path, negatives: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Return held-out queries, each with its positive and mined candidates that are no false negatives."""
    from .mining import false_negatives

    rows = [json.loads(line) for line in (data / "queries.jsonl").open(encoding="utf-8")]
    texts = [json.loads(line)["text"] for line in (data / "passages.jsonl").open(encoding="utf-8")]
    with np.load(data / "mined.npz") as file:
        mined = {name: file[name] for name in file.files}
    dropped = false_negatives(mined)
    rng = np.random.default_rng(seed)
    queries, groups = [], []
    for i in [i for i, row in enumerate(rows) if row["held_out"]]:
        usable = np.flatnonzero(~dropped[i][1:]) + 1
        columns = [0, *rng.choice(usable, min(negatives, len(usable)), replace=False)]
        queries.append(rows[i]["query"])
        groups.append([texts[int(c)] for c in mined["candidates"][i, columns]])
    return queries, groups


def held_out(
    model: CrossEncoder, data: Path, *, negatives: int = 9, queries: int = 400, seed: int = 0
) -> dict[str, object]:
    """Fit on half of the held-out queries, measure on the other half; the first pair of a group is the right one."""
    texts, groups = _held_out_pairs(data, negatives, seed)
    texts, groups = texts[:queries], groups[:queries]
    found = score(model, texts, groups, max_tokens=192)
    half = len(found) // 2
    out: dict[str, object] = {
        "method": "platt",
        "formula": "probability = sigmoid(a * score + b)",
        "pairs": f"{len(found)} held-out training queries, the right passage and up to {negatives} mined ones each; fitted on half, measured on half",
    }
    for column, name in enumerate(EXIT_NAMES):
        fit = _flat(found[:half], column)
        test = _flat(found[half:], column)
        a, b = platt(*fit)
        out[name] = {
            "a": round(a, 5), "b": round(b, 5),
            "ece_before": round(error(probability(test[0], 1.0, 0.0), test[1]), 4),
            "ece_after": round(error(probability(test[0], a, b), test[1]), 4),
        }  # fmt: skip
    return out | {key: out["final"][key] for key in ("a", "b")}  # type: ignore[index]


def _flat(found: Sequence[np.ndarray], column: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([scores[:, column] for scores in found])
    labels = np.concatenate([np.eye(1, len(scores))[0] for scores in found])
    return scores, labels


def judged_error(
    scored: Mapping[str, list[Scored]], a: float, b: float
) -> dict[str, dict[str, float]]:
    """Return, per judged set, the mean probability of the candidates, the share that is relevant, and the error."""
    out = {}
    for name, rows in scored.items():
        p = probability(np.concatenate([r.exits[:, 2] for r in rows]), a, b)
        y = np.concatenate(
            [[float(r.query.judgements.get(d, 0) > 0) for d in r.query.candidates] for r in rows]
        )
        out[name] = {
            "mean_probability": round(float(p.mean()), 4),
            "share_relevant": round(float(y.mean()), 4),
            "ece": round(error(p, y), 4),
        }
    return out
