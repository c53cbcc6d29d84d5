"""Which kernels a model runs with unasked: exact ones, or int8 where that is vouched for and pays.

A model's card vouches for an int8 graph by recording, under the graph's file name, what it loses:
{"int8": {"model_int8.onnx": {"ndcg@10_loss": 0.002}}}. For int8 kernels made at load it does so
under the hash of the graph that they are made from: {"int8": {"sha256:9f3c...": ...}}. Without that
nothing is looked at, let alone measured. What was measured is kept beside the rewritten graphs: a
choice that moves scores must not be made anew, by chance another way, in every process.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...errors import ModelError
from ..models.files import ModelFiles, sha256
from .graph import cache
from .graph.prepare import runtime
from .options import OnnxOptions
from .scorer import OnnxScorer

MAX_LOSS = 0.005
"""How much nDCG@10 int8 kernels must stay below losing to be taken unasked."""

_MUST_GAIN = 1.1
_HASH = "sha256:"
# A typical passage, and a few short ones: (pairs, tokens).
_SIZES = ((1, 128), (4, 32))


@dataclass(frozen=True, slots=True)
class Turns:
    """How long two scorers are timed in turns, for each size of batch."""

    least: int = 3
    most: int = 9
    limit_s: float = 0.5


def choose(
    files: ModelFiles, options: OnnxOptions, find_int8: Callable[[], ModelFiles]
) -> ModelFiles:
    """Give a model's files with the graph to run; `choice` says why, where there was a choice.

    `find_int8` is asked only where the card vouches for another file; where int8 cannot be had or
    run, the exact graph runs.
    """
    losses = vouched(files.card)
    if not losses:
        return files
    names = ", ".join(losses)
    try:
        made = replace(files, int8=True)
        other = made if _has_hash(losses) and _name(made) in losses else find_int8()
        if _name(other) not in losses:
            return replace(files, choice=f"fp32: its card vouches for {names}, which is not here")
        faster = _remembered_gain(files, other, options)
    except ModelError as error:
        return replace(files, choice=f"fp32: its card vouches for {names}, but {error}")
    what = f"{other.graph.name} with int8 kernels" if other.int8 else other.graph.name
    said = f"{what} is {faster:.2f} times as fast here"
    if faster < _MUST_GAIN:
        return replace(files, choice=f"fp32: {said}, expected at least {_MUST_GAIN:g}")
    loss = losses[_name(other)]
    return replace(other, choice=f"int8: {said}, and by its card loses {loss:g} nDCG@10")


def vouched(card: Mapping[str, object]) -> dict[str, float]:
    """Name the int8 graphs that a card vouches for, with the nDCG@10 that each loses.

    >>> vouched({"int8": {"a.onnx": {"ndcg@10_loss": 0.002}, "b.onnx": {"ndcg@10_loss": 0.02}}})
    {'a.onnx': 0.002}
    """
    table = card.get("int8")
    found: dict[str, float] = {}
    for name, facts in table.items() if isinstance(table, Mapping) else ():
        loss = facts.get("ndcg@10_loss") if isinstance(facts, Mapping) else None
        if isinstance(loss, int | float) and not isinstance(loss, bool) and loss < MAX_LOSS:
            found[str(name)] = float(loss)
    return found


def gain(
    exact: OnnxScorer,
    fast: OnnxScorer,
    turns: Turns = Turns(),
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Say how many times faster `fast` is, timed in turns: the worse of two sizes of batches."""
    gains: list[float] = []
    for count, length in _SIZES:
        size = (count, min(length, exact.max_tokens))
        ratios: list[float] = []
        until = clock() + turns.limit_s
        while len(ratios) < turns.least or (len(ratios) < turns.most and clock() < until):
            ratios.append(exact.timed(*size) / max(1e-9, fast.timed(*size)))
        gains.append(statistics.median(ratios))
    return min(gains)


def _has_hash(losses: Mapping[str, float]) -> bool:
    return any(name.startswith(_HASH) for name in losses)


def _name(files: ModelFiles) -> str:
    """Name a graph as cards do."""
    return f"{_HASH}{sha256(files.graph)}" if files.int8 else files.graph.name


def _remembered_gain(files: ModelFiles, other: ModelFiles, options: OnnxOptions) -> float:
    folder = cache.directory() if options.graph_cache else None
    place = None if folder is None else folder / f"{_key(files, other, options)}.json"
    known = None if place is None else cache.number(place)
    if known is not None:
        return known
    fast = OnnxScorer(other, options)
    if fast.refusal:
        raise ModelError(fast.refusal)
    found = gain(OnnxScorer(files, options), fast)
    if place is not None:
        cache.write(place, f"{found:.4f}".encode())
    return found


def _key(files: ModelFiles, other: ModelFiles, options: OnnxOptions) -> str:
    kind = "int8" if other.int8 else "kernels"
    facts = f"{runtime(options.provider)} {options.intra_threads} {options.rewrite} {kind}"
    return cache.key(other.graph, f"{facts} {cache.key(files.graph, facts)}")
