"""Exits fitted without labels, certified, saved, loaded, and replayed."""

import dataclasses
import json

import numpy as np
import pytest

from rerank_plugins import Candidate, load
from rerank_plugins.adaptive.exit_audit import ExitAudit
from rerank_plugins.adaptive.exits.calibrate import CalibrationOptions, calibrate
from rerank_plugins.adaptive.exits.collect import Question, observe
from rerank_plugins.adaptive.exits.fit import levels
from rerank_plugins.adaptive.exits.simulate import simulate
from rerank_plugins.errors import ConfigError, InvalidRequest, ModelError
from rerank_plugins.records import Code
from rerank_plugins.rules.keep import MarginKeep
from rerank_plugins.rules.selection import MassDepth
from rerank_plugins.scoring.exits import calibration_file, segmented_model
from rerank_plugins.scoring.exits.heads import Head, from_card
from rerank_plugins.scoring.exits.segmented_model import SegmentedModel
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.options import OnnxOptions
from tests import layered, tiny

QUERIES = [
    f"{a} {b} {c}" for a in ("what", "where", "who") for b in tiny.WORDS[7:16] for c in ("is",)
]


def questions(count=60, *, priors=False):
    """Make queries, each with 24 passages in some order."""
    random = np.random.default_rng(4)
    made = []
    for i in range(count):
        passages = tuple(tiny.passages(24, seed=i))
        given = tuple(np.sort(random.normal(size=24))[::-1].tolist()) if priors else None
        made.append(Question(QUERIES[i % len(QUERIES)], passages, given))
    return made


