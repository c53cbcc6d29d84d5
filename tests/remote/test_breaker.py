"""A destination that keeps failing is left alone, probed once, and taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import RemoteError
from rerank_plugins.remote.resilience import Breaker, BreakerOptions, Outcome


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        """Return the time."""
        return self.now_s


def fail(breaker, times):
    """Let calls fail."""
    for _ in range(times):
        breaker.leave(Outcome.BAD, probe=breaker.enter())


def test_it_opens_after_failures_in_a_row():
    """A success in between starts the count anew."""
    breaker = Breaker("a", BreakerOptions(3), clock=Clock())
    fail(breaker, 2)
    breaker.leave(Outcome.GOOD, probe=breaker.enter())
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(RemoteError, match="left alone"):
        breaker.enter()


def test_one_probe_decides():
    """After its rest one call goes out; meanwhile others are refused; success closes."""
    clock = Clock()
    breaker = Breaker("a", BreakerOptions(1, rest_s=2.0), clock=clock)
    fail(breaker, 1)
    clock.now_s = 2.0
    assert breaker.state == "half-open"
    probe = breaker.enter()
    assert probe
    with pytest.raises(RemoteError, match="under way"):
        breaker.enter()
    breaker.leave(Outcome.GOOD, probe=probe)
    assert breaker.state == "closed"
    assert not breaker.enter()


def test_a_failed_probe_rests_twice_as_long_up_to_a_bound():
    """2 s, 4 s, 5 s, 5 s."""
    clock = Clock()
    breaker = Breaker("a", BreakerOptions(1, rest_s=2.0, longest_rest_s=5.0), clock=clock)
    fail(breaker, 1)
    for rest_s in (2.0, 4.0, 5.0, 5.0):
        clock.now_s += rest_s - 0.01
        assert breaker.state == "open"
        clock.now_s += 0.01
        fail(breaker, 1)


def test_a_cancelled_probe_frees_the_place():
    """A probe that says nothing lets the next one through."""
    clock = Clock()
    breaker = Breaker("a", BreakerOptions(1, rest_s=1.0), clock=clock)
    fail(breaker, 1)
    clock.now_s = 1.0
    breaker.leave(Outcome.NOTHING, probe=breaker.enter())
    assert breaker.enter()


def test_a_late_failure_does_not_disturb_a_probe():
    """Calls that were under way when it opened end without taking the probe's place."""
    clock = Clock()
    breaker = Breaker("a", BreakerOptions(1, rest_s=1.0), clock=clock)
    late = breaker.enter()
    fail(breaker, 1)
    clock.now_s = 1.0
    breaker.enter()
    breaker.leave(Outcome.BAD, probe=late)
    with pytest.raises(RemoteError):
        breaker.enter()


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0.0, 100.0))))
def test_it_never_stays_open_for_good(history):
    """Whatever happened, after the longest rest a probe goes out, and its success closes."""
    clock = Clock()
    breaker = Breaker("a", BreakerOptions(2), clock=clock)
    for outcome, pause_s in history:
        clock.now_s += pause_s
        try:
            probe = breaker.enter()
        except RemoteError:
            continue
        breaker.leave(outcome, probe=probe)
    clock.now_s += 60.0
    breaker.leave(Outcome.GOOD, probe=breaker.enter())
    assert breaker.state == "closed"
