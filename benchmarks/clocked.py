"""Adaptive work by the clock: paired requests, what segments cost, and budgets that are kept."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import judged
import numpy as np
from judged import Asked
from numpy.typing import NDArray

from rerank_plugins import Candidate, Reranker, Result
from rerank_plugins.adaptive.exits.collect import Question
from rerank_plugins.records import stages_s

BUDGETS_MS = (50, 100, 200, 400)
CALLERS = (1, 4)
# How late an answer may be.
GRACE_MS = 10.0


@dataclass(frozen=True, slots=True)
class Paired:
    """One way of reranking, over the same queries as the others."""

    way: str
    seconds: float
    processor_seconds: float
    speedup: float
    ndcg: float
    loss_percent: float
    difference: float


@dataclass(frozen=True, slots=True)
class Kept:
    """How requests of one way kept one budget. Times in milliseconds."""

    way: str
    k: int
    callers: int
    budget_ms: float
    requests: int
    in_time: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    prediction_error: float
    ndcg: float
    scored: float


def paired(ways: Mapping[str, Callable[[], Reranker]], queries: Sequence[Asked]) -> list[Paired]:
    """Ask every way every query in turn; the first way is what the others are compared with."""
    rerankers = {way: opened() for way, opened in ways.items()}
    walls: dict[str, list[float]] = {way: [] for way in ways}
    cpus: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, list[Result]] = {way: [] for way in ways}
    try:
        for reranker in rerankers.values():
            reranker.warm_up()
            reranker.rerank(queries[0].question.query, _candidates(queries[0].question))
        for place, query in enumerate(queries):
            names = list(ways)
            # Nobody always comes first.
            for way in names[place % len(names) :] + names[: place % len(names)]:
                wall, cpu = time.perf_counter(), time.process_time()
                found = rerankers[way].rerank(query.question.query, _candidates(query.question))
                walls[way].append(time.perf_counter() - wall)
                cpus[way].append(time.process_time() - cpu)
                results[way].append(found)
    finally:
        for reranker in rerankers.values():
            reranker.close()
    first = next(iter(ways))
    quality = {way: _quality(results[way], queries) for way in ways}
    return [
        Paired(
            way,
            sum(walls[way]),
            sum(cpus[way]),
            sum(walls[first]) / sum(walls[way]),
            quality[way],
            100.0 * (1.0 - quality[way] / quality[first]),
            _difference(results[first], results[way]),
        )
        for way in ways
    ]


def budgets(
    ways: Mapping[str, Callable[[], Reranker]],
    queries: Mapping[int, Sequence[Asked]],
    *,
    requests: int,
    progress: Callable[[str], None],
) -> list[Kept]:
    """Ask every way within every budget, alone and with others, for every number of candidates.

    Those who ask alone take longest and ask half as often; so does the first way, the baseline.
    """
    baseline = next(iter(ways))
    rows: list[Kept] = []
    for way, opened in ways.items():
        with opened() as reranker:
            reranker.warm_up()
            for k, asked in queries.items():
                for one in asked[:4]:
                    reranker.rerank(
                        one.question.query, _candidates(one.question), budget_ms=BUDGETS_MS[-1]
                    )
                for callers in CALLERS:
                    halved = (callers == 1) + (way == baseline)
                    for budget_ms in BUDGETS_MS:
                        # Every query is asked, and counts once.
                        count = max(len(asked), requests >> halved)
                        rows.append(_kept(reranker, way, k, asked, callers, budget_ms, count))
                        progress(f"{way}, {k} candidates, {callers} callers, {budget_ms} ms")
    return rows


def _kept(  # noqa: PLR0917 - one cell of a table, by its coordinates
    reranker: Reranker,
    way: str,
    k: int,
    queries: Sequence[Asked],
    callers: int,
    budget_ms: float,
    requests: int,
) -> Kept:
    def ask(place: int) -> tuple[float, float, float, float]:
        query = queries[place % len(queries)]
        candidates = _candidates(query.question)
        started = time.perf_counter()
        found = reranker.rerank(query.question.query, candidates, budget_ms=budget_ms)
        took_s = time.perf_counter() - started
        took_in_stages_s = stages_s(found.timings)
        scored = sum(hit.depth > 0 for hit in found)
        error = float("nan")
        # Where the time was over before anything was scored there is no cost to predict.
        if found.predicted_s is not None and scored:
            error = abs(found.predicted_s - took_in_stages_s) / took_in_stages_s
        return 1e3 * took_s, error, judged.ndcg(found.order, query), scored

    with ThreadPoolExecutor(callers) as pool:
        rows = np.array(list(pool.map(ask, range(requests))))
    took = rows[:, 0]
    return Kept(
        way,
        k,
        callers,
        budget_ms,
        requests,
        float(np.mean(took <= budget_ms + GRACE_MS)),
        float(np.median(took)),
        float(np.quantile(took, 0.99)),
        float(took.max()),
        float(np.nanmean(rows[:, 1])),
        _by_query(rows[:, 2], len(queries)),
        _by_query(rows[:, 3], len(queries)),
    )


def doubled(folder: Path, queries: Sequence[Asked]) -> list[Asked]:
    """Put another retriever's candidates behind BM25's: 200 in all; ranks are the priors."""
    others = judged.read(folder, "trec-dl19", run="SPLADE_P_P_ENSEMBLE_DISTIL")
    by_query = {topic.query: topic for topic in others.topics}
    made: list[Asked] = []
    for one in queries:
        texts = dict(zip(one.question.passages, one.docids, strict=True))
        topic = by_query[one.question.query]
        for docid, candidate in zip(topic.docids, topic.candidates, strict=True):
            if candidate.text and docid not in one.docids and len(texts) < 200:  # noqa: PLR2004
                texts.setdefault(candidate.text, docid)
        priors = tuple(1.0 / (60.0 + place) for place in range(len(texts)))
        question = Question(one.question.query, tuple(texts), priors)
        made.append(Asked(one.collection, question, tuple(texts.values()), one.relevances))
    return made


def _candidates(question: Question) -> list[Candidate]:
    priors = question.priors or (None,) * len(question.passages)
    return [Candidate(*one) for one in zip(question.passages, priors, strict=True)]


def _by_query(values: NDArray[np.float64], queries: int) -> float:
    """Return the mean over queries that were asked in turn, some of them more often."""
    return float(np.nanmean([values[place::queries].mean() for place in range(queries)]))


def _quality(results: Sequence[Result], queries: Sequence[Asked]) -> float:
    return float(
        np.nanmean([judged.ndcg(r.order, q) for r, q in zip(results, queries, strict=True)])
    )


def _difference(expected: Sequence[Result], found: Sequence[Result]) -> float:
    """Return the largest difference of a score both gave, as a share of the scores' spread."""
    worst, spread = 0.0, 1e-30
    for one, other in zip(expected, found, strict=True):
        whole = {hit.index: hit.score for hit in one if hit.score is not None}
        deepest = max(hit.depth for hit in other)
        spread = max(spread, float(np.std(list(whole.values()))))
        for hit in other:
            if hit.score is not None and hit.depth == deepest and hit.index in whole:
                worst = max(worst, abs(hit.score - whole[hit.index]))
    return worst / spread