def limits(reranker):
    """Give the margins behind the exits, and how many candidates enter."""
    stages = reranker.setup.stages
    return [one.keep.margin for one in stages[:-1]], stages[0].enter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of four layers without heads of its own."""
    return layered.build(tmp_path_factory.mktemp("plain"), 4)


@pytest.fixture(scope="module")
def calibrated(model):
    """Probes after layers two and three, certified."""
    files = find(model)
    names = segmented_model.layers(files)
    made = SegmentedModel(files, [Head(n, names[n], "probe") for n in (2, 3)], OnnxOptions())
    return calibrate(made, questions(), CalibrationOptions(top_k=5, alpha=0.05), costs=[2, 1, 1])


def test_probes_follow_the_model_better_with_depth(calibrated):
    """Fitted on half of the queries, without a label, probes rank like the model does."""
    shallow, deep = (one.correlation for one in calibrated.fitted)
    assert 0.4 < shallow < deep
    assert calibrated.fitted[1].deviation < calibrated.fitted[0].deviation


def test_losses_grow_with_boldness(calibrated):
    """On average a smaller margin never loses less; without any, something is lost."""
    mean = calibrated.exits.losses.mean(axis=0)
    assert (np.diff(mean) >= -5e-3).all()
    assert mean[0] < 0.01
    assert mean[-1] > mean[0]


def test_a_replay_equals_the_cascade(model, calibrated, tmp_path):
    """Replayed on cached scores, the cascade orders as it does in earnest, prior or none."""
    calibration_file.save(calibrated.exits, tmp_path)
    asked = questions(6)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.3}}
    with load({"stages": [stage]}) as reranker:
        margins, depth = limits(reranker)
        files = find(model)
        made = SegmentedModel(files, calibrated.exits.heads, OnnxOptions())
        for question, seen in zip(asked, observe(made, asked), strict=True):
            scores, final = levels(seen, calibrated.exits.heads, "max")
            expected = simulate(scores, final, margins=margins, depth=depth, top_k=5)
            result = reranker.rerank(question.query, question.passages)
            assert result.order == tuple(expected.order.tolist())
            shares = [run.candidates / 24 for run in result.stages]
            assert shares == pytest.approx(list(expected.shares))


def test_a_replay_with_priors_equals_the_cascade(tmp_path):
    """Where the prior is fused in it has the same say behind every exit."""
    folder = layered.build(tmp_path / "model", 4, (2, 3))
    files = find(folder)
    made = SegmentedModel(files, from_card(files.card), OnnxOptions())
    how = CalibrationOptions(top_k=5, alpha=0.05, prior_weight=0.4)
    done = calibrate(made, questions(priors=True), how, costs=[2, 1, 1])
    calibration_file.save(done.exits, tmp_path / "exits")
    stage = {"scorer": str(folder), "exits": str(tmp_path / "exits"), "keep": {"risk": 0.3}}
    asked = questions(6, priors=True)
    with load({"stages": [stage], "fusion": {"prior_weight": 0.4}}) as reranker:
        margins, depth = limits(reranker)
        for question, seen in zip(asked, observe(made, asked), strict=True):
            scores, final = levels(seen, done.exits.heads, "max")
            expected = simulate(
                scores,
                final,
                margins=margins,
                depth=depth,
                top_k=5,
                priors=seen.priors,
                prior_weight=0.4,
            )
            given = [
                Candidate(*one) for one in zip(question.passages, question.priors, strict=True)
            ]
            assert reranker.rerank(question.query, given).order == tuple(expected.order.tolist())


def test_a_first_stage_that_knows_the_order_shortens_the_queue(model, tmp_path):
    """Where the best come first anyway, exits are shaped so that the last need not enter."""
    files = find(model)
    names = segmented_model.layers(files)
    made = SegmentedModel(files, [Head(3, names[3], "probe")], OnnxOptions())
    asked = questions()
    sorted_by_the_model = [
        Question(one.query, tuple(one.passages[i] for i in np.argsort(-seen.final)))
        for one, seen in zip(asked, observe(made, asked), strict=True)
    ]
    done = calibrate(
        made, sorted_by_the_model, CalibrationOptions(top_k=5, alpha=0.05), costs=[2, 1]
    )
    calibration_file.save(done.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.3}}
    with load({"stages": [stage]}) as reranker:
        result = reranker.rerank(asked[0].query, sorted_by_the_model[0].passages)
        assert reranker.setup.stages[0].enter < 24
    assert result.stages[0].candidates == reranker.setup.stages[0].enter
    assert sorted(result.order) == list(range(24))
    assert done.exits.losses[:, 0].max() == 0.0


def test_an_artefact_survives_the_disk(calibrated, tmp_path):
    """Saved and loaded, heads, scale, losses and plans are the same."""
    calibration_file.save(calibrated.exits, tmp_path)
    with np.load(tmp_path / "exits.npz") as file:
        assert "nulls" not in file.files
    found = calibration_file.load(tmp_path)
    assert found.scale == calibrated.exits.scale
    assert found.subject == calibrated.exits.subject
    assert found.plans == calibrated.exits.plans
    np.testing.assert_allclose(found.losses, calibrated.exits.losses, atol=1e-6)
    for one, other in zip(found.heads, calibrated.exits.heads, strict=True):
        np.testing.assert_array_equal(one.probe.weights, other.probe.weights)
        assert dataclasses.replace(one, probe=None) == dataclasses.replace(other, probe=None)


def test_exits_of_another_model_are_refused(calibrated, tmp_path):
    """Other weights, or another token limit, void the promise; the error says what changed."""
    calibration_file.save(calibrated.exits, tmp_path / "exits")
    other = layered.build(tmp_path / "other", 5)
    with pytest.raises(ModelError, match="graph_sha256 was"):
        load({"stages": [{"scorer": str(other), "exits": str(tmp_path / "exits")}]})


def test_exits_of_another_limit_are_refused(model, calibrated, tmp_path):
    """The same model cut to fewer tokens is another one."""
    calibration_file.save(calibrated.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "max_tokens": 32}
    with pytest.raises(ModelError, match="max_tokens was 128 and is 32"):
        load({"stages": [stage]})


def test_a_promise_out_of_reach_names_what_can_be_promised(model, calibrated, tmp_path):
    """Thirty queries cannot certify one in a thousand; the error says what they can."""
    calibration_file.save(calibrated.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.001}}
    with pytest.raises(ConfigError, match="least that can be promised is 0"):
        load({"stages": [stage]})


def test_risk_needs_calibrated_exits(model):
    """A risk without a calibration is refused, with the command that makes one."""
    with pytest.raises(ConfigError, match="rerank-plugins calibrate"):
        load({"stages": [{"scorer": str(model), "keep": {"risk": 0.01}}]})


def test_a_damaged_artefact_is_refused(calibrated, tmp_path):
    """A folder without exits, or with half of them, is named and explained."""
    with pytest.raises(ModelError, match="holds no calibrated exits"):
        calibration_file.load(tmp_path)
    calibration_file.save(calibrated.exits, tmp_path)
    facts = json.loads((tmp_path / "exits.json").read_text())
    (tmp_path / "exits.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        calibration_file.load(tmp_path)


def test_own_exits_need_no_calibration(tmp_path):
    """`exits = [2]` stops at a head of the model's own, `exit_keep` behind it."""
    folder = layered.build(tmp_path, 4, (2,))
    stage = {"scorer": str(folder), "exits": [2], "exit_keep": {"margin": 0.5, "top_k": 3}}
    with load({"stages": [stage]}) as reranker:
        assert reranker.setup.stages[0].keep == MarginKeep(0.5, 3)
        result = reranker.rerank("what is a monoid", tiny.passages(20))
    assert sorted(result.order) == list(range(20))
    assert {hit.depth for hit in result} == {1, 2}


