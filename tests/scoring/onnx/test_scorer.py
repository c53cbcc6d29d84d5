"""ONNX graphs as they come: good, broken, foreign, and with heads of all kinds."""

import json
import time
import traceback

import numpy as np
import pytest

from rerank_plugins import Reranker, Stage, load
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError, ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.onnx.session import score_columns
from tests import tiny
from tests.tiny import Shape

TEXTS = ["a red fox", "a blue hen", "the river and the house"]


def rank(folder, texts=TEXTS, **options):
    """Rerank with a fresh reranker."""
    with Reranker(folder, **options) as reranker:
        return reranker.rerank("red fox", texts)


def scores(result):
    """Give scores in the candidates' order."""
    return [hit.score for hit in sorted(result, key=lambda hit: hit.index)]


def test_a_model_that_gives_nan_degrades_visibly(tmp_path):
    """Scores that are not finite fail the stage: first-stage order, no score to misread."""
    folder = tiny.build(tmp_path / "m", Shape(poison=True))
    assert not rank(folder).degraded
    result = rank(folder, [*TEXTS, "a nan"])
    assert result.order == (0, 1, 2, 3)
    assert result.degraded
    assert all(hit.score is None for hit in result)
    assert Code.STAGE_FAILED in {decision.code for decision in result.decisions}
    with pytest.raises(ModelError, match="not finite"):
        rank(folder, [*TEXTS, "a nan"], strict=True)


def test_heads_of_one_and_two_columns_and_flat_ones_are_read(tmp_path):
    """One column is the score, two are irrelevant and relevant, a flat output is one column."""
    one = rank(tiny.build(tmp_path / "one"))
    flat = rank(tiny.build(tmp_path / "flat", Shape(rank=1)))
    assert scores(one) == pytest.approx(scores(flat), abs=1e-6)
    two = rank(tiny.build(tmp_path / "two", Shape(columns=2)))
    assert np.isfinite(scores(two)).all()


def test_a_head_of_many_columns_needs_to_be_told_which_counts(tmp_path):
    """Three columns are refused with the option that helps, and read where it is given."""
    folder = tiny.build(tmp_path / "m", Shape(columns=3))
    with pytest.raises(ModelError, match="score_column"):
        Reranker(folder)
    with load({"stages": [{"scorer": str(folder), "score_column": -1}]}) as reranker:
        assert not reranker.rerank("red fox", TEXTS).degraded
    (folder / "card.json").write_text(json.dumps({"score_column": 1}))
    assert not rank(folder).degraded
    with pytest.raises(ModelError, match="score_column"):
        load({"stages": [{"scorer": str(folder), "score_column": 3}]})


def test_half_precision_output_is_read(tmp_path):
    """float16 logits give float scores close to those of float32."""
    full = rank(tiny.build(tmp_path / "full"))
    half = rank(tiny.build(tmp_path / "half", Shape(half_output=True)))
    assert scores(full) == pytest.approx(scores(half), abs=0.02)


@pytest.mark.parametrize(
    "inputs", [("input_ids", "attention_mask"), ("input_ids", "attention_mask", "token_type_ids")]
)
def test_a_graph_gets_the_inputs_it_declares(tmp_path, inputs):
    """token_type_ids are given only where the graph asks for them."""
    assert not rank(tiny.build(tmp_path / "m", Shape(inputs=inputs))).degraded


def test_a_broken_graph_says_what_to_do(tmp_path):
    """A truncated file is an error that names it and the export command."""
    folder = tiny.build(tmp_path / "m")
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"model\.onnx does not load.*export"):
        Reranker(folder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(rank=3), "encoder without a scoring head"),
        (Shape(static_batch=True), "dynamic batch"),
        (
            Shape(inputs=("input_ids", "attention_mask", "position_ids")),
            r"takes .*position_ids.*expected input_ids",
        ),
    ],
    ids=["an encoder", "a fixed batch", "foreign inputs"],
)
def test_a_foreign_graph_is_refused_at_load(tmp_path, shape, message):
    """What is no pairwise scorer is found out when it is loaded, not at the first request."""
    with pytest.raises(ModelError, match=message):
        Reranker(tiny.build(tmp_path / "m", shape))


