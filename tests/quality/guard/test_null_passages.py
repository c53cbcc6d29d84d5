"""Random passages as a yardstick."""

import math

import numpy as np

from rerank_plugins import Candidate
from rerank_plugins.quality.guard.null_passages import NullPassages
from tests.quality.guard.serving import Tied, guarded, question, reference


def test_one_request_in_so_many_is_given_a_passage_of_an_earlier_one():
    """The passage is never of the last requests, which may be about the same."""
    asked = []
    strangers = NullPassages(4, lambda query, text: asked.append((query, text)) or 1.0)
    found = [strangers.score(str(n), [Candidate(f"text {n}")]) for n in range(100)]
    assert sum(not math.isnan(one) for one in found) == len(asked) == 23
    assert all(int(text.split()[1]) <= int(query) - 8 for query, text in asked)


def test_without_a_scorer_nothing_is_kept():
    """Where text is sent away, no passage is held for later."""
    strangers = NullPassages(4)
    assert math.isnan(strangers.score("q", [Candidate("text")]))
    assert not strangers.kept


def test_a_model_that_tells_nothing_from_random_passages_is_harmful():
    """When retrieved passages score like random ones, separation is gone, which is harm."""
    scorer = Tied()
    reranker, guard = guarded(scorer, None, learn=200, window=80, null_every=1)
    source = np.random.default_rng(3)
    with reranker:
        # Strangers score far below while all is well, and like candidates afterwards.
        guard.attach(lambda query, text: -20.0)
        for _ in range(200):
            reranker.rerank("a query", question(source))
            guard.settle()
        guard.attach(lambda query, text: 1.5)
        for _ in range(80):
            reranker.rerank("a query", question(source))
            guard.settle()
    assert guard.state.report is not None
    assert guard.state.report.reasons == ("separation",)
    assert guard.state.report.verdict == "harmful"


def test_a_reranker_attaches_its_own_stages(tmp_path):
    """Pairs of no request are scored by the same stages, and are not noted themselves."""
    scorer = Tied()
    path = tmp_path / "guard.jsonl"
    reranker, guard = guarded(scorer, reference(scorer, 60), null_every=2, log=path)
    source = np.random.default_rng(4)
    with reranker:
        for _ in range(30):
            reranker.rerank("a query", question(source))
            guard.settle()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 30
    assert sum("separation" in line for line in lines) > 5
