"""An answer is believed only if it has exactly one finite score for each document."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import RemoteError
from rerank_plugins.remote.dialects.json_body import JsonDialect
from rerank_plugins.remote.response import check_model, scores_of

rows = st.lists(
    st.tuples(
        st.one_of(st.integers(-2, 6), st.booleans(), st.none(), st.text(max_size=2)),
        st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=2)),
    ),
    max_size=7,
)


@given(rows, st.integers(1, 5))
def test_any_rows_give_whole_finite_scores_or_an_error(found, n):
    """There is nothing in between."""
    try:
        scores = scores_of(found, n)
    except RemoteError:
        return
    assert scores.shape == (n,)
    assert np.isfinite(scores).all()
    assert sorted(index for index, _ in found) == list(range(n))


@given(st.permutations(range(6)))
def test_rows_are_joined_by_index(order):
    """The order of the rows says nothing."""
    scores = scores_of([(i, i / 10) for i in order], 6)
    assert scores.tolist() == pytest.approx([i / 10 for i in range(6)])


@given(st.binary(max_size=200))
def test_any_body_is_an_answer_or_a_remote_error(body):
    """Bytes of any kind never raise anything else."""
    try:
        JsonDialect().decode(body, {})
    except RemoteError:
        return


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"results": 1}',
        b'{"results": {"a": 1}}',
        b'{"results": [1]}',
        b"[" * 9999,
    ],
)
def test_other_json_is_an_error(body):
    """JSON of another form is refused with what was expected."""
    with pytest.raises(RemoteError, match="answer"):
        JsonDialect().decode(body, {})


def test_a_model_is_known_by_its_name_without_its_owner():
    """Owners and case do not make another model; other names do, unless accepted."""
    check_model("mxbai-rerank-v2", "mixedbread-ai/MXBAI-rerank-v2", ())
    check_model("a", None, ())
    check_model("a", "b", ("b",))
    with pytest.raises(RemoteError, match="accept_models"):
        check_model("a", "b", ())
