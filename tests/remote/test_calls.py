"""Calls: limited, hedged, broken off, traced, and never with more than they need."""

import itertools
import logging
import time

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider

from rerank_plugins.errors import ConfigError, RemoteError
from rerank_plugins.records import Code
from rerank_plugins.remote.options import RemoteOptions, resolve
from rerank_plugins.remote.resilience import BreakerOptions
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.rules.residency import Permit, Policy
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.serving import PASSAGES, QUERY, SECRET, options, planted, remote_first


def codes(result):
    """Return the codes of a result's decisions."""
    return {decision.code for decision in result.decisions}


def test_a_breaker_keeps_requests_from_a_broken_destination_and_lets_them_back():
    """After five failures nothing is sent; after the rest one probe closes it."""
    with FakeRerankServer("cohere", faults=[Fault.SERVER_ERROR] * 5) as server:
        quick = BreakerOptions(5, rest_s=1.5)
        with remote_first(server, "cohere", retries=0, breaker=quick) as reranker:
            for _ in range(5):
                assert reranker.rerank(QUERY, PASSAGES).degraded
            assert reranker.rerank(QUERY, PASSAGES).degraded
            assert len(server.requests) == 5
            time.sleep(1.55)
            assert not reranker.rerank(QUERY, PASSAGES).degraded
            assert not reranker.rerank(QUERY, PASSAGES).degraded


def test_the_callers_mistakes_do_not_open_the_breaker():
    """422 says nothing about the destination."""
    with FakeRerankServer("cohere", faults=[Fault.INVALID] * 9) as server:
        strict = BreakerOptions(2, rest_s=60.0)
        with remote_first(server, "cohere", breaker=strict) as reranker:
            for _ in range(9):
                reranker.rerank(QUERY, PASSAGES)
            assert not reranker.rerank(QUERY, PASSAGES).degraded


def test_a_hedge_answers_where_the_first_call_hangs():
    """The second, equal call wins and the first is given up."""
    with FakeRerankServer("cohere", faults=[Fault.SLOW_HEADERS], slow_s=30.0) as server:
        with remote_first(server, "cohere", hedge_s=0.05) as reranker:
            started = time.monotonic()
            result = reranker.rerank(QUERY, PASSAGES)
        assert time.monotonic() - started < 10.0
        assert not result.degraded
        assert Code.RETRIED in codes(result)
        assert len(server.requests) == 2


def test_a_rate_limit_of_ones_own_is_kept_and_never_waited_for_in_vain():
    """One call in three seconds: the next within a budget falls back, without a budget it waits."""
    with (
        FakeRerankServer("cohere") as server,
        remote_first(server, "cohere", per_minute=20) as reranker,
    ):
        assert not reranker.rerank(QUERY, PASSAGES).degraded
        assert reranker.rerank(QUERY, PASSAGES, budget_ms=200).degraded
        started = time.monotonic()
        assert not reranker.rerank(QUERY, PASSAGES).degraded
        assert time.monotonic() - started > 0.3
        assert len(server.requests) == 2


def test_too_large_a_batch_is_learned_from():
    """A server that says how many it takes is asked for so many from then on."""
    with (
        FakeRerankServer("tei") as server,
        remote_first(server, "tei", max_documents=500) as reranker,
    ):
        passages = [f"filler {i}" for i in range(100)]
        assert not reranker.rerank(QUERY, passages).degraded
        before = len(server.requests)
        assert not reranker.rerank(QUERY, passages).degraded
        assert len(server.requests) - before == 4


def test_a_call_refused_as_too_large_is_halved_and_the_next_is_whole_again():
    """Without a number to believe, one refusal does not make all later calls smaller."""
    with (
        FakeRerankServer("cohere", faults=[Fault.TOO_LARGE]) as server,
        remote_first(server, "cohere") as reranker,
    ):
        passages = [f"filler {i}" for i in range(10)]
        assert not reranker.rerank(QUERY, passages).degraded
        assert len(server.requests) == 3
        assert not reranker.rerank(QUERY, passages).degraded
        assert len(server.requests) == 4


def test_a_destination_that_is_never_in_time_opens_the_breaker_however_small_the_budget():
    """What counts is that the call had most of the request's time."""
    with FakeRerankServer("cohere", faults=lambda _: Fault.SLOW_HEADERS, slow_s=60.0) as server:
        strict = BreakerOptions(2, rest_s=60.0)
        with remote_first(server, "cohere", retries=0, breaker=strict) as reranker:
            breaker = reranker.setup.stages[0].scorer.calls.breaker
            for _ in range(200):
                reranker.rerank(QUERY, PASSAGES, budget_ms=60)
                if breaker.state == "open":
                    break
            assert breaker.state == "open"


