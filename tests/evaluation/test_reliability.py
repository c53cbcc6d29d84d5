"""Believable probabilities, and cuts that hold what they promise."""

import numpy as np
import pytest

from rerank_plugins import Candidate
from rerank_plugins.evaluation import Dataset, Topic, reliability
from rerank_plugins.evaluation.rankings import RankedTopic, Ranking
from rerank_plugins.rules.calibration import Calibration, apply


def drawn(topics: int, *, told: bool = True, seed: int = 0) -> tuple[Ranking, dict]:
    """Draw topics of ten candidates, relevant with P = 1/(1+exp(-(score - 1))), all judged."""
    draw = np.random.default_rng(seed)
    parts, answers, qrels = [], [], {}
    for place in range(topics):
        scores = draw.normal(0.0, 2.0, 10)
        truth = apply(Calibration(1.0, -1.0), scores)
        qid, docids = f"q{place}", tuple(f"d{at}" for at in range(10))
        qrels[qid] = dict(zip(docids, (draw.random(10) < truth).astype(int).tolist(), strict=True))
        parts.append(Topic(qid, "what", docids, (Candidate("text"),) * 10))
        said = tuple(truth.tolist()) if told else ()
        order = tuple(np.argsort(-scores).tolist())
        answers.append(RankedTopic(qid, order, tuple(scores.tolist()), 0.0, probabilities=said))
    return Ranking("drawn", Dataset("drawn", tuple(parts), qrels), tuple(answers)), qrels


def test_true_probabilities_are_reliable():
    """Probabilities that labels were drawn from have an expected error below .03 on 4,000 pairs."""
    own, platt, temperature, isotonic = reliability.examine(*drawn(400))
    assert own.method == "model's own"
    assert own.ece < 0.03
    assert sum(one.pairs for one in own.bins) == own.pairs == 4_000
    assert platt.parameters == pytest.approx((1.0, -1.0), abs=0.1)
    # Without a shift no scale makes these scores believable.
    assert temperature.ece > platt.ece
    assert isotonic.parameters is None


def test_fitted_probabilities_are_judged_on_queries_they_did_not_see():
    """A score that means nothing gets the base rate, not a perfect fit of its own labels."""
    ranking, qrels = drawn(60)
    draw = np.random.default_rng(3)
    shuffled = {
        qid: dict(zip(judged, draw.permutation(list(judged.values())).tolist(), strict=True))
        for qid, judged in qrels.items()
    }
    share = np.mean([label for judged in shuffled.values() for label in judged.values()])
    isotonic = reliability.examine(ranking, shuffled)[-1]
    assert isotonic.brier >= share * (1.0 - share) * 0.98


def test_a_model_without_probabilities_is_only_fitted():
    """Where the model says none, there is no line of its own."""
    found = reliability.examine(*drawn(40, told=False))
    assert [one.method for one in found] == list(reliability.METHODS)


def test_too_few_labels_say_nothing():
    """Fewer than 20 pairs of either kind give no advice."""
    assert reliability.examine(*drawn(2)) == ()


def test_a_cut_reaches_the_precision_it_promises():
    """At and above the cut the share of relevant pairs is at least the target."""
    ranking, qrels = drawn(400)
    own = reliability.examine(ranking, qrels)[0]
    said = np.array([p for one in ranking.ranked for p in one.probabilities])
    relevant = np.array([label for judged in qrels.values() for label in judged.values()]) > 0
    assert set(own.cuts) == set(reliability.PRECISIONS)
    for target, cut in own.cuts.items():
        assert relevant[said >= cut].mean() >= target
    assert list(own.cuts.values()) == sorted(own.cuts.values())


def test_a_precision_out_of_reach_has_no_cut():
    """Where nothing is relevant, no probability is high enough."""
    assert reliability.threshold(np.linspace(0, 1, 50), np.zeros(50, bool), 0.5) is None


def test_unjudged_pairs_count_only_where_nothing_is_judged_not_relevant():
    """Graded judgements leave unjudged candidates out; relevant ones alone make them 0."""
    ranking, qrels = drawn(40)
    positives = {q: {d: r for d, r in judged.items() if r > 0} for q, judged in qrels.items()}
    assert reliability.examine(ranking, positives)[0].pairs == 400
    half = {q: dict(list(judged.items())[:5]) for q, judged in qrels.items()}
    assert reliability.examine(ranking, half)[0].pairs == 200
