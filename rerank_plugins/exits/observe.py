"""Run a model in full over unlabelled queries, and note what each exit could have known."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..batching import plan
from ..errors import ModelError
from ..scorers import cores, pairs
from ..scorers.trunk import Trunk

Floats: TypeAlias = NDArray[np.float32]

_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Question:
    """A query and its candidates in first-stage order; `priors` None where there are none."""

    query: str
    passages: tuple[str, ...]
    priors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What the model gave for a question's pairs, and who owns them.

    `first` holds the first rows [pairs, width] per exit as float16, `own` the scores of exits with
    a head of their own, `final` the model's scores, `tokens` each pair's length.
    """

    owners: NDArray[np.intp]
    first: tuple[NDArray[np.float16], ...]
    own: tuple[Floats | None, ...]
    final: Floats
    tokens: NDArray[np.int64]
    priors: NDArray[np.float64] | None


def observe(
    trunk: Trunk,
    questions: Sequence[Question],
    *,
    progress: Callable[[], None] = lambda: None,
    workers: int | None = None,
) -> list[Observed]:
    """Observe every question; whole questions run in parallel on the cores there are."""

    def one(question: Question) -> Observed:
        done = _observe(trunk, question)
        progress()
        return done

    with ThreadPoolExecutor(workers or cores.count()) as pool:
        return list(pool.map(one, questions))


def _observe(trunk: Trunk, question: Question) -> Observed:
    tokenizer = trunk.tokenizer
    ids, _ = tokenizer.passages(question.passages)
    query = tokenizer.query(question.query)
    laid = pairs.lay_out(
        query,
        ids,
        room_tokens=tokenizer.room(query, trunk.max_tokens),
        special_tokens=tokenizer.template.special_tokens,
        windowing=trunk.options.windowing,
    )
    if laid.refused.any():
        raise ModelError(
            'a passage is over max_tokens and long is "error"; calibrate with "window"'
        )
    count = len(laid.ids)
    first: list[NDArray[np.float16] | None] = [None] * len(trunk.heads)
    own: list[Floats | None] = [None] * len(trunk.heads)
    final = np.zeros(count, dtype=np.float32)
    for batch in plan(laid.lengths, max_batch_tokens=_BATCH_TOKENS):
        chosen = list(batch.pairs)
        arrays = tokenizer.assemble(query, [laid.ids[i] for i in chosen], batch.length_tokens)
        hidden: Floats | None = None
        for place in range(len(trunk)):
            step = trunk.run(place, arrays, hidden)
            hidden = step.hidden
            if hidden is None:
                final[chosen] = step.scores
                continue
            rows = first[place]
            if rows is None:
                rows = first[place] = np.zeros((count, hidden.shape[2]), dtype=np.float16)
            rows[chosen] = hidden[:, 0]
            if step.scores is not None:
                scores = own[place]
                if scores is None:
                    scores = own[place] = np.zeros(count, dtype=np.float32)
                scores[chosen] = step.scores
    priors = None if question.priors is None else np.array(question.priors, dtype=np.float64)
    filled = tuple(np.zeros((0, 0), np.float16) if one is None else one for one in first)
    return Observed(laid.owners, filled, tuple(own), final, laid.lengths, priors)