def test_candidates_of_a_listwise_model_are_never_split():
    """jina-reranker-v3 sees 64 at once; the others keep their place, unscored."""
    with (
        FakeRerankServer("jina") as server,
        remote_first(server, "jina", model="jina-reranker-v3") as reranker,
    ):
        passages = [f"filler {i}" for i in range(80)]
        result = reranker.rerank(QUERY, passages)
        assert len(server.requests) == 1
    assert sum(hit.score is not None for hit in result) == 64
    assert result.order[64:] == tuple(range(64, 80))
    assert any(
        decision.code is Code.DEPTH and decision.count == 16 for decision in result.decisions
    )


def test_a_listwise_model_that_refuses_so_many_is_not_asked_in_parts():
    """Halves would give two scales: the call fails, and the fallback answers."""
    with (
        FakeRerankServer("jina", faults=[Fault.TOO_LARGE]) as server,
        remote_first(server, "jina", model="jina-reranker-v3") as reranker,
    ):
        result = reranker.rerank(QUERY, PASSAGES)
        assert len(server.requests) == 1
    assert result.degraded
    assert any(decision.code is Code.FALLBACK for decision in result.decisions)


def test_an_instruction_goes_where_the_api_takes_it():
    """One API has a field for it; to others it is the head of the query."""
    instruction = "Prefer primary sources"
    for provider, query in (("vllm", QUERY), ("jina", f"{instruction}\n{QUERY}")):
        with (
            FakeRerankServer(provider) as server,
            remote_first(server, provider, instruction=instruction) as reranker,
        ):
            assert not reranker.rerank(QUERY, PASSAGES).degraded
            body = server.requests[0].json()
        assert body["query"] == query
        assert body.get("instruction") == (instruction if provider == "vllm" else None)


def test_the_trace_goes_on_and_baggage_stays():
    """The destination sees the caller's trace id and nothing else of its context."""
    with FakeRerankServer("cohere") as server, remote_first(server, "cohere") as reranker:
        tracer = TracerProvider().get_tracer("test")
        with tracer.start_as_current_span("caller") as span:
            token = context.attach(baggage.set_baggage("user", "jane"))
            reranker.rerank(QUERY, PASSAGES)
            context.detach(token)
            trace_id = f"{span.get_span_context().trace_id:032x}"
        headers = server.requests[0].headers
    assert trace_id in headers["traceparent"]
    assert "baggage" not in headers


def test_documents_over_the_providers_length_are_cut_and_counted():
    """Bedrock takes 32,000 characters of a text."""
    with FakeRerankServer("bedrock") as server, remote_first(server, "bedrock") as reranker:
        result = reranker.rerank(QUERY, ["red fox " * 5000, *PASSAGES], strict=True)
    assert result.usage.truncated_tokens > 0
    assert any(
        decision.code is Code.TRUNCATED and decision.count == 1 for decision in result.decisions
    )


def test_tei_says_where_its_time_went():
    """Timing headers become timings of the stage."""
    with FakeRerankServer("tei") as server, remote_first(server, "tei") as reranker:
        steps = {one.step: one.seconds for one in reranker.rerank(QUERY, PASSAGES).timings}
    assert steps["remote"] == pytest.approx(0.012)
    assert {"remote_queue", "remote_tokenise", "remote_inference", "remote_call"} <= set(steps)


def test_usage_and_billed_units_are_recorded():
    """What the provider says it charged is in the result."""
    with FakeRerankServer("cohere") as server, remote_first(server, "cohere") as reranker:
        usage = reranker.rerank(QUERY, PASSAGES).usage
    assert usage.billed_units == 1.0
    assert usage.tokens > 0
    assert usage.pairs == len(PASSAGES)


def test_a_scorer_without_a_permit_sends_nothing():
    """Text leaves only through the policy."""
    with FakeRerankServer("cohere") as server:
        scorer = RemoteScorer(options(server, "cohere"))
        coroutine = scorer.score(QUERY, PASSAGES)
        with pytest.raises(RemoteError, match="without a permit"):
            coroutine.send(None)
        scorer.close()
        assert server.bytes_received == 0


def test_the_permit_is_asked_again_on_the_final_url(monkeypatch):
    """A permit that turns out narrower than the stage's own check keeps the text here."""
    with FakeRerankServer("cohere") as server, remote_first(server, "cohere") as reranker:
        monkeypatch.setattr(
            "rerank_plugins.core.residency.permit", lambda *_: Permit(Policy(("eu",)))
        )
        result = reranker.rerank(QUERY, PASSAGES)
        assert server.bytes_received == 0
    assert Code.POLICY in codes(result)


def test_zeroentropy_is_asked_to_be_fast_only_under_a_deadline():
    """Without it an over-quota call would take ten seconds without a word."""
    with FakeRerankServer("zeroentropy") as server, remote_first(server, "zeroentropy") as reranker:
        reranker.rerank(QUERY, PASSAGES)
        reranker.rerank(QUERY, PASSAGES, budget_ms=5000)
        asked = [request.json().get("latency") for request in server.requests]
    assert asked == [None, "fast"]