def test_the_promise_is_in_the_decisions(model, calibrated, tmp_path):
    """A result says which loss its exits were certified for."""
    calibration_file.save(calibrated.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.3}}
    with load({"stages": [stage]}) as reranker:
        result = reranker.rerank("what is a monoid", tiny.passages(20))
    kept = [one.detail for one in result.decisions if one.code is Code.KEPT]
    assert any("regret <= 0.3 with 90% confidence" in detail for detail in kept)


def test_calibrated_exits_can_be_audited(model, calibrated, tmp_path):
    """`exit_audit` takes the promise, the loss and the gains from the calibration."""
    calibration_file.save(calibrated.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.3}}
    with load({"stages": [stage], "exit_audit": {"share": 0.02, "adjust": "off"}}) as reranker:
        expected = ExitAudit(0.02, 0.3, 5, "regret", calibrated.exits.probability, "off")
        assert reranker.setup.exit_audit == expected


def test_a_certified_depth_comes_with_the_exits(model, tmp_path):
    """`depth = {risk}` scores the least mass of the priors that holds it, never below top_k."""
    files = find(model)
    made = SegmentedModel(
        files, [Head(2, segmented_model.layers(files)[2], "probe")], OnnxOptions()
    )
    done = calibrate(
        made, questions(priors=True), CalibrationOptions(top_k=5, alpha=0.05), costs=[1, 1]
    )
    assert done.exits.mass_losses.shape == (30, len(done.exits.masses))
    assert done.exits.mass_losses[:, 0].max() < 1e-6
    calibration_file.save(done.exits, tmp_path)
    stage = {"scorer": str(model), "exits": str(tmp_path), "keep": {"risk": 0.4}}
    settings = {"stages": [stage], "selection": {"depth": {"risk": 0.4}}}
    expected = done.exits.choose_mass(0.4)[0]
    with load(settings) as reranker:
        assert reranker.setup.depth == MassDepth(expected, min=5)


def test_a_certified_depth_needs_a_calibration(model, calibrated, tmp_path):
    """Without calibrated exits, or priors there, or with a maximum, a depth at risk is refused."""
    stage = {"scorer": str(model)}
    with pytest.raises(ConfigError, match="needs exits = DIR"):
        load({"stages": [stage], "selection": {"depth": {"risk": 0.1}}})
    calibration_file.save(calibrated.exits, tmp_path)
    stage = {**stage, "exits": str(tmp_path), "keep": {"risk": 0.3}}
    with pytest.raises(ConfigError, match="hold no certified depth"):
        load({"stages": [stage], "selection": {"depth": {"risk": 0.1}}})
    with pytest.raises(ConfigError, match="max would break"):
        load({"stages": [stage], "selection": {"depth": {"risk": 0.1, "max": 20}}})


def test_too_few_queries_are_refused(model):
    """Below forty queries there is nothing to certify with."""
    files = find(model)
    made = SegmentedModel(
        files, [Head(2, segmented_model.layers(files)[2], "probe")], OnnxOptions()
    )
    with pytest.raises(InvalidRequest, match="at least 40"):
        calibrate(made, questions(10), costs=[1, 1])
