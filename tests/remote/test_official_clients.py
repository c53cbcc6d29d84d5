"""The providers' own SDKs read what the fake server serves."""

import warnings

import cohere
import httpx
import pytest

from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.serving import PASSAGES, QUERY, SECRET

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import voyageai
    import voyageai.error
    from voyageai.api_resources import api_requestor


@pytest.fixture
def closing():
    """Close the SDK's HTTP clients, which it leaves open."""
    clients = []
    yield lambda http: clients.append(http) or http
    for http in clients:
        http.close()


@pytest.fixture
def server(request):
    """Serve the dialect that the test names."""
    with FakeRerankServer(request.param, key=SECRET) as server:
        yield server


@pytest.mark.parametrize("server", ["cohere"], indirect=True)
def test_the_cohere_sdk_reads_version_2(server, closing):
    """Results, scores, spans and billed units arrive as the SDK's own types."""
    client = cohere.ClientV2(SECRET, base_url=server.url, httpx_client=closing(httpx.Client()))
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=PASSAGES, top_n=3)
    assert answer.results[0].index == 1
    assert len(answer.results) == 3
    assert 0.0 <= answer.results[0].relevance_score <= 1.0
    assert answer.meta.billed_units.search_units == 1.0
    assert answer.meta.tokens.input_tokens > 0


@pytest.mark.parametrize("server", ["cohere"], indirect=True)
def test_the_cohere_sdk_reads_version_1_and_its_errors(server, closing):
    """Version 1 parses too; a refusal arrives as the SDK's exception for its status."""
    client = cohere.Client(SECRET, base_url=server.url, httpx_client=closing(httpx.Client()))
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=PASSAGES)
    assert answer.results[0].index == 1
    server.break_with([Fault.NOT_FOUND])
    with pytest.raises(cohere.errors.NotFoundError) as caught:
        client.rerank(model="rerank-v3.5", query=QUERY, documents=PASSAGES)
    assert "not found" in caught.value.body["message"]


@pytest.mark.parametrize("server", ["cohere"], indirect=True)
def test_spans_are_half_open_in_code_points(server, closing):
    """An offset counts characters, not bytes."""
    text = "red fox \N{FOX FACE} \N{LATIN SMALL LETTER E WITH ACUTE}"
    client = cohere.ClientV2(SECRET, base_url=server.url, httpx_client=closing(httpx.Client()))
    answer = client.rerank(
        model="m",
        query=QUERY,
        documents=[text],
        request_options={"additional_body_parameters": {"relevant_spans": {"mode": "enabled"}}},
    )
    (span,) = answer.results[0].relevant_spans
    start, end = (span["start"], span["end"]) if isinstance(span, dict) else (span.start, span.end)
    assert text[start:end] == text


@pytest.mark.parametrize("server", ["voyage"], indirect=True)
def test_the_voyage_sdk_reads_answers_and_errors(server):
    """The answer joins with the documents that were sent; 401 is its authentication error."""
    client = voyageai.Client(SECRET, base_url=f"{server.url}/v1")
    wrong = voyageai.Client("another-key", base_url=f"{server.url}/v1")
    try:
        answer = client.rerank(QUERY, PASSAGES, model="rerank-2.5", top_k=2)
        with pytest.raises(voyageai.error.AuthenticationError):
            wrong.rerank(QUERY, PASSAGES, model="rerank-2.5")
    finally:
        # The SDK keeps a session per thread and never closes it.
        api_requestor._thread_context.session.close()
    assert answer.results[0].index == 1
    assert answer.results[0].document == PASSAGES[1]
    assert answer.total_tokens > 0
