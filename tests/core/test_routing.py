"""Fallbacks run where local stages cannot serve, and give an order without a foreign scale."""

import threading
import time

import pytest

from rerank_plugins import Candidate, Reranker, load
from rerank_plugins.errors import RemoteError
from rerank_plugins.records import Code
from rerank_plugins.testing import FakeRerankServer, Fault

QUERY = "red fox hunts at night"
PASSAGES = ["the blue hen sleeps", "a red fox hunts at night", "nothing of the kind"]
# Enough work that the embedded model cannot do half of it within the budgets below.
MANY = [f"passage {i} " + "on foxes, hens and what they do at night " * 20 for i in range(600)]


@pytest.fixture
def server():
    """Serve a remote model that answers at once."""
    with FakeRerankServer("tei") as server:
        yield server


def local_first(server: FakeRerankServer, **service: object) -> Reranker:
    """Give the embedded model, with the server as its fallback."""
    remote = {"provider": "tei", "base_url": server.url, "max_documents": 1000, "retries": 0}
    server.dialect = server.dialect.__class__(
        **{name: getattr(server.dialect, name) for name in server.dialect.__slots__} | {"cap": 1000}
    )
    return load(
        {
            "stages": [{"scorer": "embedded"}, {"scorer": remote, "when": "fallback"}],
            "service": service,
        }
    )


def tight_ms(reranker: Reranker) -> float:
    """Give a budget for about a fifth of `MANY`, however fast the machine is at the moment."""
    started = time.monotonic()
    reranker.rerank(QUERY, MANY[:60], strict=True)
    return max(300.0, 2e3 * (time.monotonic() - started))


def codes(result):
    """Give the codes of a result's decisions."""
    return {one.code for one in result.decisions}


def test_a_fallback_does_not_run_while_the_local_stage_serves(server):
    """Nothing leaves where nothing has to."""
    with local_first(server) as reranker:
        reranker.warm_up()
        result = reranker.rerank(QUERY, PASSAGES)
    assert not result.degraded
    assert all(hit.score is not None for hit in result)
    assert server.bytes_received == 0


def test_the_fallback_serves_while_the_model_is_cold(server):
    """A request that does not wait for the warm-up goes to the remote stage."""
    with local_first(server, when_cold="pass_through") as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
        reranker.warm_up()
    assert result.order[0] == 1
    assert {Code.NOT_WARM, Code.FALLBACK, Code.SENT} <= codes(result)
    assert result.degraded
    assert all(hit.score is None and hit.depth == 2 for hit in result)


def test_the_fallback_serves_while_the_queue_is_full(server):
    """One request too many is answered remotely instead of being refused."""
    with local_first(server, max_requests=1) as reranker:
        reranker.warm_up()
        first = reranker.submit(_request(MANY))
        result = reranker.rerank(QUERY, PASSAGES)
        first.cancel()
    assert result.order[0] == 1
    assert {Code.OVERLOADED, Code.FALLBACK, Code.SENT} <= codes(result)


def test_the_fallback_goes_first_where_the_local_stage_would_be_late(server):
    """Predicted to score less than half of the candidates in time, the model is not even begun."""
    with local_first(server) as reranker:
        reranker.warm_up()
        result = reranker.rerank(QUERY, MANY, budget_ms=tight_ms(reranker))
    assert {Code.PLAN, Code.FALLBACK, Code.SENT} <= codes(result)
    assert all(hit.depth == 2 for hit in result)
    assert sorted(result.order) == list(range(len(MANY)))


def test_a_late_local_stage_does_what_it_can_where_the_fallback_fails(server):
    """The remote stage fails at once: the model scores the head in the time that is left."""
    server.break_with(lambda _: Fault.SERVER_ERROR)
    with local_first(server) as reranker:
        reranker.warm_up()
        result = reranker.rerank(QUERY, MANY, budget_ms=tight_ms(reranker))
    assert {Code.PLAN, Code.STAGE_FAILED, Code.SENT} <= codes(result)
    assert any(hit.depth == 1 for hit in result)
    assert sorted(result.order) == list(range(len(MANY)))


def test_a_late_local_stage_does_what_it_can_where_policy_forbids_the_fallback(server):
    """A document that has to stay keeps the request local, however late."""
    with local_first(server) as reranker:
        reranker.warm_up()
        many = [Candidate(text, metadata={"residency": "de"}) for text in MANY]
        result = reranker.rerank(QUERY, many, budget_ms=tight_ms(reranker))
    assert any(hit.depth == 1 for hit in result)
    assert server.bytes_received == 0


def test_the_last_resort_is_the_first_stage_order(server):
    """Everything fails: the caller's order, no scores, and it says so."""
    server.break_with(lambda _: Fault.SERVER_ERROR)
    remote = {"provider": "tei", "base_url": server.url, "retries": 0}
    with load({"stages": [{"scorer": remote}]}) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
        with pytest.raises(RemoteError, match="500"):
            reranker.rerank(QUERY, PASSAGES, strict=True)
    assert result.order == (0, 1, 2)
    assert result.degraded
    assert {Code.STAGE_FAILED, Code.PASS_THROUGH} <= codes(result)
    assert all(hit.score is None and hit.probability is None for hit in result)


def test_a_calibrated_fallback_gives_probabilities_and_no_scores(server):
    """Probabilities compare between models; scores do not."""
    remote = {"provider": "tei", "base_url": server.url}
    local = {"scorer": "/nowhere", "local_files_only": True}
    calibrated = {"scorer": remote, "when": "fallback", "calibration": [4.0, -2.0]}
    with load({"stages": [local, calibrated]}) as reranker:
        result = reranker.rerank(QUERY, PASSAGES)
    assert all(hit.score is None and 0.0 < hit.probability < 1.0 for hit in result)


def test_cancelling_a_request_ends_its_call():
    """Who gives up on a request gives up its connection, and the reranker closes at once."""
    before = set(threading.enumerate())
    with FakeRerankServer("tei", faults=[Fault.SLOW_HEADERS], slow_s=60.0) as server:
        remote = {"provider": "tei", "base_url": server.url, "timeout_s": 60}
        with load({"stages": [{"scorer": remote}]}) as reranker:
            future = reranker.submit(_request(PASSAGES))
            while not server.requests:
                time.sleep(0.01)
            assert future.cancel()
            started = time.monotonic()
            while reranker._scheduler._active:
                assert time.monotonic() - started < 5.0
                time.sleep(0.01)
        left = set(threading.enumerate()) - before
        assert not [one for one in left if one.name == "rerank-remote"]


def _request(passages):
    from rerank_plugins import Request

    return Request(QUERY, tuple(Candidate(text) for text in passages))
