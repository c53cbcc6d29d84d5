"""The first stage's say, fitted to labels."""

import numpy as np
import pytest

from rerank_plugins import Candidate
from rerank_plugins.evaluation import Dataset, Topic, prior_weight
from rerank_plugins.evaluation.rankings import RankedTopic, Ranking


def drawn(topics: int, *, model: float, prior: float, seed: int = 0) -> tuple[Ranking, dict]:
    """Draw topics of 20 candidates, one relevant; scores and priors see it through noise."""
    draw = np.random.default_rng(seed)
    parts, answers, qrels = [], [], {}
    for place in range(topics):
        right = int(draw.integers(0, 20))
        signal = (np.arange(20) == right).astype(float)
        priors = prior * signal + draw.normal(0.0, 1.0, 20)
        scores = model * signal + draw.normal(0.0, 1.0, 20)
        ranks = np.argsort(-priors)
        qid, docids = f"q{place}", tuple(f"d{at}" for at in ranks)
        qrels[qid] = {f"d{right}": 1}
        candidates = tuple(Candidate("text", prior=float(priors[at])) for at in ranks)
        parts.append(Topic(qid, "what", docids, candidates))
        shown = scores[ranks]
        order = tuple(np.argsort(-shown).tolist())
        answers.append(RankedTopic(qid, order, tuple(shown.tolist()), 0.0))
    return Ranking("drawn", Dataset("drawn", tuple(parts), qrels), tuple(answers)), qrels


def test_two_equal_witnesses_get_equal_say():
    """Independent and equally good: a weight near one half, and a gain that is sure."""
    found = prior_weight.fit(*drawn(300, model=2.0, prior=2.0), "RR@10")
    assert 0.3 <= found.prior_weight <= 0.7
    assert found.crosswise.low > 0.0
    assert found.reciprocal_ranks > found.by_weight[0.0]


def test_a_first_stage_that_knows_nothing_gets_no_say():
    """Noise is given little weight, and no gain is promised."""
    found = prior_weight.fit(*drawn(300, model=3.0, prior=0.0), "RR@10")
    assert found.prior_weight <= 0.1
    assert found.crosswise.low <= 0.0


def test_the_ends_are_the_model_and_the_first_stage_alone():
    """Weight 0 gives the model's order, weight 1 the order the candidates came in."""
    ranking, qrels = drawn(50, model=1.0, prior=1.0)
    found = prior_weight.fit(ranking, qrels, "RR@10")
    first = [
        next(1 / (at + 1) for at, d in enumerate(t.docids) if d in qrels[t.qid])
        for t in ranking.dataset.topics
    ]
    shown = [one if one >= 0.1 else 0.0 for one in first]
    assert found.by_weight[1.0] == pytest.approx(np.mean(shown))


def test_without_priors_there_is_nothing_to_fit():
    """One candidate without a prior, or without a score, and no advice is given."""
    ranking, qrels = drawn(4, model=1.0, prior=1.0)
    bare = tuple(
        Topic(one.qid, one.query, one.docids, (Candidate("text"), *one.candidates[1:]))
        for one in ranking.dataset.topics
    )
    assert (
        prior_weight.fit(
            Ranking("bare", Dataset("bare", bare, qrels), ranking.ranked), qrels, "RR@10"
        )
        is None
    )
