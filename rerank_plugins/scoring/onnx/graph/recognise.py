"""Recognise the layers of a post-norm encoder (BERT, RoBERTa, XLM-R, ELECTRA, MiniLM) in a graph.

It looks at how operators are connected and reads the weights. That every detail is right (scale,
mask, activation) is proved afterwards, by running both graphs; see `verify`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from onnx import NodeProto

from .read import PASSING, GraphIndex, Linear, Norm

Activation: TypeAlias = Literal["erf", "tanh", "relu"]
# Operators between a projection and the product that uses it.
_LAYOUT = frozenset({"Reshape", "Transpose", "Mul", "Div", "Unsqueeze", "Squeeze"})
# Operators that GELU is computed with where it is not one operator.
_GELU = frozenset({"Mul", "Add", "Div", "Erf", "Tanh", "Pow"})


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head self-attention, before its output projection.

    source: name of the hidden state that it reads.
    bias: name of what is added to the scores, mask included, [batch, heads, length, length]; ""
        where that is the mask alone.
    """

    source: str
    query: Linear
    key: Linear
    value: Linear
    heads: int
    bias: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer: h = norm(x + out(attention(x))), y = norm(h + narrow(act(wide(h))))."""

    attention: Attention
    out: Linear
    norm_1: Norm
    wide: Linear
    activation: Activation
    narrow: Linear
    norm_2: Norm
    output: str

    @property
    def source(self) -> str:
        """Name of the layer's input."""
        return self.attention.source

    @property
    def hidden(self) -> int:
        """Width of the hidden state."""
        return int(self.out.weight.shape[1])


def find_layers(index: GraphIndex) -> tuple[Layer, ...]:
    """Return every encoder layer, first to last; none where the graph is of another kind."""
    ends = (n for n in index.model.graph.node if n.op_type in {"LayerNormalization", "Add"})
    layers = (_layer(index, node.output[0]) for node in ends)
    return tuple(layer for layer in layers if layer is not None)


def reads_only_first_row(index: GraphIndex, value: str, outputs: Sequence[str]) -> bool:
    """True if all that follows a hidden state [batch, length, hidden] uses row 0 alone."""
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in outputs:
            return False
        for node in index.consumers.get(name, ()):
            if node.op_type in PASSING:
                waiting.append(node.output[0])
            elif not _takes_first_row(index, node):
                return False
    return True


def _layer(index: GraphIndex, output: str) -> Layer | None:
    norm_2 = index.norm(output)
    for narrow, middle in _residuals(index, norm_2):
        active = _activation(index, narrow.source)
        wide = index.linear(active[1]) if active is not None else None
        norm_1 = index.norm(middle)
        if active is None or wide is None or wide.source != middle:
            continue
        for out, source in _residuals(index, norm_1):
            attention = _attention(index, out.source, source)
            if attention is not None and norm_1 is not None and norm_2 is not None:
                return Layer(attention, out, norm_1, wide, active[0], narrow, norm_2, output)
    return None


def _residuals(index: GraphIndex, norm: Norm | None) -> Iterator[tuple[Linear, str]]:
    """Read a norm's input as x + linear(...), in either order: the linear map, the name of x."""
    node = index.maker(norm.source, "Add") if norm is not None else None
    if node is None:
        return
    first, second = (index.origin(name) for name in node.input)
    for branch, residual in ((first, second), (second, first)):
        linear = index.linear(branch)
        if linear is not None and not index.is_constant(residual):
            yield linear, residual


def _activation(index: GraphIndex, value: str) -> tuple[Activation, str] | None:
    """Return an activation's kind and what it is applied to."""
    node = index.producers.get(index.origin(value))
    if node is None:
        return None
    if node.op_type == "Relu":
        return "relu", node.input[0]
    if node.op_type in {"Gelu", "FastGelu"} and len(node.input) == 1:
        tanh = node.op_type == "FastGelu" or any(entry.s == b"tanh" for entry in node.attribute)
        return ("tanh" if tanh else "erf"), node.input[0]
    return _gelu_of_arithmetic(index, value)


def _gelu_of_arithmetic(index: GraphIndex, value: str) -> tuple[Activation, str] | None:
    """Follow GELU's arithmetic back to its only linear map; Erf or Tanh tells which GELU it is."""
    kinds: list[str] = []
    sources: set[str] = set()
    waiting, seen = [index.origin(value)], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or index.is_constant(name):
            continue
        seen.add(name)
        node = index.producers.get(name)
        if index.linear(name) is not None:
            sources.add(name)
        elif node is None or node.op_type not in _GELU:
            return None
        else:
            kinds.append(node.op_type)
            waiting += map(index.origin, node.input)
    curves = [kind for kind in kinds if kind in {"Erf", "Tanh"}]
    if len(sources) != 1 or len(curves) != 1:
        return None
    return ("erf" if curves[0] == "Erf" else "tanh"), sources.pop()


