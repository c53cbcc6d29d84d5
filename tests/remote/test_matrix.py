"""Every provider, every fault, over real sockets: whatever comes, a whole order in time."""

import itertools
import time

import pytest

from rerank_plugins.records import Code, Result
from rerank_plugins.remote.providers import PROVIDERS as TABLE
from rerank_plugins.testing import FakeRerankServer, Fault
from rerank_plugins.testing.faults import HARMLESS
from tests.remote.serving import BEST_FIRST, PASSAGES, PROVIDERS, QUERY, SECRET, remote_first

pytestmark = pytest.mark.usefixtures("unburdened")

# A single one of these is over by the next attempt, within the budget.
PASSING = {
    Fault.RATE_LIMITED,
    Fault.RETRY_AFTER_FLOAT,
    Fault.RETRY_AFTER_MS,
    Fault.SERVER_ERROR,
    Fault.UNAVAILABLE,
    Fault.BAD_GATEWAY,
    Fault.RESET,
    Fault.CLOSED,
    Fault.TOO_LARGE,
}
SLOW = {Fault.SLOW_HEADERS, Fault.DRIP, Fault.HUGE}
FINE_FOR_SOME = {Fault.OTHER_MODEL, Fault.WILD_SCORE, Fault.ACCEPTED}
FAILING = set(Fault) - HARMLESS - PASSING - SLOW - FINE_FOR_SOME


def codes(result: Result) -> set[Code]:
    """Return the codes of a result's decisions."""
    return {decision.code for decision in result.decisions}


def check(result: Result, *, failed: bool) -> None:
    """Check what holds however the remote stage fared."""
    assert sorted(result.order) == list(range(len(PASSAGES)))
    assert result.order[0] == BEST_FIRST or not failed
    said = repr(result)
    assert SECRET not in said
    assert not any(text in said for text in PASSAGES)
    assert result.degraded is failed
    if failed:
        assert {Code.STAGE_FAILED, Code.FALLBACK} <= codes(result)
        assert all(hit.score is None for hit in result)
    else:
        assert all(hit.score is not None for hit in result)
    assert any(
        decision.code is Code.SENT and decision.count == len(PASSAGES)
        for decision in result.decisions
    )


# One of each kind of request, answer and error form; the others are variations, and marked slow.
QUICK = {"cohere", "bedrock", "google", "nvidia", "tei"}


@pytest.fixture(
    scope="module",
    params=[
        one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PROVIDERS
    ],
)
def provider(request):
    """Name each provider in turn."""
    return request.param


@pytest.fixture(scope="module")
def server(provider):
    """Serve the provider's dialect."""
    with FakeRerankServer(provider, slow_s=3.0) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(provider):
    """Serve the same dialect at another origin."""
    with FakeRerankServer(provider) as server:
        yield server


@pytest.fixture
def reranker(server, provider):
    """Ask the server first and word overlap after it."""
    with remote_first(server, provider) as reranker:
        yield reranker


def test_a_good_answer_is_joined_by_index(reranker, server):
    """The best passage comes first, with the provider's own score."""
    server.break_with(())
    result = reranker.rerank(QUERY, PASSAGES, strict=True)
    check(result, failed=False)
    assert result.order[0] == BEST_FIRST
    assert result.usage.remote_calls == 1


@pytest.mark.parametrize("fault", sorted(HARMLESS, key=str))
def test_harmless_variations_change_nothing(reranker, server, fault):
    """Order of rows, compression, echoed documents and redirects within the origin are fine."""
    server.break_with(())
    plain = reranker.rerank(QUERY, PASSAGES)
    server.break_with([fault])
    result = reranker.rerank(QUERY, PASSAGES)
    check(result, failed=False)
    expected = tuple(range(len(PASSAGES))) if fault is Fault.TIES else plain.order
    assert result.order == expected


@pytest.mark.parametrize("fault", sorted(PASSING, key=str))
def test_what_passes_is_tried_again(reranker, server, fault):
    """One such fault costs an attempt and nothing else."""
    server.break_with([fault])
    result = reranker.rerank(QUERY, PASSAGES, budget_ms=5000)
    check(result, failed=False)
    if fault is not Fault.TOO_LARGE:
        assert Code.RETRIED in codes(result)


@pytest.mark.parametrize("fault", sorted(FAILING, key=str))
def test_what_does_not_pass_falls_back(reranker, server, elsewhere, fault):
    """Nonsense and refusals end in the fallback's order, without a score, within the budget."""
    server.redirect_to = f"{elsewhere.url}/rerank"
    server.break_with(itertools.repeat(fault))
    started = time.monotonic()
    result = reranker.rerank(QUERY, PASSAGES, budget_ms=1000)
    # Generous: the machine may be busy. What is pinned here is that no hint is waited for.
    assert time.monotonic() - started < 2.0
    check(result, failed=True)
    assert elsewhere.bytes_received == 0


@pytest.mark.parametrize("fault", sorted(SLOW, key=str))
def test_what_is_slow_leaves_time_for_the_fallback(reranker, server, fault):
    """An answer that does not come in time costs its share of the budget, never all of it."""
    server.break_with(itertools.repeat(fault))
    started = time.monotonic()
    result = reranker.rerank(QUERY, PASSAGES, budget_ms=600)
    assert time.monotonic() - started < 1.5
    check(result, failed=True)


def test_another_model_is_refused_where_the_answer_names_it(reranker, server, provider):
    """Scores of a model nobody asked for are not used, because thresholds would not fit."""
    server.break_with(itertools.repeat(Fault.OTHER_MODEL))
    check(reranker.rerank(QUERY, PASSAGES), failed=TABLE[provider].echoes_model)


def test_a_score_out_of_range_is_refused_where_the_range_is_known(reranker, server, provider):
    """A provider that promises [0, 1] and answers 1e9 is broken."""
    server.break_with(itertools.repeat(Fault.WILD_SCORE))
    check(reranker.rerank(QUERY, PASSAGES), failed=TABLE[provider].score_range is not None)


def test_an_accepted_call_is_followed_up_where_that_is_known(reranker, server, provider):
    """202 is an answer to come for NIM, and no answer for everybody else."""
    server.break_with([Fault.ACCEPTED])
    failed = provider != "nvidia"
    check(reranker.rerank(QUERY, PASSAGES, budget_ms=5000), failed=failed)


def test_more_than_fits_is_split_and_joined(reranker, server, provider):
    """Over the cap a request becomes several calls, and every candidate gets its score."""
    server.break_with(())
    cap = min(server.dialect.cap, 1000)
    passages = [*(f"filler number {i}" for i in range(cap)), "a red fox hunts at night"]
    before = len(server.requests)
    result = reranker.rerank(QUERY, passages)
    assert result.order[0] == cap
    assert sorted(result.order) == list(range(cap + 1))
    assert all(hit.score is not None for hit in result)
    assert len(server.requests) - before == result.usage.remote_calls == 2


def test_blank_passages_are_not_sent(reranker, server):
    """An empty document, which would poison the whole batch, stays here and comes last."""
    server.break_with(())
    result = reranker.rerank(QUERY, ["", "\u200b\n", *PASSAGES, None])
    assert result.order[0] == BEST_FIRST + 2
    assert set(result.order[-3:]) == {0, 1, 7}
    assert b"\\u200b" not in server.requests[-1].body
    assert "\u200b".encode() not in server.requests[-1].body
