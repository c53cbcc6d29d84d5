"""Weights stored as int8 become fp32 at load: a small file, and fp32 kernels.

Embedding tables stay int8: each row that is looked up becomes fp32 then.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .read import GraphIndex


def dequantise(model: ModelProto) -> int:
    """Replace every DequantizeLinear of stored tensors by its result, in place; count them."""
    index = GraphIndex.of(model)
    folded: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not all(map(index.is_constant, node.input)):
            continue
        values = [index.constant(name) for name in node.input]
        stored, scale, zero = (*map(np.asarray, values), np.zeros(1))[:3]
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1) % stored.ndim
        look_ups = index.consumers.get(node.output[0], ())
        if not zero.any() and look_ups and all(_takes_rows(look_up, node) for look_up in look_ups):
            for look_up in look_ups:
                _dequantise_rows(model, look_up, node, by_row=scale.size > 1 and axis == 0)
        else:
            values32 = _values(stored, scale, zero, axis)
            model.graph.initializer.append(numpy_helper.from_array(values32, node.output[0]))
        folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    return len(folded)


def _values(
    stored: NDArray[np.generic],
    scale: NDArray[np.generic],
    zero: NDArray[np.generic],
    axis: int,
) -> NDArray[np.float32]:
    """Compute (stored - zero) * scale; scale and zero may run along `axis`."""
    shape: Sequence[int] = [1] * stored.ndim
    if scale.size > 1:
        shape = [-1 if place == axis else 1 for place in range(stored.ndim)]
    values = stored.astype(np.float32)
    if zero.any():
        values -= zero.astype(np.float32).reshape(shape)
    values *= scale.astype(np.float32).reshape(shape)
    return values


def _takes_rows(node: NodeProto, table: NodeProto) -> bool:
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
    return bool(node.op_type == "Gather" and axis == 0 and node.input[0] == table.output[0])


def _dequantise_rows(
    model: ModelProto, look_up: NodeProto, table: NodeProto, *, by_row: bool
) -> None:
    """Look up rows of the int8 table, then scale them: each by its own scale, or all alike."""
    found, rows, scale = look_up.output[0], look_up.input[1], table.input[1]
    raw, cast = f"{found}/int8", f"{found}/fp32"
    made = [
        helper.make_node("Gather", [table.input[0], rows], [raw]),
        helper.make_node("Cast", [raw], [cast], to=TensorProto.FLOAT),
    ]
    if by_row:
        scale = f"{found}/scale"
        last = numpy_helper.from_array(np.array([-1], np.int64), f"{found}/last")
        model.graph.initializer.append(last)
        made += [
            helper.make_node("Gather", [table.input[1], rows], [f"{scale}s"]),
            helper.make_node("Unsqueeze", [f"{scale}s", last.name], [scale]),
        ]
    made.append(helper.make_node("Mul", [cast, scale], [found]))
    place = list(model.graph.node).index(look_up)
    nodes = [*model.graph.node[:place], *made, *model.graph.node[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
