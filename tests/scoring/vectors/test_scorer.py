"""The vector scorer, with and without a memory: same scores, less work."""

import time

import numpy as np
import pytest

from rerank_plugins.records import Code
from rerank_plugins.scoring import Priced, Reads, Scorer
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.runtime.scheduler import Scheduler
from rerank_plugins.scoring.vectors.encoder import Encoder
from rerank_plugins.scoring.vectors.layout import find_encoder
from rerank_plugins.scoring.vectors.memory import LocalRows, VectorMemory, row_type
from rerank_plugins.scoring.vectors.scorer import VectorScorer
from tests import tiny
from tests.scoring.vectors import encoders

QUERY = "what is a red fox"
PASSAGES = tiny.passages(24)
LONG = "red fox " * 60


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Load a tiny encoder."""
    folder = tmp_path_factory.mktemp("mean") / "model"
    encoders.build(encoders.KINDS[0], folder)
    return Encoder(find_encoder(folder), OnnxOptions(graph_cache=False, max_batch_tokens=256))


@pytest.fixture(scope="module")
def scheduler():
    """Give two workers."""
    made = Scheduler(2)
    yield made
    made.close()


def memory(encoder, precision="int8", rows=100):
    """Make a memory for an encoder."""
    size = row_type(encoder.dimensions, precision).itemsize + 208
    store = LocalRows(rows * size, row_type(encoder.dimensions, precision).itemsize)
    return VectorMemory(store, encoder.identity, encoder.dimensions, precision=precision)


@pytest.fixture
def scorer(encoder):
    """Score with an empty memory."""
    return VectorScorer(encoder, memory(encoder))


@pytest.fixture
def score(scorer, scheduler):
    """Score as a stage does."""

    def run(passages, *, deadline_s=None, by=scorer):
        coroutine = by.score(QUERY, passages, deadline_s=deadline_s)
        return scheduler.submit(coroutine, deadline_s=deadline_s).result(timeout=60)

    return run


def test_it_is_a_scorer_with_a_price(scorer):
    """It has what stages and budgets ask for."""
    assert scorer.score_kind == "cosine"
    assert all(hasattr(scorer, name) for name in dir(Scorer) if not name.startswith("_"))
    assert isinstance(scorer, Priced)
    assert isinstance(scorer, Reads)


def test_scores_are_cosines_of_the_encoder(encoder, score):
    """Without a memory a score is the product of two unit vectors."""
    query = encoder.query_vectors(encoder.query_arrays(QUERY))[0]
    scored = score([*PASSAGES, LONG], by=VectorScorer(encoder))
    np.testing.assert_allclose(scored.scores, encoder.encode([*PASSAGES, LONG]) @ query, atol=1e-5)
    assert scored.done.all()
    # Two of the 48 tokens are special.
    assert scored.truncated_tokens[-1] == 120 - 46


def test_remembered_passages_score_the_same_and_are_not_read(score):
    """The second request encodes its query alone; counts of what was cut are remembered too."""
    first, second = score([*PASSAGES, LONG]), score([*PASSAGES[::-1], LONG])
    np.testing.assert_array_equal(second.scores[:-1][::-1], first.scores[:-1])
    np.testing.assert_array_equal(second.truncated_tokens[-1], first.truncated_tokens[-1])
    assert (first.usage.pairs, second.usage.pairs) == (25, 0)
    assert [timing.step for timing in second.timings][:2] == ["look up", "encode query"]


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.01), ("fp16", 0.001)])
def test_rounding_moves_scores_little(encoder, score, precision, most):
    """A memory's rounding stays below what its precision promises."""
    exact = score(PASSAGES, by=VectorScorer(encoder)).scores
    rounded = score(PASSAGES, by=VectorScorer(encoder, memory(encoder, precision))).scores
    assert 0.0 < np.abs(exact - rounded).max() < most


def test_some_remembered_and_some_new_go_together(scorer, score):
    """A mix comes back in the order in which it was given."""
    score(PASSAGES[::2])
    assert scorer.remembered(PASSAGES).tolist() == [True, False] * 12
    scored = score(PASSAGES)
    assert scored.usage.pairs == 12
    np.testing.assert_array_equal(scored.scores, score(PASSAGES).scores)


def test_passages_can_be_remembered_before_any_query(scorer, scheduler, score):
    """As an index does; what is known already is not encoded again."""
    assert scheduler.submit(scorer.remember(PASSAGES)).result(timeout=60) == 24
    assert scheduler.submit(scorer.remember(PASSAGES)).result(timeout=60) == 0
    assert score(PASSAGES).usage.pairs == 0


@pytest.mark.parametrize("known", [False, True])
def test_a_deadline_in_the_past_leaves_all_undone(score, known):
    """Remembered or not: the query's own vector takes time."""
    if known:
        score(PASSAGES)
    scored = score(PASSAGES, deadline_s=time.monotonic() - 1.0)
    assert not scored.done.any()
    assert sum(one.count for one in scored.decisions if one.code is Code.DEADLINE) == 24


def test_no_passages_give_no_scores(score):
    """An empty list is an empty answer."""
    assert len(score([]).scores) == 0


def test_a_price_counts_the_passages_that_are_new(scorer, score):
    """Once everything is remembered the stage is cheap, and says so."""
    scorer.warm_up()
    before = scorer.price_s([200] * 10)
    for _ in range(60):
        score(PASSAGES)
    assert 0.0 < scorer.price_s([200] * 10) < before / 10


def test_a_long_query_is_cut(scorer, scheduler):
    """Encoders cut queries; cross-encoders refuse them."""
    scored = scheduler.submit(scorer.score("fox " * 500, PASSAGES[:3])).result(timeout=60)
    assert scored.done.all()
