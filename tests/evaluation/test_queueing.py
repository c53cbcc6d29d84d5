"""Simulated queues against the theory that is known in closed form."""

import itertools
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidRequest
from rerank_plugins.evaluation.datasets import Topic
from rerank_plugins.evaluation.queueing import service_times, simulate, sojourn_times
from rerank_plugins.records import Candidate


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_waits_follow_pollaczek_and_khinchine(load):
    """The mean wait of one server with constant times is load / (2 (1 - load)) services."""
    mean = statistics.fmean(sojourn_times([1.0], load, servers=1, seed=1, arrivals=200_000))
    assert mean - 1.0 == pytest.approx(load / (2 * (1 - load)), rel=0.08)


def test_waits_follow_erlang_for_several_servers():
    """Three servers with exponential times at 80 % load wait as Erlang's C formula says."""
    draw = random.Random(2)
    times = [draw.expovariate(1.0) for _ in range(50_000)]
    scale = statistics.fmean(times)
    offered, servers = 2.4, 3
    mean = statistics.fmean(
        sojourn_times(times, offered / scale, servers=servers, seed=3, arrivals=200_000)
    )
    empty = 1 + offered + offered**2 / 2
    queueing = offered**3 / 6 / (1 - offered / servers)
    wait = queueing / (empty + queueing) / (servers - offered)
    assert mean / scale - 1.0 == pytest.approx(wait, rel=0.08)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=20), st.integers(1, 4))
def test_more_load_never_waits_less(times, servers):
    """Percentiles grow with the load, and the chosen load keeps what was wanted."""
    wanted = 3.0 * max(times)
    found = simulate(times, servers=servers, p95_s=wanted, arrivals=2_000)
    p95 = [point.latency.p95_s for point in found.points]
    assert all(one <= other * 1.001 for one, other in itertools.pairwise(p95))
    assert found.chosen is not None
    assert found.chosen.latency.p95_s <= wanted


def test_no_load_keeps_less_than_the_work_itself():
    """A 95th percentile below the service time cannot be kept, and costs nothing to say so."""
    found = simulate([1.0], p95_s=0.5)
    assert found.chosen is None
    assert found.cost_per_million(1.0) is None


def test_cost_counts_machines_and_the_chosen_rate():
    """A million requests cost the machines' hours at the chosen load."""
    found = simulate([0.1], servers=2, p95_s=100.0)
    assert found.chosen is not None
    assert found.limit_per_s == pytest.approx(20.0)
    assert found.cost_per_million(0.36) == pytest.approx(0.36 * 2 / 3600 / 19.0 * 1e6)


@pytest.mark.parametrize(("times", "servers"), [([], 1), ([0.0], 1), ([1.0], 0)])
def test_nothing_measured_is_refused(times, servers):
    """Without times or servers there is nothing to simulate."""
    with pytest.raises(InvalidRequest, match="expected at least one"):
        simulate(times, servers=servers)


def test_service_times_are_of_single_requests():
    """Every request is timed by itself, the topics over and over."""
    topics = [Topic("1", "fox", ("a", "b"), (Candidate("a fox"), Candidate("a hen")))]
    with Reranker("lexical") as reranker:
        times = service_times(reranker, topics, 3)
    assert len(times) == 3
    assert min(times) > 0.0
