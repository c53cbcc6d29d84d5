"""Run a model in full over unlabelled queries, and keep what each exit could have read."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...rules.batching import plan
from ...scoring.exits import heads
from ...scoring.exits.segmented_model import SegmentedModel
from ...scoring.runtime import process
from ...scoring.text import pairs

Floats: TypeAlias = NDArray[np.float32]
_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Question:
    """An unlabelled query and its candidates, in first-stage order."""

    query: str
    passages: tuple[str, ...]
    priors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What a model computed for the pairs of a query.

    owners: the candidate of each pair
    first: per exit the hidden state of the first token, [pairs, width], float16
    own: per exit the scores of the model's own head; None: it has none
    final: the model's scores
    tokens: the length of each pair
    """

    owners: NDArray[np.intp]
    first: tuple[NDArray[np.floating], ...]
    own: tuple[NDArray[np.floating] | None, ...]
    final: Floats
    tokens: NDArray[np.int64]
    priors: NDArray[np.float64] | None


def observe(
    model: SegmentedModel,
    questions: Sequence[Question],
    *,
    progress: Callable[[], None] = lambda: None,
    workers: int | None = None,
) -> list[Observed]:
    """Return what the model computes for each query; queries run in parallel on all cores."""

    def run(question: Question) -> Observed:
        done = _observe(model, question)
        progress()
        return done

    with ThreadPoolExecutor(workers or process.cores()) as pool:
        return list(pool.map(run, questions))


def _observe(model: SegmentedModel, question: Question) -> Observed:
    tokenizer = model.tokenizer
    laid, _ = pairs.read(
        tokenizer,
        question.query,
        question.passages,
        room=model.room,
        windowing=model.options.windowing,
    )
    if laid.refused.any():
        raise ModelError(
            'a passage is over max_tokens and long is "error"; calibrate with "window"'
        )
    order: list[int] = []
    first: list[list[NDArray[np.floating]]] = [[] for _ in range(len(model))]
    scores: list[list[NDArray[np.floating]]] = [[] for _ in range(len(model))]
    for batch in plan(laid.lengths, max_batch_tokens=_BATCH_TOKENS):
        chosen = list(batch.pairs)
        order += chosen
        arrays = tokenizer.assemble(laid.query, [laid.ids[i] for i in chosen], batch.length_tokens)
        hidden: Floats | None = None
        for place in range(len(model)):
            step = model.run(place, arrays, hidden)
            hidden, found = step.hidden, step.scores
            if hidden is not None:
                first[place].append(hidden[:, 0].astype(np.float16))
                if (head := model.heads[place]).kind == "similarity":
                    template = tokenizer.template
                    found = heads.similarity_scores(head, hidden, laid, chosen, template)
            if found is not None:
                scores[place].append(found)
    *own, final = (_by_pair(parts, order) for parts in scores)
    rows = [_by_pair(parts, order) for parts in first[:-1]]
    return Observed(
        laid.owners,
        tuple(np.zeros((0, 0), np.float16) if found is None else found for found in rows),
        tuple(own),
        np.zeros(0, np.float32) if final is None else final.astype(np.float32),
        laid.lengths,
        None if question.priors is None else np.array(question.priors, dtype=np.float64),
    )


def _by_pair(
    batches: Sequence[NDArray[np.floating]], order: Sequence[int]
) -> NDArray[np.floating] | None:
    """Return the values of all batches in the order of the pairs, None where there are none."""
    return np.concatenate(batches)[np.argsort(order)] if batches else None
