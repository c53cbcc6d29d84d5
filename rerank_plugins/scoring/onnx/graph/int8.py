"""A graph with int8 kernels, made at load from weights stored as int8, and tried on real pairs."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ...models.content import GraphFile
from ...models.files import cpu_features
from ..session import Provider, open_graph, score_output
from . import cache
from .emit import MICROSOFT, PREFIX, Emitter
from .prepare import Prepared, Probes, kept_or_made, make_graph, oversized, runtime
from .rewrite import prune, rewrite
from .verify import objection

Codes: TypeAlias = NDArray[np.int8] | NDArray[np.uint8]

# CPUs with these add products of 8 bits without saturating.
_SAFE = frozenset({"avx512_vnni", "avx_vnni", "arm64"})
_MIDDLE = 128
# GELU is never below -0.17 and often far above 0: most codes are for positive values.
_ZERO_AFTER = {"Gelu": 20, "FastGelu": 20}
# The scale of a row of zeros.
_LEAST_SCALE = 1e-30
# From this opset on, the axes of a reduction are an input and not an attribute.
_AXES_AS_INPUT = 18


def open_int8(
    path: Path | GraphFile,
    probes: Probes,
    *,
    provider: Provider = "cpu",
    intra_threads: int = 1,
    folder: Path | None = None,
) -> Prepared | str:
    """Open a graph with int8 kernels in its layers, or return why there is none.

    `verify.objection` tries it on `probes`; `folder` keeps the result or the reason. Raises
    `ModelError`.
    """
    if provider != "cpu":
        return f"they need provider 'cpu', found {provider!r}"
    file = GraphFile.of(path)
    if too_big := oversized(file):
        return too_big
    opener = partial(open_graph, intra_threads=intra_threads)
    name = "" if folder is None else cache.key(file, f"{runtime(provider)} int8")
    making = partial(make_graph, file, opener, _take_kernels, objection, probes)
    found = kept_or_made(folder, name, making, opener)
    return found if isinstance(found, str) else Prepared(found, key=name)


def multiply(model: ModelProto, *, signed: bool) -> int:
    """Replace the products of a rewritten graph by int8 kernels, in place; count them.

    `signed` weights need a CPU that adds products of 8 bits without saturating (VNNI, Arm);
    unsigned weights give the same scores everywhere. The head stays fp32: it is small, and close
    scores decide the order.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}  # noqa: PLR2004
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    products = _Products(Emitter(f"{PREFIX}/int8"), signed, version >= _AXES_AS_INPUT)
    done = 0
    for node in graph.node:
        products.zeros |= dict.fromkeys(node.output, _ZERO_AFTER.get(node.op_type, _MIDDLE))
        weight = stored.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or not node.name.startswith(PREFIX):
            products.emitter.nodes.append(node)
        elif node.op_type == "MatMul":
            products.product(node.input[0], _fp32(weight), node.output[0])
            done += 1
        elif node.op_type == "Attention":
            _attention(products, node, _fp32(weight))
            done += 3
        else:
            products.emitter.nodes.append(node)
    del graph.node[:]
    graph.node.extend(products.emitter.nodes)
    graph.initializer.extend(products.emitter.stored.values())
    prune(model, [value.name for value in graph.output])
    return done


def coded(weight: NDArray[np.float32], *, signed: bool) -> tuple[Codes, NDArray[np.float32]]:
    """Return a weight's codes [in, out] and a scale for each column.

    Weights that were stored as int8 with a scale per column get the same codes again.

    >>> codes, scales = coded(np.array([[0.5, 0.0], [-1.27, 0.0]], np.float32), signed=True)
    >>> codes.tolist(), [round(float(scale), 4) for scale in scales]
    ([[50, 0], [-127, 0]], [0.01, 1.0])
    """
    scales = np.abs(weight).max(axis=0) / np.float32(127)
    scales[scales == 0] = 1.0
    codes = np.rint(weight / scales)
    if signed:
        return codes.astype(np.int8), scales
    return (codes + _MIDDLE).astype(np.uint8), scales


