"""Rewrite an encoder's graph so that it computes the same scores in less time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from .dequantise import dequantise
from .emit import MICROSOFT, Emitter
from .layers import emit_first_row, emit_layer
from .read import GraphIndex
from .recognise import find_layers, reads_only_first_row

# Added to masked scores: the softmax of such a score is exactly 0, and fp32 does not overflow.
_MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What was done to a graph.

    dequantised: how many int8 tensors became fp32.
    layers: how many layers were recognised and fused.
    first_row_only: True if the last layer computes its first row alone.
    """

    model: ModelProto
    dequantised: int
    layers: int
    first_row_only: bool


def rewrite(model: ModelProto, outputs: Sequence[str]) -> Rewritten:
    """Rewrite `model` in place, keeping the values named `outputs` as its only outputs.

    In a graph without a known layer int8 weights become fp32, and what no output needs is removed.
    """
    dequantised = dequantise(model)
    index = GraphIndex.of(model)
    inputs = {entry.name for entry in model.graph.input}
    layers = find_layers(index) if "attention_mask" in inputs else ()
    first_row_only = (
        bool(layers)
        and not layers[-1].attention.bias
        and reads_only_first_row(index, layers[-1].output, outputs)
    )
    emitter = Emitter()
    if layers:
        mask = emitter.node("Cast", ["attention_mask"], settings={"to": TensorProto.INT32})
        for layer in layers[:-1]:
            emit_layer(emitter, layer, mask)
        if first_row_only:
            emit_first_row(emitter, layers[-1], _mask_bias(emitter))
        else:
            emit_layer(emitter, layers[-1], mask)
    _splice(model, emitter, replaced={layer.output for layer in layers})
    prune(model, outputs)
    return Rewritten(model, dequantised, len(layers), first_row_only)


def prune(model: ModelProto, outputs: Sequence[str]) -> None:
    """Remove what no output needs: nodes, stored tensors, declared shapes."""
    graph = model.graph
    needed = set(outputs)
    alive: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            alive.append(node)
    known = {info.name: info for info in (*graph.output, *graph.value_info)}
    declared = [
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in outputs
    ]
    declared = [type(info).FromString(info.SerializeToString()) for info in declared]
    del graph.value_info[:], graph.output[:], graph.node[:]
    graph.output.extend(declared)
    graph.node.extend(alive[::-1])
    # In place: copying the weights would take most of a rewrite's time.
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]


def _mask_bias(emitter: Emitter) -> str:
    """Emit what is added to the scores, [batch, 1, length]: 0 or, where masked, `_MASKED`."""
    mask = emitter.node("Cast", ["attention_mask"], settings={"to": TensorProto.FLOAT})
    one, masked = (emitter.tensor(np.array([x], np.float32)) for x in (1.0, _MASKED))
    bias = emitter.node("Mul", [emitter.node("Sub", [one, mask]), masked])
    return emitter.node("Unsqueeze", [bias, emitter.tensor([1])])


def _splice(model: ModelProto, emitter: Emitter, *, replaced: set[str]) -> None:
    """Put the new nodes in the place of those that computed the `replaced` values."""
    kept = [node for node in model.graph.node if not replaced & set(node.output)]
    nodes = _sorted([*emitter.nodes, *kept])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(emitter.stored.values())
    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _sorted(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Order nodes so that each comes after those whose values it reads."""
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
                waiting += [(makers[name], False) for name in nodes[place].input if name in makers]
    return order
