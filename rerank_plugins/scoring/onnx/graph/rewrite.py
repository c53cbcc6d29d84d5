"""Rewrite an encoder's graph into one that gives the same scores in less time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from .dequantise import dequantise
from .emit import MICROSOFT, Emitter
from .layers import absorb, fuse
from .read import Reading
from .recognise import find, reads_only_first_row

# What a masked score gets added: enough for a share of exactly 0, safe in fp32.
_MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What was done to a graph: layers fused, and whether the last one computes one row only."""

    model: ModelProto
    dequantised: int
    layers: int
    absorbed: bool


def rewrite(model: ModelProto, outputs: Sequence[str]) -> Rewritten:
    """Rewrite `model` in place, keeping the values named `outputs` as its only outputs.

    A graph without a known layer only loses its int8 weights and what no output needs.
    """
    dequantised = dequantise(model)
    reading = Reading.of(model)
    layers = find(reading) if "attention_mask" in {one.name for one in model.graph.input} else ()
    absorbed = (
        bool(layers)
        and not layers[-1].attention.bias
        and reads_only_first_row(reading, layers[-1].output, outputs)
    )
    emitter = Emitter()
    if layers:
        mask = emitter.node("Cast", ["attention_mask"], settings={"to": TensorProto.INT32})
        for layer in layers[:-1]:
            fuse(emitter, layer, mask)
        if absorbed:
            absorb(emitter, layers[-1], _mask_bias(emitter))
        else:
            fuse(emitter, layers[-1], mask)
    _splice(model, emitter, replaced={layer.output for layer in layers})
    prune(model, outputs)
    return Rewritten(model, dequantised, len(layers), absorbed)


def _mask_bias(emitter: Emitter) -> str:
    """Emit the mask as what scores get added, [batch, 1, length]: 0 or a large negative number."""
    mask = emitter.node("Cast", ["attention_mask"], settings={"to": TensorProto.FLOAT})
    one, masked = (emitter.tensor(np.array([x], np.float32)) for x in (1.0, _MASKED))
    bias = emitter.node("Mul", [emitter.node("Sub", [one, mask]), masked])
    return emitter.node("Unsqueeze", [bias, emitter.tensor([1])])


def _splice(model: ModelProto, emitter: Emitter, *, replaced: set[str]) -> None:
    """Put the new nodes in the place of those that made the `replaced` values."""
    kept = [node for node in model.graph.node if not replaced & set(node.output)]
    nodes = _sorted([*emitter.nodes, *kept])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(emitter.stored.values())
    if MICROSOFT not in {one.domain for one in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _sorted(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Order nodes so that each comes after what it reads."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    placed: set[int] = set()
    order: list[NodeProto] = []
    for start in range(len(nodes)):
        waiting = [(start, False)]
        while waiting:
            place, ready = waiting.pop()
            if ready:
                order.append(nodes[place])
            elif place not in placed:
                placed.add(place)
                waiting.append((place, True))
                waiting += [(makers[one], False) for one in nodes[place].input if one in makers]
    return order


def prune(model: ModelProto, outputs: Sequence[str]) -> None:
    """Drop what no output needs: nodes, stored tensors, shape notes."""
    graph = model.graph
    needed = set(outputs)
    alive: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            alive.append(node)
    known = {one.name: one for one in (*graph.output, *graph.value_info)}
    declared = [
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in outputs
    ]
    declared = [type(one).FromString(one.SerializeToString()) for one in declared]
    del graph.value_info[:], graph.output[:], graph.node[:]
    graph.output.extend(declared)
    graph.node.extend(alive[::-1])
    # In place: the weights are most of a model, and copying them most of a rewrite.
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]
