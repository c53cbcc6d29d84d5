"""Candidates are dealt to calls in order, none over a cap, none lost."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.remote.chunking import split
from rerank_plugins.remote.providers import Caps

caps = st.builds(
    Caps,
    documents=st.one_of(st.none(), st.integers(1, 10)),
    tokens=st.one_of(st.none(), st.integers(1, 100)),
    text_bytes=st.one_of(st.none(), st.integers(1, 200)),
    overhead_bytes=st.integers(0, 20),
)


@given(st.text(max_size=20), st.lists(st.text(max_size=60), max_size=40), caps)
def test_every_place_is_dealt_once_in_order_and_no_call_is_over(query, texts, cap):
    """Calls hold all places, and one over a cap holds a single text."""
    calls = split(query, texts, cap)
    assert [place for call in calls for place in call] == list(range(len(texts)))
    for call in calls:
        asked = len(query.encode("utf-8", "replace"))
        size = sum(
            len(texts[i].encode("utf-8", "replace")) + asked + cap.overhead_bytes for i in call
        )
        assert len(call) == 1 or cap.documents is None or len(call) <= cap.documents
        assert len(call) == 1 or cap.text_bytes is None or size <= cap.text_bytes
