"""Exit heads: how the hidden state after a layer becomes a score, in units of the last one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError
from ..text.pairs import Pairs
from ..text.tokenizer import Template

Kind: TypeAlias = Literal["output", "probe", "similarity"]
Floats: TypeAlias = NDArray[np.float32]
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear map of a pair's first row, of the exit before, and of the candidate's rank.

    score = weights . LN(first row) + previous s + log_rank ln(1 + rank) + bias. LN normalises to
    mean 0 and variance 1, without parameters; ranks count from 0.
    """

    weights: Floats
    previous: float
    log_rank: float
    bias: float


@dataclass(frozen=True, slots=True)
class Head:
    """What scores at an exit.

    An "output" is a head of the model's own, its values times `gain` plus `offset`; a "probe" was
    fitted; "similarity" compares query and passage tokens after `layer` (0: the embeddings).
    """

    layer: int
    hidden: str
    kind: Kind
    output: str = ""
    gain: float = 1.0
    offset: float = 0.0
    probe: Probe | None = None


def from_card(card: Mapping[str, object], layers: Sequence[int] | None = None) -> tuple[Head, ...]:
    """Read a model's exits off its card; `layers` picks some of them.

    Raises `ModelError` where the card does not name them.
    """
    found = {head.layer: head for head in listed(card)}
    wanted = sorted(found if layers is None else layers)
    missing = [layer for layer in wanted if layer not in found]
    if missing or not wanted:
        message = (
            f"the model's card names exits after layers {sorted(found)}, not after "
            f"{missing or 'any'}; name others with: rerank-plugins export --exits, or fit heads to "
            "any model with: rerank-plugins calibrate"
        )
        raise ModelError(message)
    return tuple(found[layer] for layer in wanted)


def listed(card: Mapping[str, object]) -> tuple[Head, ...]:
    """List the exits on a card; those without an output of the model's own compare tokens."""
    exits = card.get("exits")
    found: list[Head] = []
    for one in exits if isinstance(exits, Sequence) else ():
        if isinstance(one, Mapping) and one.get("hidden"):
            layer, hidden, output = int(one["layer"]), str(one["hidden"]), one.get("output")
            if output:
                found.append(Head(layer, hidden, "output", output=str(output)))
            else:
                found.append(Head(layer, hidden, "similarity"))
    return tuple(found)


def apply(head: Head, first: Floats, previous: Floats, ranks: Floats) -> Floats:
    """Score pairs by a probe from their first rows [pairs, hidden]; the rest is per pair."""
    probe = head.probe
    if probe is None:
        message = f"the head after layer {head.layer} has no probe; calibrate the exits again"
        raise ModelError(message)
    scores = normalised(first) @ probe.weights + probe.bias
    scores += probe.previous * previous + probe.log_rank * np.log1p(ranks)
    return scores.astype(np.float32)


def alike(
    head: Head, hidden: Floats, laid: Pairs, chosen: Sequence[int], template: Template
) -> Floats:
    """Score the pairs of a batch by a similarity head, from their hidden states."""
    start = len(template.before)
    stop = start + len(laid.query)
    scores = similarity(
        hidden,
        slice(start, stop),
        stop + len(template.between),
        [int(laid.lengths[i]) for i in chosen],
        len(template.after),
    )
    return np.asarray(head.gain * scores + head.offset, dtype=np.float32)


def normalised(rows: Floats) -> Floats:
    """Normalise rows [n, hidden] to mean 0 and variance 1.

    >>> normalised(np.float32([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON))


def similarity(
    hidden: Floats, query_tokens: slice, passage_starts: int, lengths: Sequence[int], after: int
) -> Floats:
    """Score pairs by their tokens' likeness: the mean over query tokens of the best cosine.

    The idea is SEE's (Busolin et al. 2025); how it aggregates is not published, this is MaxSim.
    `hidden` [pairs, length, width]; passages run from `passage_starts` up to `after` special tokens
    before the end.
    """
    unit = hidden / (np.linalg.norm(hidden, axis=2, keepdims=True) + _EPSILON)
    scores = np.zeros(len(hidden), dtype=np.float32)
    for row, length in enumerate(lengths):
        query = unit[row, query_tokens]
        passage = unit[row, passage_starts : length - after]
        if len(query) and len(passage):
            scores[row] = (query @ passage.T).max(axis=1).mean()
    return scores
