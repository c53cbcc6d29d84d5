"""Random-weight encoders with any number of layers, and with heads of their own where wanted.

The same tiny parts as in `tests.tiny`; the format is that of the embedded model: outputs logits and
exit_N, hidden states named hidden_N, a card that lists them.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import tiny

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def build(folder: Path, layers: int = 3, exits: Sequence[int] = ()) -> Path:
    """Write a model; `exits` are the layers with a head of their own, named on its card."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model(layers, exits), folder / "model.onnx")
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "max_position_embeddings": 128, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    listed = [{"layer": n, "output": f"exit_{n}", "hidden": f"hidden_{n}"} for n in exits]
    card = {"exits": listed, "calibration": {"a": 1.0, "b": 0.0}} if exits else {}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def model(layers: int, exits: Sequence[int]) -> onnx.ModelProto:
    """Build the graph; the last score corrects the last exit's, as the embedded model's does."""
    shape = tiny.Shape()
    net = tiny._Net(tiny.SEED)
    x, bias = tiny._embeddings(net, shape), tiny._bias(net, shape)
    previous = None
    outputs = []
    for layer in range(1, layers + 1):
        x = tiny._layer(net, x, bias)
        if layer in exits:
            net.nodes.append(helper.make_node("Identity", [x], [f"hidden_{layer}"]))
            x = f"hidden_{layer}"
        if layer in exits or layer == layers:
            score = _head(net, x)
            if layer == layers and previous is not None:
                score = net.node("Add", score, previous)
            previous = score
            name = "logits" if layer == layers else f"exit_{layer}"
            net.nodes.append(helper.make_node("Identity", [score], [name]))
            outputs.append(name)
    graph = helper.make_graph(
        net.nodes,
        "layered",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"]) for n in INPUTS],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in outputs[::-1]],
        net.weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def _head(net: "tiny._Net", x: str) -> str:
    first = net.node("Gather", x, net.weight(np.array(0, np.int64)), axis=1)
    pooled = net.node("Tanh", net.linear(first, tiny.HIDDEN, tiny.HIDDEN))
    return net.node("Mul", net.linear(pooled, tiny.HIDDEN, 1), net.normal(1, scale=4.0))
