"""Recognise the layers of a post-norm encoder (BERT, RoBERTa, XLM-R, ELECTRA, MiniLM) in a graph.

Recognition looks at what is connected to what and reads the weights; that the reading is right in
every detail (scale, mask, activation) is proved afterwards, by running both graphs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from onnx import NodeProto

from .read import Linear, Norm, Reading

Activation: TypeAlias = Literal["erf", "tanh", "relu"]
# What may lie between a projection and the product that uses it.
_LAYOUT = frozenset({"Reshape", "Transpose", "Mul", "Div", "Unsqueeze", "Squeeze"})
_GELU = frozenset({"Mul", "Add", "Div", "Erf", "Tanh", "Pow"})


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head self-attention over the value named `source`, before its output projection.

    `bias` names what scores get added where that is more than a mask of keys: it then holds the
    mask as well, [batch, heads, length, length]. "" where it is the mask alone.
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
        """Name the layer's input."""
        return self.attention.source

    @property
    def hidden(self) -> int:
        """Width of the hidden state."""
        return int(self.out.weight.shape[1])


def find(reading: Reading) -> tuple[Layer, ...]:
    """Find every encoder layer, first to last; none where the graph is of another kind."""
    found: list[Layer] = []
    for node in reading.model.graph.node:
        if node.op_type in {"LayerNormalization", "Add"}:
            layer = _layer(reading, node.output[0])
            if layer is not None:
                found.append(layer)
    return tuple(found)


def _layer(reading: Reading, output: str) -> Layer | None:
    norm_2 = reading.norm(output)
    for narrow, middle in _residuals(reading, norm_2):
        active = _activation(reading, narrow.source)
        wide = reading.linear(active[1]) if active is not None else None
        norm_1 = reading.norm(middle)
        if active is None or wide is None or wide.source != middle:
            continue
        for out, source in _residuals(reading, norm_1):
            attention = _attention(reading, out.source, source)
            if attention is not None and norm_1 is not None and norm_2 is not None:
                return Layer(attention, out, norm_1, wide, active[0], narrow, norm_2, output)
    return None


def _residuals(reading: Reading, norm: Norm | None) -> Iterator[tuple[Linear, str]]:
    """Read a norm's input as x + linear(...), either way round: the linear map, the name of x."""
    node = reading.maker(norm.source, "Add") if norm is not None else None
    if node is None:
        return
    first, second = (reading.origin(name) for name in node.input)
    for branch, residual in ((first, second), (second, first)):
        linear = reading.linear(branch)
        if linear is not None and not reading.is_constant(residual):
            yield linear, residual


def _activation(reading: Reading, value: str) -> tuple[Activation, str] | None:
    """Read an activation: its kind and what it is applied to."""
    node = reading.producers.get(reading.origin(value))
    if node is None:
        return None
    if node.op_type == "Relu":
        return "relu", node.input[0]
    if node.op_type in {"Gelu", "FastGelu"} and len(node.input) == 1:
        tanh = node.op_type == "FastGelu" or any(one.s == b"tanh" for one in node.attribute)
        return ("tanh" if tanh else "erf"), node.input[0]
    return _spelled_gelu(reading, value)


def _spelled_gelu(reading: Reading, value: str) -> tuple[Activation, str] | None:
    """Follow arithmetic back to the one linear map it is made of; Erf or Tanh tells which GELU."""
    kinds: list[str] = []
    sources: set[str] = set()
    waiting, seen = [reading.origin(value)], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or reading.is_constant(name):
            continue
        seen.add(name)
        node = reading.producers.get(name)
        if reading.linear(name) is not None:
            sources.add(name)
        elif node is None or node.op_type not in _GELU:
            return None
        else:
            kinds.append(node.op_type)
            waiting += [reading.origin(one) for one in node.input]
    curves = [kind for kind in kinds if kind in {"Erf", "Tanh"}]
    if len(sources) != 1 or len(curves) != 1:
        return None
    return ("erf" if curves[0] == "Erf" else "tanh"), sources.pop()


