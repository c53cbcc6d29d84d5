"""Models cut into segments: the same scores, fewer of them, and nothing computed twice."""

import numpy as np
import onnx
import pytest

from rerank_plugins import Reranker, Stage, load
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ModelError
from rerank_plugins.records import Code
from rerank_plugins.scoring.exits import heads, segmented_model
from rerank_plugins.scoring.exits.heads import Head, Probe
from rerank_plugins.scoring.exits.scorer import exit_scorers
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.graph import segments
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from tests import layered, tiny
from tests.scoring.onnx.graph.exported import FOLDER

PASSAGES = tiny.passages(40)
QUERY = "what is a monoid"


def whole(folder, **options):
    """Score by the uncut model; give scores by passage."""
    setup = Setup((Stage(OnnxScorer(find(folder), OnnxOptions(**options))),), workers=2)
    with Reranker(setup) as reranker:
        return scores(reranker.rerank(QUERY, PASSAGES))


def scores(result):
    """Give the result's scores in the order of the passages."""
    return np.array([hit.score for hit in sorted(result, key=lambda hit: hit.index)])


def cascade(folder, layers, keeps, **more):
    """Build a cascade over the model's own exits."""
    files = find(folder)
    parts = exit_scorers(
        SegmentedModel(files, heads.from_card(files.card, layers), OnnxOptions(**more))
    )
    stages = tuple(Stage(s, k) for s, k in zip(parts, [*keeps, None], strict=True))
    return Reranker(Setup(stages, workers=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of six layers with heads after two and four."""
    return layered.build(tmp_path_factory.mktemp("layered"), 6, (2, 4))


@pytest.mark.parametrize("options", [{}, {"rewrite": False}, {"max_tokens": 24}])
def test_keeping_all_gives_the_scores_of_the_uncut_model(folder, options):
    """Segments, whatever the batches in between, change no score; windows included."""
    with cascade(folder, (2, 4), (None, None), **options) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    np.testing.assert_allclose(scores(result), whole(folder, **options), atol=1e-4)
    assert {hit.depth for hit in result} == {3}


def test_survivors_get_the_scores_of_the_uncut_model(folder):
    """Who goes on scores as if everyone had; who does not keeps the exit's score and place."""
    with cascade(folder, (2, 4), (12, 5)) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    expected = whole(folder)
    deepest = [hit for hit in result if hit.depth == 3]
    assert len(deepest) == 5
    for hit in deepest:
        assert hit.score == pytest.approx(expected[hit.index], abs=1e-4)
    assert [hit.depth for hit in result] == [3] * 5 + [2] * 7 + [1] * 28
    assert [run.candidates for run in result.stages] == [40, 12, 5]
    assert result.usage.tokens < 2 * sum(run.usage.tokens for run in result.stages[:1])


def test_only_the_layers_in_between_run(folder):
    """The second stage tokenises nothing, and reads its pairs from the state."""
    with cascade(folder, (2,), (10,)) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    assert result.stages[1].usage.pairs == 10
    assert result.stages[1].usage.token_cache_hits == 0


def test_a_stage_without_a_state_runs_from_the_beginning(folder):
    """The last exit alone is the whole model."""
    files = find(folder)
    last = exit_scorers(SegmentedModel(files, heads.from_card(files.card)))[-1]
    with Reranker(Setup((Stage(last),), workers=1)) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    np.testing.assert_allclose(scores(result), whole(folder), atol=1e-4)


def test_a_state_of_another_model_is_not_used(folder, tmp_path):
    """Hidden states go on only in the model they came from."""
    other = layered.build(tmp_path / "other", 4, (2,))
    first = exit_scorers(SegmentedModel(find(other), heads.from_card(find(other).card)))[0]
    files = find(folder)
    last = exit_scorers(SegmentedModel(files, heads.from_card(files.card)))[-1]
    with Reranker(Setup((Stage(first), Stage(last)), workers=1)) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    np.testing.assert_allclose(scores(result), whole(folder), atol=1e-4)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.onnx")), ids=lambda path: path.stem)
def test_exports_of_every_family_can_be_cut_after_each_layer(path):
    """Post-norm and pre-norm encoders, from both exporters, have one hidden state per layer."""
    import onnxruntime as ort

    model = onnx.load(path)
    found = segments.cut_points(model, "logits")
    names = [found.after(layer) for layer in (0, 1)]
    feeds = {one.name: np.ones((2, 7), np.int64) for one in model.graph.input}
    feeds["input_ids"] = np.arange(5, 19).reshape(2, 7)
    expected = ort.InferenceSession(str(path)).run(["logits"], feeds)[0]
    values = dict(feeds)
    for part in segments.segments(model, names, [[], [], ["logits"]]):
        session = ort.InferenceSession(part.SerializeToString())
        outputs = [one.name for one in session.get_outputs()]
        given = {one.name: values[one.name] for one in session.get_inputs()}
        values |= dict(zip(outputs, session.run(outputs, given), strict=True))
    np.testing.assert_allclose(values["logits"], expected, atol=1e-5)


def test_a_later_segment_computes_nothing_of_the_earlier_ones(folder):
    """Segments after the first hold no embedding table."""
    model = onnx.load(folder / "model.onnx")
    parts = segments.segments(model, ["hidden_2", "hidden_4"], [["exit_2"], ["exit_4"], ["logits"]])
    words = len(tiny.VOCABULARY)
    tables = [[len(w.dims) and w.dims[0] == words for w in p.graph.initializer] for p in parts]
    assert [any(one) for one in tables] == [True, False, False]


def test_a_layer_that_cannot_be_cut_is_named(folder):
    """Behind the last exit another path leads past every state; the error says where to cut."""
    found = segmented_model.layers(find(folder))
    assert {0, 1, 2, 3, 4} <= set(found)
    model = onnx.load(folder / "model.onnx")
    with pytest.raises(ModelError, match="can be cut after layers"):
        segments.cut_points(model, "logits").after(5)


def test_the_embedded_model_stops_at_its_own_exits():
    """The model of the package is cut after layers 2 and 4; survivors score as in one piece."""
    stage = {"scorer": "embedded", "exits": [2, 4], "exit_keep": 2}
    passages = ["A monoid is a set with an associative operation.", "Hens lay eggs.", "No."]
    with load({"stages": [stage]}) as cut_up, Reranker() as one_piece:
        found = cut_up.rerank("what is a monoid", passages)
        expected = one_piece.rerank("what is a monoid", passages)
    assert [hit.depth for hit in found] == [3, 3, 1]
    for hit in found.hits[:2]:
        same = next(one for one in expected if one.index == hit.index)
        assert hit.score == pytest.approx(same.score, abs=1e-3)


def test_a_probe_scores_what_its_formula_says():
    """Weights on the normalised first row, the exit before, the log rank, and a bias."""
    probe = Probe(np.float32([1.0, 0.0]), previous=2.0, log_rank=3.0, bias=4.0)
    head = Head(1, "h", "probe", probe=probe)
    found = heads.probe_scores(head, np.float32([[1.0, 3.0]]), np.float32([0.5]), np.float32([1.0]))
    assert found[0] == pytest.approx(-1.0 + 1.0 + 3.0 * np.log(2.0) + 4.0, abs=1e-3)


def test_a_similarity_head_prefers_passages_with_the_words_of_the_query(folder):
    """After the embeddings, a passage that repeats the query beats one that shares no word."""
    files = find(folder)
    head = Head(0, segmented_model.layers(files)[0], "similarity")
    first, last = exit_scorers(SegmentedModel(files, [head]))
    passages = ["a blue hen under the tree", "what is a monoid", "quick brown dog"]
    with Reranker(Setup((Stage(first, 1), Stage(last)), workers=1)) as reranker:
        result = reranker.rerank(QUERY, passages)
    assert result[0].index == 1
    assert result[0].depth == 2


def test_heads_that_the_card_does_not_name_are_refused(folder):
    """Asking for a layer without a head of its own says which there are."""
    with pytest.raises(ModelError, match=r"\[2, 4\].*\[3\]"):
        heads.from_card(find(folder).card, [2, 3])


def test_a_deadline_leaves_survivors_unfinished_and_ranked(folder):
    """With no time left after the first exit its order stands, and nobody is lost."""
    with cascade(folder, (2, 4), (20, 10)) as reranker:
        reranker.warm_up()
        result = reranker.rerank(QUERY, PASSAGES, budget_ms=3)
    assert sorted(result.order) == list(range(40))


def test_shortened_exits_cut_passages_and_share_the_sessions(folder):
    """They score as a model whose limit is that short; a long query still leaves some room."""
    files = find(folder)
    parts = exit_scorers(SegmentedModel(files, heads.from_card(files.card)))
    limited = cascade(folder, (2, 4), (None, None), max_tokens=32, long="truncate")
    stages = tuple(Stage(one.shortened(32)) for one in parts)
    with limited, Reranker(Setup(stages, workers=2)) as reranker:
        wanted, found = (one.rerank(QUERY, PASSAGES) for one in (limited, reranker))
        long = reranker.rerank(f"{QUERY} " * 10, PASSAGES[:4])
    np.testing.assert_allclose(scores(found), scores(wanted), atol=1e-5)
    assert found.usage.truncated_tokens == wanted.usage.truncated_tokens > 0
    assert Code.TRUNCATED in {one.code for one in found.decisions}
    assert {hit.depth for hit in long} == {3}
    assert parts[0].model.max_tokens == 128


def test_shortened_exits_cost_less_where_passages_are_long(folder):
    """A price follows what is read; short passages cost the same."""
    files = find(folder)
    first = exit_scorers(SegmentedModel(files, heads.from_card(files.card)))[0]
    first.throughput.meter.calibrate(
        [(1, 16), (4, 16), (1, 128), (4, 128)], [0.016, 0.064, 0.128, 0.512]
    )
    short = first.shortened(32)
    assert short.price_s([400] * 4) == pytest.approx(first.price_s([400] * 4) * 32 / 116, rel=0.1)
    assert short.price_s([20] * 4) == pytest.approx(first.price_s([20] * 4))
