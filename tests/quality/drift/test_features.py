"""What is noted of one request."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.quality.drift.features import common_start, observe


@given(st.text(max_size=9), st.lists(st.text(max_size=9), min_size=3, max_size=6))
def test_the_common_start_is_one_of_every_text_and_the_longest(head, tails):
    """All texts begin with it, and with one more character they do not."""
    texts = [head + tail for tail in tails]
    size = common_start(texts)
    assert size is not None
    assert size >= len(head)
    assert len({text[:size] for text in texts}) == 1
    assert min(map(len, texts)) == size or len({text[: size + 1] for text in texts}) > 1


def test_two_passages_say_nothing_about_a_common_start():
    """Two may begin alike by chance; three are asked for, and nothing is noted below."""
    assert common_start(["the sea", "the hen"]) is None
    one = observe(np.arange(2.0), np.arange(2.0), chars=np.ones(2), query_chars=3)
    assert np.isnan(one["boilerplate"])