def _attention(index: GraphIndex, context: str, source: str) -> Attention | None:
    # Some exporters zero the rows without a visible key; every pair's first row sees itself.
    mixing = _above(index, context, "MatMul", through=_LAYOUT | {"Where"})
    if mixing is None:
        return None
    softmax = _above(index, mixing.input[0], "Softmax", through=frozenset({"Where"}))
    if softmax is None:
        return None
    for scoring in _products(index, softmax.input[0]):
        traced = [_projection(index, name, source) for name in (*scoring.input, mixing.input[1])]
        query, key, value = (linear for linear, _ in traced)
        if query is None or key is None or value is None:
            continue
        sizes = {size for _, size in traced if size}
        width = query.weight.shape[1]
        if len(sizes) != 1 or width % (size := sizes.pop()) or key.weight.shape[1] != width:
            return None
        bias = _bias(index, softmax.input[0], scoring)
        return Attention(source, query, key, value, heads=width // size, bias=bias)
    return None


def _bias(index: GraphIndex, value: str, scoring: NodeProto) -> str:
    """Return what is added to the product of queries and keys, if it depends on the segments."""
    node = index.maker(value, "Add")
    for name in node.input if node is not None else ():
        makers = _makers(index, name)
        if scoring.output[0] not in makers and "token_type_ids" in makers:
            return str(name)
    return ""


def _makers(index: GraphIndex, value: str) -> set[str]:
    """Return the names of all values that a value is computed from, its own included."""
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop()
        node = index.producers.get(name)
        if name not in seen and node is not None and node.op_type not in {"Shape", "Size"}:
            waiting += node.input
        seen.add(name)
    return seen


def _above(
    index: GraphIndex, value: str, kind: str, *, through: frozenset[str]
) -> NodeProto | None:
    """Follow data up to a node of a kind, through others; a Where's data is its last input."""
    node = index.producers.get(index.origin(value))
    while node is not None and node.op_type != kind:
        if node.op_type not in through:
            return None
        place = 2 if node.op_type == "Where" else 0
        node = index.producers.get(index.origin(node.input[place]))
    return node


def _products(index: GraphIndex, value: str) -> Iterator[NodeProto]:
    """Find the products above a softmax, past scale and mask; one is that of queries and keys."""
    waiting, seen = [index.origin(value)], set[str]()
    while waiting:
        name = waiting.pop(0)
        node = index.producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "MatMul" and not any(map(index.is_constant, node.input)):
            yield node
        elif node.op_type in {"Add", "Where", "Mul", "Div", "Sub", "Cast"}:
            waiting += map(index.origin, node.input)


def _projection(index: GraphIndex, value: str, source: str) -> tuple[Linear | None, int]:
    """Follow a product's input up to its projection of `source`; also return a head's size."""
    size = 0
    name = index.origin(value)
    for _ in range(16):
        linear = index.linear(name)
        if linear is not None and linear.source == source:
            return linear, size
        node = index.producers.get(name)
        if node is None or node.op_type not in _LAYOUT:
            break
        if node.op_type == "Reshape":
            size = _last_axis(index, node.input[1]) or size
        name = index.origin(node.input[0])
    return None, size


def _last_axis(index: GraphIndex, shape: str) -> int:
    """Read the last axis of a shape if it is constant, 0 otherwise."""
    constant = index.constant(shape)
    if constant is None:
        node = index.maker(shape, "Concat")
        constant = index.constant(node.input[-1]) if node is not None else None
    if constant is None or not constant.size:
        return 0
    return max(0, int(np.asarray(constant).reshape(-1)[-1]))


def _takes_first_row(index: GraphIndex, node: NodeProto) -> bool:
    if node.op_type == "Gather":
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        place = index.constant(node.input[1])
        return axis == 1 and place is not None and place.size == 1 and not place.any()
    if node.op_type != "Slice" or len(node.input) < 4:  # noqa: PLR2004 - data, starts, ends, axes
        return False
    bounds = [index.constant(name) for name in node.input[1:4]]
    return [None if bound is None else bound.tolist() for bound in bounds] == [[0], [1], [1]]