@pytest.mark.parametrize("max_tokens", [15, 129, 10**6])
def test_a_limit_the_model_cannot_take_is_refused(tiny_model, max_tokens):
    """max_tokens lies within what the model's positions allow, and the error says what that is."""
    with pytest.raises(ConfigError, match="16 to 128 tokens"):
        Reranker(tiny_model, max_tokens=max_tokens)


def test_an_absent_provider_is_refused(tiny_model):
    """An execution provider that is not installed is named, with those that are."""
    with pytest.raises(ConfigError, match=r"found .*cpu"):
        Reranker(tiny_model, provider="coreml")
    assert not rank(tiny_model, provider="auto").degraded


def test_a_stack_trace_of_a_micro_batch_names_functions_only(tiny_model):
    """Who looks at a profile or a dump of the workers' stacks reads names, and no `<lambda>`."""
    stacks = []

    def clock():
        stacks.append([frame.name for frame in traceback.extract_stack()])
        return time.monotonic()

    with Reranker(Setup((Stage(OnnxScorer(find(tiny_model), clock=clock)),))) as reranker:
        reranker.rerank("red fox", TEXTS)
    inside = [stack for stack in stacks if "_run_micro_batch" in stack]
    assert inside
    assert not any("<lambda>" in stack for stack in inside)


class TestLong:
    """Passages over the limit."""

    TEXT = "the red fox jumps over the lazy dog " * 60

    def test_windows_read_more_than_a_cut_does(self, tiny_model):
        """Windowed, a passage is read further than truncated, and either says what it left."""
        windowed = rank(tiny_model, [self.TEXT])
        cut = rank(tiny_model, [self.TEXT], long="truncate")
        codes = [{one.code for one in result.decisions} for result in (windowed, cut)]
        assert Code.WINDOWED in codes[0]
        assert Code.WINDOWED not in codes[1]
        assert Code.TRUNCATED in codes[1]
        assert windowed[0].truncated_tokens < cut[0].truncated_tokens
        assert cut[0].truncated_tokens == 480 - (128 - 3 - 2)

    def test_the_card_says_how_large_windows_are(self, tmp_path, tiny_model):
        """Windows are as the card says unless an option does; what fits is read as ever."""
        folder = tiny.build(tmp_path / "m")
        (folder / "card.json").write_text(json.dumps({"window_tokens": 40}))
        small, whole = rank(folder, [self.TEXT]), rank(tiny_model, [self.TEXT])
        assert small.usage.pairs > whole.usage.pairs
        assert small[0].truncated_tokens == whole[0].truncated_tokens == 0
        assert scores(rank(folder)) == scores(rank(tiny_model))
        with load({"stages": [{"scorer": str(folder), "window_tokens": 123}]}) as reranker:
            assert reranker.rerank("red fox", [self.TEXT]).usage.pairs == whole.usage.pairs

    @pytest.mark.parametrize("wrong", [{"window_tokens": 15}, {"max_windows": 0}])
    def test_windows_too_small_or_none_are_refused(self, tiny_model, wrong):
        """A window holds some of the passage, and there is one; the error says the least."""
        with pytest.raises(ConfigError, match=r"at least|greater than"):
            load({"stages": [{"scorer": str(tiny_model), **wrong}]})

    def test_the_first_window_alone_counts_under_first(self, tiny_model):
        """FirstP scores what truncation scores, runs no more, and reports what it did not read."""
        with load({"stages": [{"scorer": str(tiny_model), "fold": "first"}]}) as reranker:
            first = reranker.rerank("red fox", [self.TEXT])
        cut = rank(tiny_model, [self.TEXT], long="truncate")
        assert first[0].score == pytest.approx(cut[0].score, abs=1e-6)
        assert first[0].truncated_tokens == cut[0].truncated_tokens > 0
        assert first.usage.pairs == 1

    def test_the_best_window_decides_under_max(self, tiny_model):
        """MaxP gives the score of the window that scores best."""
        with load({"stages": [{"scorer": str(tiny_model), "fold": "max"}]}) as reranker:
            result = reranker.rerank("red fox", [self.TEXT])
            room = 128 - 3 - 2
            words = self.TEXT.split()
            spans = [(i * round(room / 2), i * round(room / 2) + room) for i in range(8)]
            spans = [(a, b) for a, b in spans if b <= len(words)]
            parts = [" ".join(words[a:b]) for a, b in spans]
            best = max(hit.score for hit in reranker.rerank("red fox", parts))
        assert result[0].score >= best - 1e-5