def _attention(reading: Reading, context: str, source: str) -> Attention | None:
    # Some exporters zero the rows that see no key; [CLS] and its like always see themselves.
    mixing = _above(reading, context, "MatMul", through=_LAYOUT | {"Where"})
    if mixing is None:
        return None
    softmax = _above(reading, mixing.input[0], "Softmax", through=frozenset({"Where"}))
    if softmax is None:
        return None
    for scoring in _products(reading, softmax.input[0]):
        traced = [_projection(reading, name, source) for name in (*scoring.input, mixing.input[1])]
        query, key, value = (linear for linear, _ in traced)
        if query is None or key is None or value is None:
            continue
        sizes = {size for _, size in traced if size}
        width = query.weight.shape[1]
        if len(sizes) != 1 or width % (size := sizes.pop()) or key.weight.shape[1] != width:
            return None
        bias = _bias(reading, softmax.input[0], scoring)
        return Attention(source, query, key, value, heads=width // size, bias=bias)
    return None


def _bias(reading: Reading, value: str, scoring: NodeProto) -> str:
    """Name what is added to the product of queries and keys, if it looks at the segments."""
    node = reading.maker(value, "Add")
    for name in node.input if node is not None else ():
        makers = _makers(reading, name)
        if scoring.output[0] not in makers and "token_type_ids" in makers:
            return str(name)
    return ""


def _makers(reading: Reading, value: str) -> set[str]:
    """Collect the names of all values whose content a value is made from, its own included."""
    waiting, seen = [value], set[str]()
    while waiting:
        name = waiting.pop()
        node = reading.producers.get(name)
        if name not in seen and node is not None and node.op_type not in {"Shape", "Size"}:
            waiting += node.input
        seen.add(name)
    return seen


def _above(reading: Reading, value: str, kind: str, *, through: frozenset[str]) -> NodeProto | None:
    """Climb to a node of a kind; of a node with several inputs the last is the data (Where)."""
    node = reading.producers.get(reading.origin(value))
    while node is not None and node.op_type != kind:
        if node.op_type not in through:
            return None
        place = 2 if node.op_type == "Where" else 0
        node = reading.producers.get(reading.origin(node.input[place]))
    return node


def _products(reading: Reading, value: str) -> Iterator[NodeProto]:
    """Find the products above a softmax, past scale and mask: that of queries and keys is one."""
    waiting, seen = [reading.origin(value)], set[str]()
    while waiting:
        name = waiting.pop(0)
        node = reading.producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "MatMul" and not any(map(reading.is_constant, node.input)):
            yield node
        elif node.op_type in {"Add", "Where", "Mul", "Div", "Sub", "Cast"}:
            waiting += [reading.origin(one) for one in node.input]


def _projection(reading: Reading, value: str, source: str) -> tuple[Linear | None, int]:
    """Climb from a product's input to its projection of `source`; also give the size of a head."""
    size = 0
    name = reading.origin(value)
    for _ in range(16):
        linear = reading.linear(name)
        if linear is not None and linear.source == source:
            return linear, size
        node = reading.producers.get(name)
        if node is None or node.op_type not in _LAYOUT:
            break
        if node.op_type == "Reshape":
            size = _last_axis(reading, node.input[1]) or size
        name = reading.origin(node.input[0])
    return None, size


def _last_axis(reading: Reading, shape: str) -> int:
    """Read the last axis of a shape if it is constant, 0 otherwise."""
    constant = reading.constant(shape)
    if constant is None:
        node = reading.maker(shape, "Concat")
        constant = reading.constant(node.input[-1]) if node is not None else None
    if constant is None or not constant.size:
        return 0
    return max(0, int(np.asarray(constant).reshape(-1)[-1]))


def reads_only_first_row(reading: Reading, value: str, outputs: Sequence[str]) -> bool:
    """Tell whether all that follows a hidden state [batch, length, hidden] uses row 0 alone."""
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in outputs:
            return False
        for node in reading.consumers.get(name, ()):
            if node.op_type in {"Identity", "Dropout"}:
                waiting.append(node.output[0])
            elif not _takes_first_row(reading, node):
                return False
    return True


def _takes_first_row(reading: Reading, node: NodeProto) -> bool:
    if node.op_type == "Gather":
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        place = reading.constant(node.input[1])
        return axis == 1 and place is not None and place.size == 1 and not place.any()
    if node.op_type != "Slice" or len(node.input) < 4:  # noqa: PLR2004 - data, starts, ends, axes
        return False
    bounds = [reading.constant(name) for name in node.input[1:4]]
    return [None if one is None else one.tolist() for one in bounds] == [[0], [1], [1]]
