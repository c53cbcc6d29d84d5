"""Rewrites give the same scores with fewer operators, for every exporter's way of writing."""

import onnx
import pytest

from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.graph.emit import PREFIX
from rerank_plugins.scoring.onnx.graph.rewrite import rewrite
from rerank_plugins.scoring.onnx.graph.verify import TOLERANCE, compare, probes
from rerank_plugins.scoring.onnx.session import open_graph
from rerank_plugins.scoring.text.tokenizer import PairTokenizer
from tests.scoring.onnx.graph.exported import FOLDER, POST_NORM, batches


@pytest.mark.parametrize("name", POST_NORM)
def test_a_post_norm_encoder_is_fused_and_absorbed_with_equal_scores(name):
    """BERT, XLM-R and ELECTRA graphs of both exporters keep their scores to 1e-4 of the spread."""
    path = FOLDER / f"{name}.onnx"
    done = rewrite(onnx.load(path), ["logits"])
    assert (done.layers, done.first_row_only) == (2, True)
    rewritten = open_graph(done.model.SerializeToString())
    assert compare(open_graph(path, literal=True), rewritten, batches()) <= TOLERANCE


@pytest.mark.parametrize("name", POST_NORM)
def test_attention_of_the_last_layer_is_computed_for_one_row_only(name):
    """After absorption one fused attention is left, that of the first layer."""
    done = rewrite(onnx.load(FOLDER / f"{name}.onnx"), ["logits"])
    nodes = done.model.graph.node
    assert [node.op_type for node in nodes].count("Attention") == 1
    # ELECTRA's head has a GELU of its own.
    emitted = [node.op_type for node in nodes if node.name.startswith(PREFIX)]
    assert emitted.count("Gelu") == 2


def test_a_hidden_state_that_is_asked_for_keeps_its_name_and_all_rows():
    """A value wanted as an output is kept whole: its layer is fused, not absorbed."""
    path = FOLDER / "bert-eager-dynamo.onnx"
    last = next(
        node.output[0]
        for node in reversed(onnx.load(path).graph.node)
        if node.op_type == "LayerNormalization"
    )
    done = rewrite(onnx.load(path), ["logits", last])
    assert (done.layers, done.first_row_only) == (2, False)
    session = open_graph(done.model.SerializeToString()).session
    batch = batches()[1]
    feeds = {one.name: getattr(batch, one.name) for one in session.get_inputs()}
    assert session.run([last], feeds)[0].shape == (3, 17, 16)


def test_an_unknown_architecture_is_left_alone():
    """ModernBERT (pre-norm, rotary positions) has no layer that the rewrites know."""
    path = FOLDER / "modernbert-sdpa-dynamo.onnx"
    done = rewrite(onnx.load(path), ["logits"])
    assert (done.layers, done.dequantised, done.first_row_only) == (0, 0, False)
    rewritten = open_graph(done.model.SerializeToString())
    assert compare(open_graph(path, literal=True), rewritten, batches()) <= TOLERANCE


def test_a_head_that_reads_every_row_keeps_the_whole_last_layer():
    """A mean over rows instead of [CLS] forbids absorption, not fusion."""
    model = onnx.load(FOLDER / "bert-eager-dynamo.onnx")
    select = next(node for node in model.graph.node if node.output[0] == "select")
    del select.input[1:], select.attribute[:]
    select.op_type = "ReduceMean"
    axes = onnx.numpy_helper.from_array(onnx.numpy_helper.np.array([1]), "axes")
    model.graph.initializer.append(axes)
    select.input.append("axes")
    select.attribute.append(onnx.helper.make_attribute("keepdims", 0))
    original = open_graph(model.SerializeToString(), literal=True)
    done = rewrite(model, ["logits"])
    assert (done.layers, done.first_row_only) == (2, False)
    assert compare(original, open_graph(done.model.SerializeToString()), batches()) <= TOLERANCE


def test_attention_that_looks_at_the_segments_keeps_its_bias():
    """The embedded model's gates between query and passage reach the fused operator, per head."""
    files = find("embedded")
    done = rewrite(onnx.load(files.graph), ["logits"])
    fused = [node for node in done.model.graph.node if node.op_type == "Attention"]
    assert (done.layers, done.first_row_only) == (6, False)
    assert [len(node.input) for node in fused] == [6] * 6
    pairs = probes(PairTokenizer(files.tokenizer), 128)
    rewritten = open_graph(done.model.SerializeToString())
    assert compare(open_graph(files.graph, literal=True), rewritten, pairs) <= TOLERANCE
