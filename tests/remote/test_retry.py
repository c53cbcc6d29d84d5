"""When to come back: what the server says, in every form it may say it."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.remote.resilience import backoff_s, is_retryable, retry_after_s

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": formatdate(NOW_S + 9, usegmt=True)}, 9.0),
        ({"retry-after": formatdate(NOW_S - 9, usegmt=True)}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "later", "x-ratelimit-reset": str(NOW_S + 3)}, 3.0),
        ({"x-ratelimit-reset": "4"}, 4.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e12"}, None),
    ],
)
def test_the_first_hint_that_makes_sense_counts(headers, seconds):
    """Milliseconds, then seconds or a date, then the reset."""
    assert retry_after_s(headers, NOW_S) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(
        st.sampled_from(["retry-after-ms", "retry-after", "x-ratelimit-reset"]), st.text()
    )
)
def test_garbage_in_hints_is_no_error(headers):
    """Whatever a server writes there, the hint is a sane number or none."""
    hint = retry_after_s(headers, NOW_S)
    assert hint is None or 0.0 <= hint <= 86_400.0


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_backoff_is_bounded_and_jittered(attempt, share):
    """It never exceeds its cap, never goes below half of its step."""
    assert 0.05 <= backoff_s(attempt, share) <= 8.0


def test_the_server_has_the_last_word_on_retrying():
    """x-should-retry overrides the status."""
    assert is_retryable(503, {})
    assert not is_retryable(503, {"x-should-retry": "false"})
    assert is_retryable(400, {"x-should-retry": "true"})
    assert not any(is_retryable(status, {}) for status in (400, 401, 402, 403, 404, 413, 422))
