"""Exit heads: how the hidden state after a layer becomes a score, on the scale of the model's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ...errors import ModelError
from .. import Floats
from ..text.pairs import Pairs
from ..text.tokenizer import Template

Kind: TypeAlias = Literal["output", "probe", "similarity"]
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear map of a pair's first hidden row, the score s before, and the candidate's rank.

    score = weights . LN(first row) + previous s + log_rank ln(1 + rank) + bias. LN normalises to
    mean 0 and variance 1, without parameters; s is the exit's before; ranks count from 0.
    """

    weights: Floats
    previous: float
    log_rank: float
    bias: float


@dataclass(frozen=True, slots=True)
class Head:
    """What scores at an exit.

    layer: the layer that it comes after; 0: the embeddings
    hidden: the name of the hidden state there
    kind: "output" is a head of the model's own, "probe" was fitted, "similarity" compares the
        tokens of query and passage
    output: the name of the model's own head
    gain, offset: an output's or a similarity's value times `gain` plus `offset` is the score
    """

    layer: int
    hidden: str
    kind: Kind
    output: str = ""
    gain: float = 1.0
    offset: float = 0.0
    probe: Probe | None = None


def from_card(card: Mapping[str, object], layers: Sequence[int] | None = None) -> tuple[Head, ...]:
    """Return the exits on a model's card; `layers` picks some of them.

    Raises `ModelError` where the card does not name them.
    """
    found = {head.layer: head for head in card_heads(card)}
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


def card_heads(card: Mapping[str, object]) -> tuple[Head, ...]:
    """Return all exits on a card; those without an output of the model's own compare tokens."""
    exits = card.get("exits")
    found: list[Head] = []
    for row in exits if isinstance(exits, Sequence) else ():
        if isinstance(row, Mapping) and row.get("hidden"):
            output = str(row.get("output") or "")
            kind: Kind = "output" if output else "similarity"
            found.append(Head(int(row["layer"]), str(row["hidden"]), kind, output=output))
    return tuple(found)


def probe_scores(head: Head, first: Floats, previous: Floats, ranks: Floats) -> Floats:
    """Score pairs by a probe from their first rows [pairs, width], scores before, and ranks."""
    probe = head.probe
    if probe is None:
        message = f"the head after layer {head.layer} has no probe; calibrate the exits again"
        raise ModelError(message)
    scores = normalised(first) @ probe.weights + probe.bias
    scores += probe.previous * previous + probe.log_rank * np.log1p(ranks)
    return scores.astype(np.float32)


def similarity_scores(
    head: Head, hidden: Floats, pairs: Pairs, chosen: Sequence[int], template: Template
) -> Floats:
    """Score the `chosen` pairs by the mean over query tokens of the best cosine in the passage.

    The idea is SEE's (Busolin et al. 2025); how it aggregates is not published, this is MaxSim.
    `hidden` [chosen, length, width].
    """
    start = len(template.before)
    stop = start + len(pairs.query)
    unit = hidden / (np.linalg.norm(hidden, axis=2, keepdims=True) + _EPSILON)
    scores = np.zeros(len(hidden), dtype=np.float32)
    for row, length in enumerate(pairs.lengths[list(chosen)].tolist()):
        query = unit[row, start:stop]
        passage = unit[row, stop + len(template.between) : length - len(template.after)]
        if len(query) and len(passage):
            scores[row] = (query @ passage.T).max(axis=1).mean()
    return np.asarray(head.gain * scores + head.offset, dtype=np.float32)


def normalised(rows: Floats) -> Floats:
    """Normalise rows [n, hidden] to mean 0 and variance 1.

    >>> normalised(np.float32([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON))
