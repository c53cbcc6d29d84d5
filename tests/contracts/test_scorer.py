"""The contract of every scorer: what a stage may rely on, whatever computes the numbers."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rerank_plugins.records import Code
from rerank_plugins.scoring import Scored, Scorer
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.scoring.models.files import find
from rerank_plugins.scoring.onnx.options import OnnxOptions
from rerank_plugins.scoring.onnx.scorer import OnnxScorer
from rerank_plugins.scoring.runtime.scheduler import Scheduler
from rerank_plugins.scoring.vectors.encoder import Encoder
from rerank_plugins.scoring.vectors.layout import find_encoder
from rerank_plugins.scoring.vectors.memory import LocalRows, VectorMemory, row_type
from rerank_plugins.scoring.vectors.scorer import VectorScorer
from tests import tiny

QUERY = "what is a red fox"
PASSAGES = tiny.passages(24)


def lexical(_folder):
    """Score by words."""
    return LexicalScorer()


def small(folder):
    """Score by a tiny graph, in one batch."""
    return OnnxScorer(find(folder), OnnxOptions(graph_cache=False, max_batch_tokens=8192))


def small_batches(folder):
    """Score by a tiny graph, pair by pair."""
    return OnnxScorer(find(folder), OnnxOptions(graph_cache=False, max_batch_tokens=1))


def remembering(folder):
    """Score by a tiny graph that remembers its scores."""
    return OnnxScorer(find(folder), OnnxOptions(graph_cache=False, score_cache_bytes=2**20))


def embedded(_folder):
    """Score by the model that ships."""
    return OnnxScorer(find("embedded"))


def encoder(_folder):
    """Score by the encoder that ships."""
    return VectorScorer(Encoder(find_encoder("embedded")))


def remembering_encoder(_folder):
    """Score by the encoder that ships, which remembers passages."""
    made = Encoder(find_encoder("embedded"))
    store = LocalRows(2**20, row_type(made.dimensions, "int8").itemsize)
    return VectorScorer(made, VectorMemory(store, made.identity, made.dimensions))


MAKERS = (lexical, small, small_batches, remembering, embedded, encoder, remembering_encoder)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def scorer(request, tiny_model):
    """Make each scorer once."""
    made = request.param(tiny_model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def scheduler():
    """Give two workers."""
    made = Scheduler(2)
    yield made
    made.close()


@pytest.fixture
def score(scorer, scheduler):
    """Score as a stage does."""

    def run(passages, *, deadline_s=None, query=QUERY) -> Scored:
        coroutine = scorer.score(query, passages, state=None, deadline_s=deadline_s)
        return scheduler.submit(coroutine, deadline_s=deadline_s).result(timeout=120)

    return run


def tolerance(scorer):
    """Say how far a score may move with its neighbours: dynamic int8 quantises them together."""
    card = scorer.files.card if isinstance(scorer, OnnxScorer) else {}
    return 5.0 if "dynamic int8" in str(card.get("quantisation", "")) else 1e-5


def test_it_is_a_scorer(scorer):
    """It has a name, says what its numbers are, and can be warmed and closed."""
    assert scorer.name
    assert scorer.score_kind in {"logit", "probability", "cosine", "lexical", "vendor", "slate"}
    assert all(callable(getattr(scorer, name)) for name in ("score", "warm_up", "close"))
    assert all(hasattr(Scorer, name) for name in ("score", "warm_up", "close"))


def test_every_passage_gets_one_finite_score(scorer, score):
    """Each passage gets a finite score, is done, and has a count that is not negative."""
    scored = score(PASSAGES)
    for array in (scored.scores, scored.done, scored.truncated_tokens):
        assert array.shape == (len(PASSAGES),)
    assert scored.scores.dtype == np.float32
    assert np.isfinite(scored.scores).all()
    assert scored.done.all()
    assert (scored.truncated_tokens >= 0).all()


def test_no_passages_give_no_scores(score):
    """An empty list is an empty answer."""
    scored = score([])
    assert len(scored.scores) == len(scored.done) == len(scored.truncated_tokens) == 0


def test_the_order_of_passages_moves_no_score(scorer, score):
    """A passage scores the same wherever it stands."""
    shuffled = np.random.default_rng(2).permutation(len(PASSAGES))
    straight = score(PASSAGES).scores
    mixed = score([PASSAGES[i] for i in shuffled]).scores
    np.testing.assert_allclose(mixed, straight[shuffled], atol=tolerance(scorer), rtol=0)


def test_neighbours_and_padding_move_no_score(scorer, score):
    """A passage scores the same alone as beside longer ones, for scorers of pairs."""
    if scorer.score_kind == "lexical":
        pytest.skip("BM25's statistics are those of the request, by definition")
    together = score([*PASSAGES, "the house " * 40]).scores
    alone = np.concatenate([score([passage]).scores for passage in PASSAGES])
    np.testing.assert_allclose(together[:-1], alone, atol=tolerance(scorer), rtol=0)


def test_the_same_request_gives_the_same_scores(scorer, score):
    """Scoring is repeatable to the last bit that threads leave alone."""
    np.testing.assert_allclose(score(PASSAGES).scores, score(PASSAGES).scores, atol=1e-6, rtol=0)


def test_a_deadline_in_the_past_leaves_all_undone_and_is_no_error(score):
    """Out of time before it starts, a scorer says which passages it left, and why."""
    passages = [f"{passage} late" for passage in PASSAGES]
    scored = score(passages, deadline_s=time.monotonic() - 1.0)
    assert not scored.done.any()
    missed = [one.count for one in scored.decisions if one.code is Code.DEADLINE]
    assert sum(missed) == len(passages)
    assert scored.usage.pairs == 0


def test_a_generous_deadline_changes_nothing(scorer, score):
    """With time enough all is done, and scored as without a deadline."""
    late = score(PASSAGES, deadline_s=time.monotonic() + 300.0)
    assert late.done.all()
    np.testing.assert_allclose(late.scores, score(PASSAGES).scores, atol=tolerance(scorer), rtol=0)


def test_concurrent_calls_do_not_mix(scorer, score):
    """Calls from many threads give each caller its own answer."""
    requests = [PASSAGES[start : start + 6] for start in range(12)]
    expected = [score(passages).scores for passages in requests]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda passages: score(passages).scores, requests))
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=tolerance(scorer), rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 lone surrogate \udfff",
        "nul \0 inside",
        "\u200b\u200c\u200d\ufeff",
        "مرحبا بالعالم \u202e reversed",
        "👩‍👩‍👧‍👦🏳️‍🌈" * 20,
        "e\u0301" * 50,
        "一" * 300,
        "\x1b[31m\x07",
        "[SEP] [CLS] [PAD] [MASK] [UNK]",
        "x" * 5000,
        "\U0010ffff",
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_any_text_is_scored(score, text):
    """Strange characters are text like any other, in a passage and in a query."""
    scored = score([text, *PASSAGES[:3]])
    assert scored.done.all()
    assert np.isfinite(scored.scores).all()
    assert np.isfinite(score(PASSAGES[:3], query=text[:60]).scores).all()


def test_warming_up_twice_is_once(scorer):
    """A second warm-up costs nothing."""
    scorer.warm_up()
    started = time.perf_counter()
    scorer.warm_up()
    assert time.perf_counter() - started < 0.05


def test_a_score_can_be_awaited(scorer, scheduler):
    """From asyncio, a score is a future like any other."""

    async def both():
        futures = [
            asyncio.wrap_future(scheduler.submit(scorer.score(QUERY, PASSAGES[:3])))
            for _ in range(2)
        ]
        return await asyncio.gather(*futures)

    one, two = asyncio.run(both())
    np.testing.assert_allclose(one.scores, two.scores, atol=tolerance(scorer), rtol=0)
