"""The queries of the adaptive benchmark: their candidates, and what was judged of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.adaptive.exits.collect import Question
from rerank_plugins.evaluation import datasets
from rerank_plugins.evaluation.datasets import Dataset, Topic
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel

CALIBRATION = "trec-dl22"


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a set, its distinct candidates, and what was judged of them."""

    collection: str
    question: Question
    docids: tuple[str, ...]
    relevances: Mapping[str, int]


def collections(folder: Path) -> list[str]:
    """List the sets that are there, the calibration set first."""
    names = sorted(one.name for one in folder.iterdir() if one.is_dir())
    return sorted(names, key=lambda name: name != CALIBRATION)


def read(folder: Path, name: str, *, run: str = "BM25") -> Dataset:
    """Read a set with one retriever's candidates."""
    runs = [folder / name / "rerank" / f"{run}.jsonl", *(folder / name).glob("candidates/*.trec")]
    return datasets.read(folder / name, run=next(one for one in runs if one.is_file()))


def asked(
    folder: Path, name: str, model: SegmentedModel, *, sample: int, seed: int = 0
) -> list[Asked]:
    """Draw queries of a set, with their first 100 candidates; none that takes half of a pair."""
    found = read(folder, name)
    most = model.max_tokens // 2
    short = tuple(one for one in found.topics if len(model.tokenizer.query(one.query)) <= most)
    found = replace(found, topics=short)
    chosen = datasets.subset(found, n=sample, seed=seed, depth=100)
    return [_asked(name, topic, found.qrels.get(topic.qid, {})) for topic in chosen.topics]


def _asked(name: str, topic: Topic, relevances: Mapping[str, int]) -> Asked:
    seen: dict[str, int] = {}
    for place, one in enumerate(topic.candidates):
        if one.text and one.text.strip():
            seen.setdefault(one.text, place)
    places = list(seen.values())
    priors = tuple(topic.candidates[i].prior or 0.0 for i in places)
    docids = tuple(topic.docids[i] for i in places)
    return Asked(name, Question(topic.query, tuple(seen), priors), docids, relevances)


def ndcg(order: Sequence[int] | NDArray[np.intp], query: Asked, k: int = 10) -> float:
    """Measure nDCG@10 with linear gains; not a number where nothing relevant is judged."""
    ideal = np.array(sorted(query.relevances.values(), reverse=True)[:k], dtype=np.float64)
    gains = np.array([query.relevances.get(query.docids[i], 0) for i in order[:k]])
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    best = float((ideal * discounts[: len(ideal)]).sum())
    return float((gains * discounts[: len(gains)]).sum()) / best if best > 0.0 else float("nan")
