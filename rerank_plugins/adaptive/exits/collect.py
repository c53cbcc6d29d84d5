"""Run a model in full over unlabelled queries, and note what each exit could have known."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ...rules.batching import plan
from ...scoring.exits import heads
from ...scoring.exits.segmented_model import Trunk
from ...scoring.runtime import process
from ...scoring.text import pairs

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
    first: tuple[NDArray[np.floating], ...]
    own: tuple[NDArray[np.floating] | None, ...]
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

    with ThreadPoolExecutor(workers or process.count()) as pool:
        return list(pool.map(one, questions))


def _observe(trunk: Trunk, question: Question) -> Observed:
    tokenizer = trunk.tokenizer
    laid, _ = pairs.read(
        tokenizer,
        question.query,
        question.passages,
        room=trunk.room,
        windowing=trunk.options.windowing,
    )
    if laid.refused.any():
        raise ModelError(
            'a passage is over max_tokens and long is "error"; calibrate with "window"'
        )
    count = len(laid.ids)
    first: list[NDArray[np.floating] | None] = [None] * len(trunk.heads)
    own: list[NDArray[np.floating] | None] = [None] * len(trunk.heads)
    final = np.zeros(count, dtype=np.float32)
    for batch in plan(laid.lengths, max_batch_tokens=_BATCH_TOKENS):
        chosen = list(batch.pairs)
        arrays = tokenizer.assemble(laid.query, [laid.ids[i] for i in chosen], batch.length_tokens)
        hidden: Floats | None = None
        for place in range(len(trunk)):
            step = trunk.run(place, arrays, hidden)
            hidden = step.hidden
            if hidden is None:
                final[chosen] = step.scores
                continue
            _put(first, place, count, chosen, hidden[:, 0].astype(np.float16))
            found = step.scores
            if trunk.heads[place].kind == "similarity":
                found = heads.alike(trunk.heads[place], hidden, laid, chosen, tokenizer.template)
            if found is not None:
                _put(own, place, count, chosen, found)
    priors = None if question.priors is None else np.array(question.priors, dtype=np.float64)
    filled = tuple(np.zeros((0, 0), np.float16) if one is None else one for one in first)
    return Observed(laid.owners, filled, tuple(own), final, laid.lengths, priors)


def _put(
    kept: list[NDArray[np.floating] | None],
    place: int,
    count: int,
    chosen: Sequence[int],
    values: NDArray[np.floating],
) -> None:
    """Keep the values of the chosen pairs among those of all `count`."""
    found = kept[place]
    if found is None:
        found = kept[place] = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
    found[list(chosen)] = values
