"""int8 kernels made at load: the order of the exact ones, and no word from a pair's neighbours."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.graph.int8 import coded, multiply, open_int8
from rerank_plugins.scoring.onnx.graph.rewrite import rewrite
from rerank_plugins.scoring.onnx.graph.verify import compare, many, objection
from rerank_plugins.scoring.onnx.session import open_graph
from rerank_plugins.scoring.text.tokenizer import PairTokenizer
from tests.scoring.onnx.graph.exported import FOLDER, POST_NORM, batches
from tests.scoring.onnx.graph.test_dequantise import quantised


@pytest.fixture(scope="module")
def embedded():
    """The shipped model's files, whose weights are stored as int8."""
    return find("embedded")


@pytest.fixture(scope="module")
def probes(embedded):
    """Batches of real pairs, padded."""
    return many(PairTokenizer(embedded.tokenizer), 512)


@pytest.mark.parametrize("name", POST_NORM)
def test_every_rewritten_layer_takes_int8_kernels(name):
    """Six products a layer, four where the last one reads one row; scores stay near."""
    model = onnx.load(FOLDER / f"{name}.onnx")
    done = rewrite(model, ["logits"])
    exact = open_graph(model.SerializeToString())
    count = multiply(model, signed=True)
    assert count == 6 * done.layers - 2 * done.first_row_only
    assert 0.0 < compare(exact, open_graph(model.SerializeToString()), batches()) < 0.2


def test_signed_and_unsigned_weights_give_the_same_scores():
    """What is added up are whole numbers: CPUs whose signed kernels saturate lose nothing."""
    graphs = []
    for signed in (True, False):
        model = onnx.load(FOLDER / f"{POST_NORM[0]}.onnx")
        rewrite(model, ["logits"])
        multiply(model, signed=signed)
        graphs.append(open_graph(model.SerializeToString()))
    assert compare(*graphs, batches()) < 1e-6


def test_weights_stored_as_int8_get_their_codes_back():
    """The largest code of a column is 127, whatever its scale, so that nothing is rounded twice."""
    random = np.random.default_rng(0)
    stored = random.integers(-127, 128, (64, 8)).astype(np.int8)
    stored[0] = 127
    scales = random.uniform(1e-3, 1e-1, 8).astype(np.float32)
    codes, found = coded(stored * scales, signed=True)
    assert (codes == stored).all()
    assert np.allclose(found, scales, rtol=1e-6)
    assert (coded(stored * scales, signed=False)[0].astype(int) == codes.astype(int) + 128).all()


def test_kernels_are_made_once_and_kept(embedded, probes, tmp_path):
    """The second process takes the graph from disk; what is there is a quarter of fp32's size."""
    first = open_int8(embedded.graph, lambda: probes, folder=tmp_path)
    (kept,) = tmp_path.glob("*.onnx")
    assert kept.stat().st_size < 1.1 * embedded.graph.stat().st_size
    second = open_int8(embedded.graph, lambda: pytest.fail("tried twice"), folder=tmp_path)
    assert compare(first.graph, second.graph, probes) == 0.0
    assert not objection(open_graph(embedded.graph, literal=True), first.graph, probes)


def test_a_refusal_says_why_and_is_kept(tmp_path):
    """Without weights in int8 there is nothing to multiply; the next process reads the reason."""
    path = shutil.copy(FOLDER / "bert-sdpa-script.onnx", tmp_path / "model.onnx")
    found = open_int8(path, batches, folder=tmp_path / "cache")
    assert found == "its weights are not stored as int8 behind DequantizeLinear"
    again = open_int8(path, lambda: pytest.fail("tried twice"), folder=tmp_path / "cache")
    assert again == found


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (["Neg"], "its scores rank 6 pairs with a correlation of -1.000 to the exact ones"),
        (["Abs", "Neg", "Sqrt"], "its scores are not finite"),
        (["Identity"], ""),
    ],
)
def test_kernels_that_break_the_order_are_refused(steps, reason):
    """Another order of real pairs, or no numbers at all, is more than rounding."""
    model = quantised(axis=1, zero_point=False)
    exact = open_graph(model.SerializeToString())
    for node in model.graph.node:
        node.output[:] = ["made0" if name == "logits" else name for name in node.output]
    for place, kind in enumerate(steps):
        after = "logits" if place == len(steps) - 1 else f"made{place + 1}"
        model.graph.node.append(helper.make_node(kind, [f"made{place}"], [after]))
    found = objection(exact, open_graph(model.SerializeToString()), batches())
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_other_providers_run_the_exact_graph(embedded):
    """The kernels are the CPU's."""
    found = open_int8(embedded.graph, lambda: (), provider="cuda")
    assert found == "they need provider 'cpu', found 'cuda'"


def test_scores_that_depend_on_the_batch_are_refused(embedded, probes, tmp_path):
    """One scale for a whole batch lets neighbours move a pair's score; a scale per row does not."""
    model = onnx.load(embedded.graph)
    rewrite(model, ["logits"])
    exact = open_graph(model.SerializeToString())
    wide = {one.name for one in model.graph.initializer if min(one.dims, default=0) > 1}
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"
    quantize_dynamic(
        model,
        tmp_path / "dynamic.onnx",
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=[
            node.name
            for node in model.graph.node
            if node.op_type == "MatMul" and node.input[1] in wide and "gate" not in node.input[1]
        ],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    found = objection(exact, open_graph(tmp_path / "dynamic.onnx"), probes)
    assert found.startswith("a pair's score depends on its batch, by ")
