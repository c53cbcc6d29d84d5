"""Streams of requests to find drift in: the judged sets as they are, and as they go wrong.

Every stream is scored once; scores, priors and lengths are cached as JSON, and no text.
"""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from rerank_plugins import Candidate, Reranker
from rerank_plugins.evaluation import datasets
from rerank_plugins.evaluation.datasets import Dataset, Topic
from rerank_plugins.quality.drift.features import common_start
from rerank_plugins.scoring.models.files import EMBEDDED

DEPTH = 30
NULLS = 4
MODEL = Path(__file__).parent.parent / "rerank_plugins/models/embedded"
WEB = ("trec-dl19", "trec-dl22")
SNAPSHOT = "trec-dl22"
# Queries taken of each set; of each half the first is also served changed and damaged.
HALVES = (
    {"trec-dl19": 43, "tatqa": 150, "scifact": 100, "cacm": 52, "cisi": 76},
    {"vaswani": 60, "cosqa": 150, "cranfield": 100, "lisa": 35, "medline": 30},
)
SNAPSHOT_QUERIES = 100
BITS = (2,)
# The letters of another script, one for one: BM25 sees the same terms, the model has never read it.
_SCRIPT = str.maketrans(
    "abcdefghijklmnopqrstuvwxyz",
    "αβψδεφγηιξκλμνοπϟρστθωϛχυζ",
)
_QUERY_PREFIX = (
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: "
)


Change: TypeAlias = Callable[[str], str]
"""What happens to a text on its way to the model."""


def _script(text: str) -> str:
    return text.lower().translate(_SCRIPT)


def _same(text: str) -> str:
    return text


def _thrice(text: str) -> str:
    return " ".join([text] * 3)


def asking(query: str) -> str:
    """Put the prompt of an instruct model around a query."""
    return _QUERY_PREFIX + query


def document(passage: str) -> str:
    """Put the prompt of an instruct model around a passage."""
    return f"<Document>: {passage}"


CHANGES: Mapping[str, tuple[Change, Change]] = {
    "tripled": (_same, _thrice),
    "other script": (_script, _script),
    "wrong template": (asking, document),
}
"""What may happen to queries and to passages."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a stream; lists are per candidate, in first-stage order."""

    qid: str
    query_chars: int
    priors: list[float]
    scores: list[float]
    chars: list[int]
    shared: int
    grades: list[int] | None
    ideal: list[int] | None
    nulls: list[float]


Score: TypeAlias = Callable[[Path], list[Asked]]
"""Scores the queries of a stream, given the folder of collections."""


def half(stream: str) -> int:
    """Return which half a stream belongs to."""
    return next(place for place, sets in enumerate(HALVES) if stream.partition(",")[0] in sets)


def streams(scratch: Path) -> Mapping[str, Score]:
    """Return every stream's name and how it is scored; damaged models are written to `scratch`."""
    found: dict[str, Score] = {SNAPSHOT: _plain(SNAPSHOT, SNAPSHOT_QUERIES)}
    for sets in HALVES:
        found |= {name: _plain(name, count) for name, count in sets.items()}
        base, count = next(iter(sets.items()))
        found |= {
            f"{base}, {how}": _changed(base, count, query, passage)
            for how, (query, passage) in CHANGES.items()
        }
        found |= {f"{base}, {bits} bits": _damaged(base, count, bits, scratch) for bits in BITS}
    return found


def load(name: str, data: Path, cache: Path) -> list[Asked]:
    """Return a stream, scored now unless it was before."""
    path = cache / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        asked = streams(cache)[name](data)
        path.write_text(json.dumps([asdict(one) for one in asked]), encoding="utf-8")
    return [Asked(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def read(name: str, data: Path, count: int) -> Dataset:
    """Read a set of requests as BM25 gives them."""
    folder = data / name
    run = folder / "rerank" / "BM25.jsonl" if name in WEB else None
    found = datasets.shorten(datasets.read(folder, run=run), DEPTH)
    return datasets.sample(found, count)


def _plain(name: str, count: int) -> Score:
    return lambda data: _score(EMBEDDED, read(name, data, count))


def _changed(name: str, count: int, query: Change, passage: Change) -> Score:
    def scored(data: Path) -> list[Asked]:
        found = read(name, data, count)
        topics = [
            replace(
                topic,
                query=query(topic.query),
                candidates=tuple(
                    Candidate(passage(one.text or ""), one.prior) for one in topic.candidates
                ),
            )
            for topic in found.topics
        ]
        return _score(EMBEDDED, replace(found, topics=tuple(topics)))

    return scored


def _damaged(name: str, count: int, bits: int, scratch: Path) -> Score:
    """Score with weights that keep only `bits` of their 8: what a bad quantisation does."""

    def scored(data: Path) -> list[Asked]:
        folder = scratch / f"{bits}-bits"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODEL / "tokenizer.json", folder)
        graph = onnx.load(str(MODEL / "model.onnx"))
        step = 2 ** (8 - bits)
        for tensor in graph.graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8:
                values = numpy_helper.to_array(tensor).astype(np.int64)
                coarse = np.clip(np.round(values / step) * step, -127, 127).astype(np.int8)
                tensor.CopyFrom(numpy_helper.from_array(coarse, tensor.name))
        onnx.save(graph, str(folder / "model.onnx"))
        return _score(folder, read(name, data, count))

    return scored


def _score(model: str | Path, dataset: Dataset) -> list[Asked]:
    # The same kernels on every machine.
    with Reranker(model, prior_weight=0.0, precision="fp32") as reranker:
        source = random.Random(0)
        return [_one(reranker, topic, dataset, source) for topic in dataset.topics]


def _one(reranker: Reranker, topic: Topic, dataset: Dataset, source: random.Random) -> Asked:
    result = reranker.rerank(topic.query, topic.candidates)
    scores = {hit.index: hit.score for hit in result.hits}
    others = [one for one in dataset.topics if one.qid != topic.qid]
    strangers = [source.choice(source.choice(others).candidates) for _ in range(NULLS)]
    nulls = reranker.rerank(topic.query, strangers)
    judged = dataset.qrels.get(topic.qid)
    floor = min((one for one in scores.values() if one is not None), default=0.0)
    return Asked(
        topic.qid,
        len(topic.query),
        [one.prior or 0.0 for one in topic.candidates],
        [_or(scores[i], floor) for i in range(len(topic.candidates))],
        [len(one.text or "") for one in topic.candidates],
        common_start([one.text or "" for one in topic.candidates]) or 0,
        None if judged is None else [judged.get(one, 0) for one in topic.docids],
        None if judged is None else sorted(judged.values(), reverse=True)[:10],
        [hit.score for hit in nulls.hits if hit.score is not None],
    )


def _or(score: float | None, floor: float) -> float:
    return floor if score is None else score
