"""Judged sets: read them, measure an order, compare two orders."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BEIR = ("scifact", "tatqa", "cosqa", "cranfield", "cacm", "cisi", "medline", "lisa", "vaswani")
SETS = (*BEIR, "trec-dl19")


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query with the first stage's candidates, best first, and all its judgements."""

    qid: str
    text: str
    candidates: tuple[str, ...]
    prior: tuple[float, ...]
    passages: tuple[str, ...]
    judgements: dict[str, int]


def read(root: Path, name: str, *, depth: int = 100) -> list[JudgedQuery]:
    """Return the queries of one judged set that have a positive judgement."""
    queries = (
        _read_dl19(root / name, depth) if name == "trec-dl19" else _read_beir(root / name, depth)
    )
    return [query for query in queries if any(grade > 0 for grade in query.judgements.values())]


def _lines(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _read_beir(folder: Path, depth: int) -> list[JudgedQuery]:
    texts = {
        str(row["_id"]): f"{row.get('title') or ''} {row['text']}".strip()
        for row in _lines(folder / "corpus.jsonl")
    }
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        qid, docid, grade = line.split("\t")
        judgements.setdefault(qid, {})[docid] = int(grade)
    hits: dict[str, list[tuple[str, float]]] = {}
    for line in (folder / "candidates" / "bm25_top100.trec").read_text().splitlines():
        qid, _, docid, _, score, _ = line.split()
        hits.setdefault(qid, []).append((docid, float(score)))
    return [
        JudgedQuery(
            qid := str(row["_id"]),
            str(row["text"]),
            tuple(docid for docid, _ in hits.get(qid, [])[:depth]),
            tuple(score for _, score in hits.get(qid, [])[:depth]),
            tuple(texts[docid] for docid, _ in hits.get(qid, [])[:depth]),
            judgements.get(qid, {}),
        )
        for row in _lines(folder / "queries.jsonl")
    ]


def _read_dl19(folder: Path, depth: int) -> list[JudgedQuery]:
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.txt").read_text().splitlines():
        qid, _, docid, grade = line.split()
        judgements.setdefault(qid, {})[docid] = int(grade)
    queries = []
    for row in _lines(folder / "rerank" / "BM25.jsonl"):
        candidates = row["candidates"][:depth]  # type: ignore[index]
        queries.append(
            JudgedQuery(
                str(row["qid"]),
                str(row["query"]),
                tuple(str(hit["docid"]) for hit in candidates),
                tuple(float(hit["score"]) for hit in candidates),
                tuple(str(hit["text"]) for hit in candidates),
                judgements.get(str(row["qid"]), {}),
            )
        )
    return queries


def ndcg(order: Sequence[str], judgements: Mapping[str, int], *, cut: int = 10) -> float:
    """Return nDCG with linear gain over all judgements, as trec_eval computes it.

    >>> round(ndcg(["b", "a"], {"a": 1}), 4)
    0.6309
    """
    gains = [max(judgements.get(docid, 0), 0) for docid in order[:cut]]
    ideal = sorted((max(grade, 0) for grade in judgements.values()), reverse=True)[:cut]
    best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(ideal))
    return (
        sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains)) / best if best else 0.0
    )


def ndcg_of(query: JudgedQuery, scores: np.ndarray, *, cut: int = 10) -> float:
    """Return nDCG of the candidates ordered by scores [candidates]; ties keep first-stage order."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return ndcg([query.candidates[i] for i in order], query.judgements, cut=cut)


def standardise(values: np.ndarray) -> np.ndarray:
    """Return values [n] with mean 0 and standard deviation 1 (0 where all are equal).

    >>> standardise(np.array([1.0, 3.0])).tolist()
    [-1.0, 1.0]
    """
    values = np.asarray(values, dtype=np.float64)
    spread = float(values.std()) if values.size else 0.0
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def bootstrap(
    differences: Sequence[float], *, rounds: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences, resampling queries."""
    values = np.asarray(differences, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)