def _take_kernels(model: ModelProto) -> str:
    """Change a model as `prepare.make_graph` expects it."""
    done = rewrite(model, [score_output([value.name for value in model.graph.output])])
    if not done.dequantised:
        return "its weights are not stored as int8 behind DequantizeLinear"
    if not done.layers:
        return "no encoder layer was recognised"
    multiply(model, signed=bool(_SAFE & cpu_features()))
    return ""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Names of what a value [..., width] was rounded to, one scale per row.

    codes: uint8 [rows, width].
    zero: the code of 0.0, the same for all rows.
    scales: fp32 [rows, 1].
    leading: the value's axes before the last.
    """

    codes: str
    zero: str
    scales: str
    leading: str


@dataclass(slots=True)
class _Products:
    """Emits int8 products; a value that several weights multiply is rounded once.

    zeros: per value, the code of 0.0.
    known: the values that are rounded already.
    """

    emitter: Emitter
    signed: bool
    axes_as_input: bool
    zeros: dict[str, int] = field(default_factory=dict)
    known: dict[str, _Rows] = field(default_factory=dict)

    def product(self, value: str, weight: NDArray[np.float32], output: str | None = None) -> str:
        """Multiply a value [..., in] by a weight [in, out]."""
        rows = self.known.get(value) or self._rounded(value, weight.shape[0])
        self.known[value] = rows
        codes, scales = coded(weight, signed=self.signed)
        emit, store = self.emitter.node, self.emitter.tensor
        # The operator takes no scale per row: those are multiplied in afterwards.
        inputs = [rows.codes, store(codes), store(np.ones(1, np.float32)), store(scales), rows.zero]
        if not self.signed:
            inputs.append(store(np.array(_MIDDLE, np.uint8)))
        sums = emit("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        values = emit("Mul", [sums, rows.scales])
        shape = emit("Concat", [rows.leading, store([weight.shape[1]])], settings={"axis": 0})
        return emit("Reshape", [values, shape], output=output)

    def _rounded(self, value: str, width: int) -> _Rows:
        emit, store = self.emitter.node, self.emitter.tensor
        zero = self.zeros.get(value, _MIDDLE)
        rows = emit("Reshape", [value, store([-1, width])])
        above = np.array([1.0 / (255 - zero)], np.float32)
        below = np.array([-1.0 / zero], np.float32)
        scales = emit(
            "Max",
            [
                emit("Mul", [self._extreme("ReduceMax", rows), store(above)]),
                emit("Mul", [self._extreme("ReduceMin", rows), store(below)]),
                store(np.array([_LEAST_SCALE], np.float32)),
            ],
        )
        flat = emit("Reshape", [scales, store([-1])])
        zeros = emit("Expand", [store(np.array([zero], np.uint8)), emit("Shape", [flat])])
        codes = emit("QuantizeLinear", [rows, flat, zeros], settings={"axis": 0})
        leading = emit("Slice", [emit("Shape", [value]), store([0]), store([-1])])
        return _Rows(codes, store(np.array(zero, np.uint8)), scales, leading)

    def _extreme(self, kind: str, rows: str) -> str:
        if self.axes_as_input:
            return self.emitter.node(kind, [rows, self.emitter.tensor([-1])])
        return self.emitter.node(kind, [rows], settings={"axes": [-1]})


def _attention(products: _Products, node: NodeProto, weight: NDArray[np.float32]) -> None:
    """Emit the products for queries, keys and values; the fused operator computes the rest."""
    heads = next(entry.i for entry in node.attribute if entry.name == "num_heads")
    parts = [products.product(node.input[0], part) for part in np.split(weight, 3, axis=1)]
    mask, bias = (*node.input[3:], "", "", "")[0], (*node.input[5:], "")[0]
    made = helper.make_node(
        "MultiHeadAttention",
        [*parts, node.input[2], mask, bias],
        list(node.output),
        domain=MICROSOFT,
        num_heads=heads,
    )
    products.emitter.nodes.append(made)


def _fp32(tensor: TensorProto) -> NDArray[np.float32]:
    return np.asarray(numpy_helper.to_array(tensor), np.float32)
