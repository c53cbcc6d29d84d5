"""Whatever a dependency raises becomes a degraded result or one of our errors."""

import contextlib
import threading
from concurrent.futures import CancelledError
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins import Candidate, Policy, Reranker, RerankError, Stage
from rerank_plugins.errors import ModelError
from rerank_plugins.scoring import Scored
from rerank_plugins.serving.adapter_support import copied, prior


class Unprintable(Exception):
    """An error that cannot even be shown."""

    def __str__(self):
        raise ValueError("no text")


class Rude:
    """A scorer that raises, or returns, whatever it is told to."""

    name, score_kind = "rude", "logit"

    def __init__(self, act):
        self.act = act

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Score, or not."""
        return self.act(len(passages))

    def price_s(self, chars):
        """Name a price, or not."""
        return self.act(len(chars))

    def warm_up(self):
        """Warm up, or not."""
        self.act(0)

    def close(self):
        """Hold nothing."""


ERRORS = st.sampled_from(
    [
        IndexError,
        KeyError,
        MemoryError,
        RecursionError,
        StopIteration,
        StopAsyncIteration,
        TimeoutError,
        CancelledError,
        OSError,
        AssertionError,
        Unprintable,
    ]
)
ARRAYS = st.sampled_from(
    [
        None,
        [0.5],
        0.5,
        np.zeros(3),
        np.zeros((3, 1), np.float32),
        np.full(3, np.nan, np.float32),
        np.zeros(3, np.complex64),
        np.array(["a", "b", "c"]),
        np.array([object()] * 3),
        np.ones(3, np.bool_),
        np.zeros(4, np.int64),
    ]
)


class Odd:
    """A number, a mapping and an iterable that fails in every way."""

    def __getattr__(self, name):
        raise AttributeError(name) if name.startswith("_") else RuntimeError(name)

    def __float__(self):
        raise RuntimeError("float")

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


METADATA = st.recursive(
    st.sampled_from([None, 1, "eu", Odd(), threading.Lock(), b"x", (i for i in ())]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["residency", "metadata", "meta", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def _raising(error):
    def act(_):
        raise error()

    return act


def _returning(value):
    def act(_):
        return value

    return act


def _scoring(parts):
    return _returning(Scored(*parts))


@settings(max_examples=60, deadline=None)
@given(
    act=ERRORS.map(_raising)
    | st.tuples(ARRAYS, ARRAYS, ARRAYS).map(_scoring)
    | ARRAYS.map(_returning),
    metadata=st.lists(METADATA, min_size=3, max_size=3),
    budget_ms=st.none() | st.just(5_000.0),
)
def test_a_scorer_may_do_what_it_likes(act, metadata, budget_ms):
    """Not strict, the result is whole; strict, the error is one of ours."""
    passages = [Candidate(text, metadata=each) for text, each in zip("abc", metadata, strict=True)]
    with Reranker(stages=[Stage(Rude(act))], policy=Policy(regions=("eu",)), workers=1) as one:
        result = one.rerank("q", passages, budget_ms=budget_ms)
        assert sorted(result.order) == [0, 1, 2]
        for ask in (lambda: one.rerank("q", passages, strict=True), one.warm_up):
            with contextlib.suppress(RerankError):
                ask()


def test_a_fallback_serves_in_place_of_a_scorer_that_raises():
    """A foreign error is a failed stage like any other, and strict mode shows its cause."""
    from rerank_plugins.scoring.lexical import LexicalScorer

    rude = Stage(Rude(_raising(IndexError)))
    with Reranker(stages=[rude, Stage(LexicalScorer(), when="fallback")]) as reranker:
        result = reranker.rerank("red fox", ["a blue hen", "a red fox"])
        assert result.order == (1, 0)
        assert result.stages[0].error == "ModelError"
    with Reranker(stages=[rude]) as reranker, pytest.raises(ModelError) as caught:
        reranker.rerank("red fox", ["a", "b"], strict=True)
    assert isinstance(caught.value.__cause__, IndexError)


@settings(max_examples=100, deadline=None)
@given(metadata=METADATA)
def test_metadata_is_copied_as_far_as_it_can_be(metadata):
    """What cannot be copied is shared, and what can be is not."""
    found = copied(metadata)
    assert type(found) is type(metadata)


def test_a_lock_in_metadata_is_shared_and_the_rest_copied():
    """The case that failed after scoring."""
    lock, tags = threading.Lock(), ["a"]
    found = copied({"lock": lock, "tags": tags, "inner": {"lock": lock, "tags": tags}})
    assert found["lock"] is lock
    assert found["inner"]["tags"] == tags
    assert found["tags"] is not tags
    assert found["inner"]["tags"] is not tags


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "score", [np.array([0.5]), np.zeros(3), 10**400, Decimal("sNaN"), Odd(), "x", 1j, [0.5]]
)
def test_what_is_no_number_is_no_prior(score):
    """A retriever's score that is no finite number is None."""
    assert prior(score) is None


@pytest.mark.parametrize("score", [np.float32(0.5), np.array(0.5), Decimal("0.5"), 0.5])
def test_what_is_a_number_is_a_prior(score):
    """NumPy's scalars and decimals are numbers."""
    assert prior(score) == 0.5
