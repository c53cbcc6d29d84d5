"""Write the trained model as ONNX with int8 weights, its tokenizer and its manifest."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .encoder import pair_tokenizer
from .model import EXITS, LAYERS, CrossEncoder, attention_masks, halves, head_masks

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("logits", "exit_2", "exit_4")
HIDDEN_STATES = ("hidden_2", "hidden_4")


class Graph(nn.Module):
    """The model with its exits as separate outputs [batch, 1] and two hidden states to cut at."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits, exit_2, exit_4, hidden_2, hidden_4."""
        model = self.model
        token_type_ids = halves(token_type_ids)
        x = model.embeddings(input_ids, token_type_ids)
        masks = head_masks(input_ids, attention_mask, token_type_ids)
        sides, mask = attention_masks(attention_mask.to(x.dtype), token_type_ids.to(x.dtype))
        scores, states = {}, {}
        for i, layer in enumerate(model.layers, start=1):
            x = layer(x, sides, mask)
            if i in EXITS:
                states[i] = x
                place = EXITS.index(i)
                rows = x if i == LAYERS else model.bridges[place](x)
                scores[i] = model.heads[place](rows, masks)
        last = scores[6] + scores[4] if model.residual else scores[6]
        return last[:, None], scores[2][:, None], scores[4][:, None], states[2], states[4]


def to_onnx(model: CrossEncoder, path: Path) -> None:
    """Write the fp32 graph; batch and length are dynamic, hidden states keep their names but are no outputs."""
    ids = torch.randint(1_000, 2_000, (2, 16))
    on, kind = torch.ones_like(ids), torch.zeros_like(ids)
    on[1, 12:] = 0
    kind[:, 6:] = 1
    names = [*OUTPUTS, *HIDDEN_STATES]
    axes = {name: {0: "batch", 1: "length"} for name in (*INPUTS, *HIDDEN_STATES)} | {
        name: {0: "batch"} for name in OUTPUTS
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph(model.float().eval()), (ids, on, kind), str(path), input_names=list(INPUTS), output_names=names,
            dynamic_axes=axes, opset_version=OPSET, dynamo=False, do_constant_folding=True,
        )  # fmt: skip
    proto = onnx.load(str(path))
    for output in [o for o in proto.graph.output if o.name in HIDDEN_STATES]:
        proto.graph.output.remove(output)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _rounded(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 values and the fp32 scale per slice along `axis` (2-d weights only).

    >>> values, scale = _rounded(np.array([[127.0, 1.0], [0.0, -2.0]], np.float32), axis=0)
    >>> values.tolist(), scale.round(4).tolist()
    ([[127, 1], [0, -127]], [1.0, 0.0157])
    """
    scale = (np.abs(weight).max(1 - axis) / 127).astype(np.float32)
    scale[scale == 0] = 1
    values = np.round(weight / np.expand_dims(scale, 1 - axis)).clip(-127, 127)
    return values.astype(np.int8), scale


def quantise(source: Path, target: Path, *, at_least: int = 100_000) -> int:
    """Write `source` with int8 weights behind DequantizeLinear; return how many weights were rounded.

    MatMul weights [in, out] get a scale per output channel (axis 1), embedding tables one per row (axis 0).
    """
    proto = onnx.load(str(source))
    graph = proto.graph
    readers = {name: node for node in graph.node for name in node.input}
    rounded, added = 0, []
    for weight in list(graph.initializer):
        node = readers.get(weight.name)
        if (
            weight.data_type != TensorProto.FLOAT
            or len(weight.dims) != 2
            or np.prod(weight.dims) < at_least
        ):
            continue
        if node is None or node.op_type not in {"MatMul", "Gather", "Gemm"}:
            continue
        per_row = node.op_type == "Gather" or any(
            a.name == "transB" and a.i for a in node.attribute
        )
        axis = 0 if per_row else 1
        values, scale = _rounded(numpy_helper.to_array(weight), axis)
        name = weight.name
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(values, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        added.append(
            helper.make_node(
                "DequantizeLinear",
                [f"{name}.int8", f"{name}.scale"],
                [name],
                f"{name}.dequantise",
                axis=axis,
            )
        )
        rounded += 1
    for node in reversed(added):
        graph.node.insert(0, node)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(target))
    return rounded


def rounded_copy(model: CrossEncoder) -> CrossEncoder:
    """Return the model with the weights that the int8 file holds, for measuring with torch."""
    import copy

    twin = copy.deepcopy(model).float()
    with torch.no_grad():
        for _, parameter in twin.named_parameters():
            if parameter.ndim == 2 and parameter.numel() >= 100_000:
                # torch keeps [out, in] and tables [rows, width]: both have their scale on axis 0.
                values, scale = _rounded(parameter.numpy(), 0)
                parameter.copy_(torch.from_numpy(values * scale[:, None]))
    return twin


def package(model: CrossEncoder, folder: Path, scratch: Path) -> dict[str, float]:
    """Write model.onnx and tokenizer.json; return the largest differences to torch on random pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    to_onnx(model, scratch / "fp32.onnx")
    quantise(scratch / "fp32.onnx", folder / "model.onnx")
    pair_tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
    return {
        "fp32": difference(model, scratch / "fp32.onnx"),
        "int8 against rounded torch": difference(rounded_copy(model), folder / "model.onnx"),
    }


@torch.no_grad()
def difference(model: CrossEncoder, path: Path, *, seed: int = 0) -> float:
    """Return the largest score difference between torch and the file over three padded batches."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Beyond "basic" ONNX Runtime replaces DequantizeLinear + MatMul by int8 kernels (.1 of score error).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    worst = 0.0
    for batch, length in ((1, 24), (5, 97), (3, 260)):
        ids = rng.integers(1_000, 30_000, (batch, length))
        ids[:, 0], ids[:, 9], ids[:, -1] = 101, 102, 102
        on, kind = np.ones_like(ids), np.zeros_like(ids)
        kind[:, 10:] = 1
        if batch > 1:
            on[1, length - 7 :], ids[1, length - 7 :], kind[1, length - 7 :] = 0, 0, 0
        feeds = dict(zip(INPUTS, (ids, on, kind), strict=True))
        found = session.run(list(OUTPUTS), feeds)
        expected = Graph(model.float().eval())(*(torch.from_numpy(feeds[name]) for name in INPUTS))
        worst = max(
            worst,
            *(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=False)),
        )
    return worst


def manifest(folder: Path) -> None:
    """Write manifest.json: size and sha256 of every other file in the folder."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"manifest.json", "__init__.py"}
    }
    (folder / "manifest.json").write_text(
        json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8"
    )