def test_bedrock_is_signed_for_its_region():
    """SigV4 with service bedrock; the secret itself does not travel."""
    with FakeRerankServer("bedrock") as server, remote_first(server, "bedrock") as reranker:
        reranker.rerank(QUERY, PASSAGES, strict=True)
        authorization = server.requests[0].headers["authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in authorization


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RemoteOptions("nobody"), "no provider"),
        (RemoteOptions("tei"), "base_url"),
        (RemoteOptions("bedrock", "m"), "location"),
        (RemoteOptions("google", "m", location="eu"), "needs|API key"),
    ],
)
def test_options_that_lead_nowhere_are_refused(wrong, said):
    """Each says what is missing."""
    with pytest.raises(ConfigError, match=said):
        resolve(wrong)


WHOLE = {
    ("compatible", "", "/v2/rerank"),
    ("compatible", "/", "/v2/rerank"),
    ("compatible", "/v1", "/v1/rerank"),
    ("compatible", "/v1/", "/v1/rerank"),
    ("compatible", "/proxy/v2", "/proxy/v2/rerank"),
    ("compatible", "/proxy", "/proxy/v2/rerank"),
    ("compatible", "/v1/rerank", "/v1/rerank"),
    ("compatible", "/rerank/", "/rerank"),
    ("vllm", "/v1", "/v1/rerank"),
    ("vllm-score", "/v1/score", "/v1/score"),
    ("jina", "/v1?api-version=3", "/v1/rerank?api-version=3"),
    ("tei", "/rerank", "/rerank"),
    ("tei", "/v1", "/v1/rerank"),
    ("tei", "/score", "/score/rerank"),
    ("mixedbread", "/v1/reranking", "/v1/reranking"),
    ("nvidia", "/v1/retrieval/nvidia/reranking", "/v1/retrieval/nvidia/reranking"),
    ("azure", "/providers/cohere?api-version=1", "/providers/cohere/v2/rerank?api-version=1"),
    ("azure", "/providers/cohere/v2/rerank", "/providers/cohere/v2/rerank"),
    ("bedrock-invoke", "/model/m/invoke", "/model/m/invoke"),
}


@pytest.mark.parametrize("host", ["http://localhost:8080", "https://rerank"])
@pytest.mark.parametrize(("provider", "given", "asked"), sorted(WHOLE))
def test_a_base_url_may_hold_a_part_or_all_of_the_url(host, provider, given, asked):
    """A version, the call's path and a query are recognised; nothing stands there twice."""
    base = {"base_url": f"{host}{given}", "location": "us-east-1", "key": planted()}
    assert resolve(RemoteOptions(provider, "m", **base)).url == f"{host}{asked}"


def test_a_path_that_is_given_goes_behind_the_base_url():
    """As it stands: a gateway may call its place "rerank"."""
    given = RemoteOptions("tei", base_url="http://localhost/rerank?a=b", path="/rerank")
    assert resolve(given).url == "http://localhost/rerank/rerank?a=b"


def test_an_error_names_the_url_that_was_asked(caplog):
    """Not the values of its query, nor a key in it; nor does the log of the HTTP library."""
    caplog.set_level(logging.DEBUG)
    with FakeRerankServer("cohere") as server:
        base = f"{server.url}/{SECRET}/v1/rerank?code=s3cret"
        with remote_first(server, "cohere", base_url=base) as reranker:
            decisions = reranker.rerank(QUERY, PASSAGES).decisions
    asked = f"HTTP 404 from {server.url}/<key>/v1/rerank?code=...: no"
    assert any(asked in decision.detail for decision in decisions)
    assert "s3cret" not in caplog.text


def test_keys_of_voyage_choose_their_host(monkeypatch):
    """Keys that start with al- belong to the other host."""
    monkeypatch.setenv("VOYAGE_API_KEY", "al-123")
    assert resolve(RemoteOptions("voyage", "m")).url == "https://ai.mongodb.com/v1/rerank"
    monkeypatch.setenv("VOYAGE_API_KEY", "pa-123")
    assert resolve(RemoteOptions("voyage", "m")).url == "https://api.voyageai.com/v1/rerank"


def test_many_requests_at_once_share_one_client():
    """Concurrent requests all end, each with its own answer."""
    with FakeRerankServer("cohere") as server, remote_first(server, "cohere") as reranker:
        from rerank_plugins import Candidate, Request

        requests = [
            Request(f"word{i}", tuple(Candidate(f"text word{j}") for j in range(20)))
            for i in range(20)
        ]
        futures = [reranker.submit(one) for one in itertools.chain(requests)]
        assert [one.result().order[0] for one in futures] == list(range(20))