def _changed(folder, change):
    """Rewrite a tiny model's graph."""
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return folder


def test_a_graph_that_gives_a_scalar_for_one_pair_is_read(tmp_path):
    """Exports that squeeze every axis of one give no axis at all for a lone pair."""
    from onnx import helper

    def squeeze(graph):
        graph.node[-1].output[0] = "columns"
        graph.node.append(helper.make_node("Squeeze", ["columns"], ["logits"]))
        del graph.output[0].type.tensor_type.shape.dim[:]
        graph.output[0].type.tensor_type.ClearField("shape")

    with Reranker(tiny.build(tmp_path / "m")) as reranker:
        expected = {hit.index: hit.score for hit in reranker.rerank("red fox", TEXTS)}
    with Reranker(_changed(tiny.build(tmp_path / "s"), squeeze), strict=True) as reranker:
        found = {hit.index: hit.score for hit in reranker.rerank("red fox", TEXTS)}
        (alone,) = reranker.rerank("red fox", TEXTS[:1])
    assert found == pytest.approx(expected, abs=1e-5)
    assert alone.score == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize("output", [np.zeros((), np.float32), np.zeros(3), np.zeros((1, 2))])
def test_an_output_for_another_number_of_pairs_is_refused(output):
    """Rows that belong to no pair are never read as scores."""
    with pytest.raises(ModelError, match="for 2 pairs"):
        score_columns(output, 2)


def test_inputs_are_given_in_the_type_that_the_graph_declares(tmp_path):
    """Some exports take int32; the graph's own type counts."""
    from onnx import TensorProto, helper

    def narrow(graph):
        for place, value in enumerate(graph.input):
            name = value.name
            value.type.tensor_type.elem_type = TensorProto.INT32
            for node in graph.node:
                for i, given in enumerate(node.input):
                    node.input[i] = f"{name}_wide" if given == name else given
            wide = helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.INT64)
            graph.node.insert(place, wide)

    with Reranker(tiny.build(tmp_path / "m")) as reranker:
        expected = [hit.score for hit in reranker.rerank("red fox", TEXTS)]
    with Reranker(_changed(tiny.build(tmp_path / "n"), narrow), strict=True) as reranker:
        assert [hit.score for hit in reranker.rerank("red fox", TEXTS)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "sign"),
    [
        (["LABEL_0", "LABEL_1"], 1),
        (["irrelevant", "relevant"], 1),
        (["not_relevant", "RELEVANT"], 1),
        (["relevant", "non-relevant"], -1),
        (["Yes", "No"], -1),
        (["positive", "other"], -1),
        (["other", "positive"], 1),
        (["negative", "what"], 1),
        (["LABEL_1", "LABEL_0"], -1),
    ],
)
def test_the_labels_of_two_columns_say_which_is_relevant(tmp_path, labels, sign):
    """With the relevant label first, the order is that of the first column."""
    folder = tiny.build(tmp_path / "m", Shape(columns=2))
    with Reranker(folder) as reranker:
        plain = {hit.index: hit.score for hit in reranker.rerank("red fox", TEXTS)}
    _label(folder, labels)
    with Reranker(folder) as reranker:
        found = {hit.index: hit.score for hit in reranker.rerank("red fox", TEXTS)}
    assert found == {index: pytest.approx(sign * score) for index, score in plain.items()}


@pytest.mark.parametrize("labels", [["news", "sports"], ["yes", "true"], ["not_yes", "no"]])
def test_labels_that_do_not_say_are_refused(tmp_path, labels):
    """A classifier of something else is no reranker until it is told which column counts."""
    folder = tiny.build(tmp_path / "m", Shape(columns=2))
    _label(folder, labels)
    with pytest.raises(ModelError, match="score_column = 0 or 1"):
        Reranker(folder)
    with load({"stages": [{"scorer": str(folder), "score_column": 0}]}) as reranker:
        assert not reranker.rerank("red fox", TEXTS).degraded


def _label(folder, labels):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(zip(("0", "1"), labels, strict=True))
    (folder / "config.json").write_text(json.dumps(config))
