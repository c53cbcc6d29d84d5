"""New graph nodes and stored tensors, with names that do not clash."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .read import Linear, Norm
from .recognise import Activation

MICROSOFT = "com.microsoft"
# No exporter's names begin like this.
PREFIX = "rerank_plugins"


@dataclass(slots=True)
class Emitter:
    """Collects new nodes and stored tensors, each under a new name."""

    prefix: str = PREFIX
    nodes: list[NodeProto] = field(default_factory=list)
    stored: dict[str, TensorProto] = field(default_factory=dict)
    _count: int = 0

    def node(
        self,
        kind: str,
        inputs: list[str],
        *,
        output: str | None = None,
        domain: str = "",
        settings: Mapping[str, float | Sequence[int]] | None = None,
    ) -> str:
        """Add a node with one output and return the output's name."""
        made = output or self._fresh(kind)
        node = helper.make_node(kind, inputs, [made], name=made, domain=domain)
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in (settings or {}).items()
        )
        self.nodes.append(node)
        return made

    def tensor(self, array: NDArray[np.generic] | list[int]) -> str:
        """Store an array (a list as int64) and return its name; equal lists are stored once."""
        values = np.asarray(array, dtype=np.int64) if isinstance(array, list) else array
        name = self._fresh("stored")
        if isinstance(array, list):
            name = f"{self.prefix}/axes/{'_'.join(map(str, array))}"
        self.stored[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def product(self, value: str, linear: Linear) -> str:
        """Multiply by the weight of a linear map; the next operator adds the bias."""
        return self.node("MatMul", [value, self.tensor(linear.weight)])

    def activate(self, value: str, bias: NDArray[np.float32], kind: Activation) -> str:
        """Add a bias and apply an activation.

        The exact GELU and its bias are two operators: on CPUs the fused one (BiasGelu) takes a
        third longer, 2 % of a MiniLM-L6, for the same bits (onnxruntime 1.31, AVX-512).
        `session.UNHELPFUL` keeps the runtime from fusing them.
        """
        stored = self.tensor(bias)
        if kind == "tanh":
            return self.node("FastGelu", [value, stored], domain=MICROSOFT)
        shifted = self.node("Add", [value, stored])
        if kind == "erf":
            return self.node("Gelu", [shifted], domain=MICROSOFT)
        return self.node("Relu", [shifted])

    def residual_norm(
        self,
        value: str,
        residual: str,
        linear: Linear,
        norm: Norm,
        *,
        output: str | None = None,
    ) -> str:
        """Normalise value + bias of `linear` + residual.

        Three operators: on CPUs the fused one (SkipLayerNormalization) took four times as long,
        11 % of a MiniLM-L6 at 128 tokens (onnxruntime 1.31, AVX-512).
        """
        shifted = self.node("Add", [value, self.tensor(linear.bias)])
        return self.node(
            "LayerNormalization",
            [
                self.node("Add", [shifted, residual]),
                self.tensor(norm.gain),
                self.tensor(norm.bias),
            ],
            output=output,
            settings={"epsilon": norm.epsilon, "axis": -1},
        )

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{self.prefix}/{kind}_{self._count}"
