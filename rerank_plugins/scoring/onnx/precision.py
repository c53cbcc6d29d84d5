"""Which kernels a model runs with by default: exact, or int8 if its card allows that and it pays.

A model's card allows an int8 graph by recording, under the graph's file name, what it loses:
{"int8": {"model_int8.onnx": {"ndcg@10_loss": 0.002}}}. For int8 kernels made at load it does so
under the hash of the graph that they are made from: {"int8": {"sha256:9f3c...": ...}}. Without such
an entry nothing is measured. What was measured is kept beside the rewritten graphs: a choice that
moves scores must not turn out differently, by chance, in another process.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ...errors import ModelError
from ..models.files import ModelFiles
from .graph import cache
from .graph.prepare import runtime
from .options import OnnxOptions
from .scorer import OnnxScorer

MAX_LOSS = 0.005
"""int8 kernels are taken by default only if they lose less nDCG@10 than this."""

_MUST_GAIN = 1.1
_HASH = "sha256:"
# A typical passage, and a few short ones: (pairs, tokens).
_SIZES = ((1, 128), (4, 32))
# How often two scorers are timed in turns for each size, and after how long no more.
_LEAST_TURNS, _MOST_TURNS, _LIMIT_S = 3, 9, 0.5


def choose(
    files: ModelFiles, options: OnnxOptions, find_int8: Callable[[], ModelFiles]
) -> ModelFiles:
    """Return a model's files with the graph to run, and the reason if there was a choice.

    `find_int8` is called only if the card names another file. Where int8 kernels are missing or do
    not run, the exact graph runs.
    """
    losses = vouched(files.card)
    if not losses:
        return files
    vouched_for = f"fp32: its card vouches for {', '.join(losses)}"
    try:
        made = replace(files, int8=True)
        other = made if _has_hash(losses) and _name(made) in losses else find_int8()
        if _name(other) not in losses:
            return replace(files, kernels_reason=f"{vouched_for}, which is not here")
        faster = _remembered_gain(files, other, options)
    except ModelError as error:
        return replace(files, kernels_reason=f"{vouched_for}, but {error}")
    what = f"{other.graph.name} with int8 kernels" if other.int8 else other.graph.name
    said = f"{what} is {faster:.2f} times as fast here"
    if faster < _MUST_GAIN:
        return replace(files, kernels_reason=f"fp32: {said}, expected at least {_MUST_GAIN:g}")
    loss = losses[_name(other)]
    return replace(other, kernels_reason=f"int8: {said}, and by its card loses {loss:g} nDCG@10")


def vouched(card: Mapping[str, object]) -> dict[str, float]:
    """Return the int8 graphs that a card allows, with the nDCG@10 that each loses.

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
    exact: OnnxScorer, fast: OnnxScorer, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return how many times faster `fast` is, timed in turns: the worse of two sizes of batches."""
    gains: list[float] = []
    for count, length in _SIZES:
        size = (count, min(length, exact.max_tokens))
        ratios: list[float] = []
        until = clock() + _LIMIT_S
        while len(ratios) < _LEAST_TURNS or (len(ratios) < _MOST_TURNS and clock() < until):
            ratios.append(exact.time_batch(*size) / max(1e-9, fast.time_batch(*size)))
        gains.append(statistics.median(ratios))
    return min(gains)


def _has_hash(losses: Mapping[str, float]) -> bool:
    return any(name.startswith(_HASH) for name in losses)


def _name(files: ModelFiles) -> str:
    """Return the name of a graph on cards."""
    return f"{_HASH}{files.graph_file.sha256()}" if files.int8 else files.graph.name


def _remembered_gain(files: ModelFiles, other: ModelFiles, options: OnnxOptions) -> float:
    folder = cache.usable() if options.graph_cache else None
    place = None if folder is None else folder / f"{_key(files, other, options)}.json"
    known = None if place is None else cache.number(place)
    if known is not None:
        return known
    fast = OnnxScorer(other, options)
    if fast.int8_failure:
        raise ModelError(fast.int8_failure)
    found = gain(OnnxScorer(files, options), fast)
    if place is not None:
        cache.write(place, f"{found:.4f}".encode())
    return found


def _key(files: ModelFiles, other: ModelFiles, options: OnnxOptions) -> str:
    kind = "int8" if other.int8 else "kernels"
    facts = f"{runtime(options.provider)} {options.intra_threads} {options.rewrite} {kind}"
    return cache.key(other.graph_file, f"{facts} {cache.key(files.graph_file, facts)}")
