"""Weights stored as int8 give the scores that the file means, in fp32."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rerank_plugins.scoring.onnx.graph.dequantise import dequantise
from rerank_plugins.scoring.onnx.graph.rewrite import rewrite
from rerank_plugins.scoring.onnx.graph.verify import TOLERANCE, compare
from rerank_plugins.scoring.onnx.session import open_graph
from tests.scoring.onnx.graph.exported import FOLDER, batches


def quantised(*, axis: int, zero_point: bool) -> onnx.ModelProto:
    """Store every matrix of the tiny BERT as int8 behind a DequantizeLinear."""
    model = onnx.load(FOLDER / "bert-eager-dynamo.onnx")
    graph = model.graph
    nodes = list(graph.node)
    stored = []
    for tensor in list(graph.initializer):
        weight = numpy_helper.to_array(tensor)
        if weight.dtype != np.float32 or weight.ndim != 2:
            continue
        scale = np.abs(weight).max(axis=1 - axis, keepdims=True) / 100 + 1e-9
        small = np.round(weight / scale).astype(np.int8)
        parts = {"q": small, "s": scale.reshape(-1).astype(np.float32)}
        if zero_point:
            parts["z"] = np.full(scale.size, 3, dtype=np.int8)
        stored += [
            numpy_helper.from_array(part, f"{tensor.name}_{end}") for end, part in parts.items()
        ]
        inputs = [f"{tensor.name}_{end}" for end in parts]
        nodes.insert(0, helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=axis))
        graph.initializer.remove(tensor)
    graph.initializer.extend(stored)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("zero_point", [False, True])
def test_int8_weights_give_the_scores_that_the_file_says(axis, zero_point):
    """Scales along rows or columns, with and without zero points, are folded exactly."""
    model = quantised(axis=axis, zero_point=zero_point)
    original = open_graph(model.SerializeToString(), literal=True)
    done = rewrite(model, ["logits"])
    assert done.dequantised > 10
    assert (done.layers, done.first_row_only) == (2, True)
    assert compare(original, open_graph(done.model.SerializeToString()), batches()) <= TOLERANCE


def test_tables_that_are_only_looked_up_in_stay_int8():
    """Word embeddings keep a quarter of their size: only the rows read become fp32."""
    model = quantised(axis=1, zero_point=False)
    dequantise(model)
    small = {one.name for one in model.graph.initializer if one.data_type == 3}
    assert any("word_embeddings" in name for name in small)
    assert all("embeddings" in name for name in small if name in _inputs(model))


def _inputs(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.input}
