"""Read a graph with its weights, and index its producers, constants and linear maps."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ...models.content import GraphFile, external, parse

# Operators that return their first input unchanged at inference.
PASSING = frozenset({"Identity", "Dropout"})


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x @ weight + bias, weight [in, out]; `source` names x."""

    source: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer normalisation over the last axis; `source` names what it normalises."""

    source: str
    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True, slots=True)
class GraphIndex:
    """A graph with its values indexed by name.

    producers, consumers: the node that computes a value, and those that read it.
    stored: the tensors in the file.
    """

    model: ModelProto
    producers: Mapping[str, NodeProto]
    consumers: Mapping[str, tuple[NodeProto, ...]]
    stored: Mapping[str, TensorProto]

    @classmethod
    def of(cls, model: ModelProto) -> "GraphIndex":
        """Index a model's main graph."""
        producers: dict[str, NodeProto] = {}
        consumers: dict[str, list[NodeProto]] = defaultdict(list)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            producers |= dict.fromkeys(node.output, node)
            for name in node.input:
                consumers[name].append(node)
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                stored[node.output[0]] = node.attribute[0].t
        return cls(
            model, producers, {name: tuple(nodes) for name, nodes in consumers.items()}, stored
        )

    def origin(self, value: str) -> str:
        """Return the value that operators without effect passed on as `value`."""
        node = self.producers.get(value)
        while node is not None and node.op_type in PASSING:
            value = node.input[0]
            node = self.producers.get(value)
        return value

    def maker(self, value: str, *kinds: str) -> NodeProto | None:
        """Return the node that computes a value, None if it is of none of these kinds."""
        node = self.producers.get(self.origin(value))
        return node if node is not None and node.op_type in kinds else None

    def constant(self, value: str) -> NDArray[np.generic] | None:
        """Return a stored tensor, None for a value that is computed."""
        name = self.origin(value)
        return numpy_helper.to_array(self.stored[name]) if name in self.stored else None

    def is_constant(self, value: str) -> bool:
        """True if a value is stored in the file."""
        return self.origin(value) in self.stored

    def computed_and_constant(self, node: NodeProto) -> tuple[str, NDArray[np.float32]] | None:
        """Return a binary operator's computed input and its constant one, in this order."""
        first, second = node.input[0], node.input[1]
        for computed, stored in ((first, second), (second, first)):
            constant = self.constant(stored)
            if constant is not None and not self.is_constant(computed):
                return computed, np.asarray(constant, dtype=np.float32)
        return None

    def linear(self, value: str) -> Linear | None:
        """Read a value as a linear map: MatMul with or without Add, or Gemm."""
        node = self.maker(value, "Add", "MatMul", "Gemm")
        if node is None:
            return None
        if node.op_type == "Gemm":
            return self._gemm(node)
        if node.op_type == "MatMul":
            return self._product(node, None)
        parts = self.computed_and_constant(node)
        product = self.maker(parts[0], "MatMul") if parts is not None else None
        if parts is None or product is None or parts[1].ndim != 1:
            return None
        return self._product(product, parts[1])

    def norm(self, value: str) -> Norm | None:
        """Read a value as a layer normalisation: one operator, or its arithmetic."""
        node = self.maker(value, "LayerNormalization", "Add")
        if node is None:
            return None
        if node.op_type == "Add":
            return self._norm_of_arithmetic(node)
        gain, bias = (self.constant(name) for name in (*node.input[1:], "")[:2])
        if gain is None or bias is None:
            return None
        epsilon = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
        return Norm(
            self.origin(node.input[0]),
            np.asarray(gain, np.float32),
            np.asarray(bias, np.float32),
            epsilon,
        )

    def _product(self, node: NodeProto, bias: NDArray[np.float32] | None) -> Linear | None:
        weight = self.constant(node.input[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:  # noqa: PLR2004
            return None
        if bias is None:
            bias = np.zeros(weight.shape[1], dtype=np.float32)
        return Linear(self.origin(node.input[0]), np.asarray(weight, np.float32), bias)

    def _gemm(self, node: NodeProto) -> Linear | None:
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        weight, bias = (self.constant(name) for name in (*node.input[1:], "")[:2])
        plain = all(settings.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if weight is None or bias is None or not plain or settings.get("transA", 0):
            return None
        matrix = np.asarray(weight, np.float32)
        return Linear(
            self.origin(node.input[0]),
            matrix.T if settings.get("transB", 0) else matrix,
            np.asarray(bias, np.float32),
        )

    def _norm_of_arithmetic(self, node: NodeProto) -> Norm | None:
        """Match (s - mean(s)) / sqrt(mean((s - mean(s))^2) + epsilon) * gain + bias."""
        shift = self.computed_and_constant(node)
        scale = self.maker(shift[0], "Mul") if shift is not None else None
        scaled = self.computed_and_constant(scale) if scale is not None else None
        ratio = self.maker(scaled[0], "Div") if scaled is not None else None
        if shift is None or scaled is None or ratio is None:
            return None
        centred = self.maker(ratio.input[0], "Sub")
        root = self.maker(ratio.input[1], "Sqrt")
        spread = self.maker(root.input[0], "Add") if root is not None else None
        epsilon = self.computed_and_constant(spread) if spread is not None else None
        if centred is None or epsilon is None:
            return None
        mean = self.maker(centred.input[1], "ReduceMean")
        source = self.origin(centred.input[0])
        if mean is None or self.origin(mean.input[0]) != source:
            return None
        return Norm(source, scaled[1], shift[1], float(epsilon[1].reshape(-1)[0]))


def load(graph: Path | GraphFile) -> ModelProto:
    """Read a graph with its weights, wherever it keeps them. Raises `ModelError`."""
    file = GraphFile.of(graph)
    data, weights = file.read()
    model = parse(file.path, data)
    for tensor in list(external(model)):
        fields = {entry.key: entry.value for entry in tensor.external_data}
        start = int(fields.get("offset", 0))
        stored = memoryview(weights[fields["location"]])[start:]
        tensor.raw_data = bytes(stored[: int(fields["length"])] if "length" in fields else stored)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return model
