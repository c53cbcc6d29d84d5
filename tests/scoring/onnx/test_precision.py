"""int8 kernels run unasked only where a card vouches for them and they are faster here."""

import itertools
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from rerank_plugins.cli import checks
from rerank_plugins.config.build import build_setup
from rerank_plugins.config.read import parse_settings
from rerank_plugins.records import Code
from rerank_plugins.reranker import Reranker
from rerank_plugins.scoring.models.content import sha256
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx import precision
from rerank_plugins.scoring.onnx.graph import cache
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from tests import tiny

INT8 = "model_int8.onnx"
VOUCHED = {"int8": {INT8: {"ndcg@10_loss": 0.002, "queries": 400}}}
PASSAGES = tiny.passages(12)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def burden(path):
    """Give a graph milliseconds of products that depend on its input and change no score."""
    model = onnx.load(path)
    graph = model.graph
    (last,) = [node for node in graph.node if "logits" in node.output]
    last.output[0] = "bare"
    graph.initializer.append(numpy_helper.from_array(np.zeros((256, 256), np.float32), "square"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    graph.node.append(helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("ReduceMax", ["ids"], ["most"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["square", "most"], ["heavy0"]))
    for i in range(16):
        graph.node.append(helper.make_node("MatMul", [f"heavy{i}"] * 2, [f"product{i}"]))
        graph.node.append(helper.make_node("Tanh", [f"product{i}"], [f"heavy{i + 1}"]))
    graph.node.append(helper.make_node("ReduceMax", ["heavy16"], ["weight"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["weight", "nothing"], ["zero"]))
    graph.node.append(helper.make_node("Add", ["bare", "zero"], ["logits"]))
    onnx.save(model, path)


def made(folder, card=VOUCHED, slow="model.onnx"):
    """Write a tiny model, its int8 kernels, and a card; one of the two graphs is slow."""
    tiny.build(folder)
    quantize_dynamic(folder / "model.onnx", folder / INT8, weight_type=QuantType.QInt8)
    burden(folder / slow)
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def answered(folder, **options):
    """Rerank with a model under stage options."""
    stage = {"scorer": str(folder), **options}
    with Reranker(build_setup(parse_settings({"stages": [stage]}, "the test"))) as reranker:
        return reranker.rerank("what is a red fox", PASSAGES)


def scores(result):
    """Give scores by passage."""
    return [hit.score for hit in sorted(result, key=lambda hit: hit.index)]


def told(result):
    """Give what the decision about kernels says, None where there is none."""
    found = [one for one in result.decisions if one.code is Code.KERNELS]
    return found[0].detail if found else None


@pytest.mark.parametrize(
    "table",
    [
        None,
        "yes",
        {INT8: None},
        {INT8: {}},
        {INT8: {"ndcg@10_loss": 0.005}},
        {INT8: {"ndcg@10_loss": float("nan")}},
        {INT8: {"ndcg@10_loss": True}},
        {INT8: {"ndcg@10_loss": "0.001"}},
    ],
)
def test_without_a_card_that_vouches_nothing_is_looked_for_or_measured(tmp_path, table):
    """The default is exact: only a recorded loss below 0.005 nDCG@10 opens the question."""
    card = {} if table is None else {"int8": table}
    (tiny.build(tmp_path) / "card.json").write_text(json.dumps(card))
    files = find(tmp_path)
    assert precision.choose(files, OnnxOptions(), lambda: pytest.fail("looked for")) == files
    assert not (tmp_path / "home").exists()


def test_the_model_in_the_package_runs_exact_kernels():
    """Its card vouches for no int8 graph: its int8 weights become fp32 at load, as ever."""
    assert precision.vouched(find("embedded").card) == {}


def test_vouched_kernels_that_are_faster_run_and_the_result_says_so(tmp_path):
    """Scores are those of precision = "int8", and the decision names gain and loss."""
    folder = made(tmp_path / "model")
    ours = answered(folder)
    assert told(ours).startswith(f"int8: {INT8} is ")
    assert told(ours).endswith("times as fast here, and by its card loses 0.002 nDCG@10")
    assert scores(ours) == scores(answered(folder, precision="int8"))
    assert not ours.degraded


def test_doctor_tells_which_kernels_run(tmp_path):
    """The choice can be read before any request."""
    settings = parse_settings({"stages": [{"scorer": str(made(tmp_path / "model"))}]}, "the test")
    found = {check.name: check.found for check in checks.examine(settings)}
    assert found["stage 1: kernels"].startswith(f"int8: {INT8} is ")
    assert found["stage 1: graph"].split(" (", maxsplit=1)[0].endswith(INT8)


def test_vouched_kernels_that_are_not_faster_do_not_run(tmp_path):
    """Losing a little buys nothing here, so nothing is lost."""
    folder = made(tmp_path / "model", slow=INT8)
    ours = answered(folder)
    assert told(ours).startswith(f"fp32: {INT8} is 0.")
    assert scores(ours) == scores(answered(folder, precision="fp32"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_who_asks_for_a_precision_gets_it_unmeasured(tmp_path, precision):
    """The card's word and the clock's have no say, and no decision is needed."""
    folder = made(tmp_path / "model", slow=INT8 if precision == "int8" else "model.onnx")
    assert told(answered(folder, precision=precision, graph_cache=False)) is None
    assert not (tmp_path / "home").exists()


def test_a_card_vouches_for_the_graph_it_names_and_no_other(tmp_path):
    """Kernels for another CPU may saturate where the measured ones did not."""
    card = {"int8": {"model_qint8_other.onnx": {"ndcg@10_loss": 0.0}}}
    ours = answered(made(tmp_path / "model", card))
    assert told(ours) == "fp32: its card vouches for model_qint8_other.onnx, which is not here"


def test_int8_kernels_that_do_not_load_cost_nothing_but_themselves(tmp_path):
    """A broken optional file leaves the exact graph, and says why."""
    folder = made(tmp_path / "model")
    (folder / INT8).write_bytes(b"no graph")
    ours = answered(folder)
    assert told(ours).startswith(f"fp32: its card vouches for {INT8}, but ")
    assert scores(ours) == scores(answered(folder, precision="fp32"))


def test_the_measurement_is_kept_for_the_next_process(tmp_path):
    """What was measured once decides from then on; another graph is measured anew."""
    folder = made(tmp_path / "model")
    assert told(answered(folder)).startswith("int8")
    (kept,) = cache.directory().glob("*.json")
    kept.write_text("1.05")
    assert told(answered(folder)).endswith("is 1.05 times as fast here, expected at least 1.1")
    kept.write_text("half a num")
    assert told(answered(folder)).startswith("int8")
    shutil.copy(folder / INT8, folder / "model.onnx")
    answered(folder)
    assert len(list(cache.directory().glob("*.json"))) == 2


def test_the_gain_is_the_worse_of_two_sizes_and_stray_times_do_not_count(tiny_model):
    """Each is timed in turns; the median ratio of a size is its gain."""

    def scorer(seconds):
        times = itertools.chain.from_iterable((0.0, one) for one in seconds)
        return OnnxScorer(find(tiny_model), clock=lambda: next(times))

    exact = scorer([3.0, 90.0, 3.0, 2.0, 2.0, 2.0])
    fast = scorer([1.0, 1.0, 1.0, 1.0, 50.0, 1.0])
    # On this clock the time is over after the least number of turns.
    assert precision.gain(exact, fast, itertools.count().__next__) == 2.0


def embedded(folder, card=None):
    """Copy the shipped model, whose weights are int8, beside a card of its own."""
    folder.mkdir()
    source = find("embedded")
    shutil.copy(source.graph, folder)
    shutil.copy(source.tokenizer, folder)
    (folder / "card.json").write_text(json.dumps(card or {}))
    return folder


REAL = [
    "Foraging honeybees navigate by the sun and learn landmarks around the hive.",
    "Sourdough needs flour, water, salt and patience.",
    "The hive of a bumblebee holds a few hundred animals at most.",
    "Bees integrate distance and direction into one vector that brings them straight home.",
    "A bus leaves for the harbour every 20 minutes.",
    "They use the sun.",
]


def asked(scorer, **options):
    """Rank real passages, all at once and one by one: both results' scores, and the first."""
    stage = {"scorer": str(scorer), **options}
    query = "how do bees find their way home"
    with Reranker(
        build_setup(parse_settings({"stages": [stage], "fusion": {}}, "the test"))
    ) as reranker:
        whole = reranker.rerank(query, REAL)
        alone = [reranker.rerank(query, [one])[0].score for one in REAL]
    return scores(whole), alone, whole


def test_int8_on_request_ranks_like_fp32_and_alone_like_in_a_batch():
    """The embedded model has no int8 file: its kernels are made at load, and nothing is amiss."""
    exact, _, reference = asked("embedded", precision="fp32")
    found, alone, result = asked("embedded", precision="int8")
    assert result.order == reference.order
    assert found != exact
    assert np.abs(np.subtract(found, exact)).max() < 0.1 * np.std(exact)
    assert np.abs(np.subtract(found, alone)).max() < 1e-4 * np.std(exact)
    assert told(result) is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rewrite": False}, "no int8 kernels: rewrite is off"),
        ({"exits": [2]}, "no int8 kernels: with exits the exact graph runs"),
    ],
)
def test_int8_that_cannot_be_had_runs_exact_and_says_so(options, reason):
    """A request for int8 kernels is answered in fp32 rather than refused."""
    exact = asked("embedded", precision="fp32", **options)[0]
    found, _, result = asked("embedded", precision="int8", **options)
    assert found == exact
    assert told(result) == reason


def test_doctor_tells_why_int8_was_asked_for_in_vain(tmp_path):
    """A model without weights in int8, and without a file of int8 kernels, runs as it is."""
    folder = tiny.build(tmp_path / "model")
    settings = parse_settings(
        {"stages": [{"scorer": str(folder), "precision": "int8"}]}, "the test"
    )
    found = {check.name: check.found for check in checks.examine(settings)}
    reason = "no int8 kernels: its weights are not stored as int8 behind DequantizeLinear"
    assert found["stage 1: kernels"] == reason


def test_a_card_vouches_by_hash_for_kernels_made_at_load(tmp_path):
    """They run unasked where they were measured to pay; the hash of another graph says nothing."""
    name = f"sha256:{sha256(find('embedded').graph)}"
    folder = embedded(tmp_path / "model", {"int8": {name: {"ndcg@10_loss": 0.003}}})
    assert "model.onnx with int8 kernels is " in told(answered(folder))
    (kept,) = cache.directory().glob("*.json")
    kept.write_text("1.9")
    ours = answered(folder)
    said = "int8: model.onnx with int8 kernels is 1.90 times as fast here, "
    assert told(ours) == f"{said}and by its card loses 0.003 nDCG@10"
    assert scores(ours) == scores(answered(folder, precision="int8"))
    kept.write_text("1.05")
    assert told(answered(folder)).startswith("fp32: model.onnx with int8 kernels is 1.05 times")
    (folder / "card.json").write_text(
        json.dumps({"int8": {"sha256:0": {"ndcg@10_loss": 0.0}, "model.onnx": {"ndcg@10_loss": 0}}})
    )
    ours = answered(folder)
    assert told(ours) == "fp32: its card vouches for sha256:0, model.onnx, which is not here"
    assert scores(ours) == scores(answered(folder, precision="fp32"))


def test_vouched_kernels_that_cannot_be_made_leave_the_exact_graph(tmp_path):
    """A card's word does not make weights int8."""
    folder = tiny.build(tmp_path / "model")
    name = f"sha256:{sha256(folder / 'model.onnx')}"
    (folder / "card.json").write_text(json.dumps({"int8": {name: {"ndcg@10_loss": 0.001}}}))
    ours = answered(folder)
    assert told(ours).startswith(f"fp32: its card vouches for {name}, but no int8 kernels: its ")
    assert scores(ours) == scores(answered(folder, precision="fp32"))
