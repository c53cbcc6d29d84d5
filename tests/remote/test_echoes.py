"""What a destination says of what it was sent is bounded, and repeats neither keys nor texts."""

import base64
import json
import logging
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import Reranker, Stage
from rerank_plugins.errors import RemoteError
from rerank_plugins.remote.client import HttpResponse
from rerank_plugins.remote.dialects.json_body import JsonDialect
from rerank_plugins.remote.dialects.kserve import KServeDialect
from rerank_plugins.remote.response import Sent, failure, scores_of
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.testing import FakeRerankServer
from rerank_plugins.testing.fault_effects import HttpResponse as FakeResponse
from tests.remote.serving import SECRET, options

TEXT = "Mrs Quillfeather owes 48151623 crowns to the ferryman of Lower Wendle"
SENT = Sent(["who owes the ferryman", TEXT], [SECRET])
FORMS = {
    "as it is": SECRET,
    "in capitals": SECRET.upper(),
    "masked": f"{SECRET[:8]}***{SECRET[-3:]}",
    "half": SECRET[:9],
    "encoded": base64.b64encode(SECRET.encode()).decode(),
    "quoted": f'"{SECRET}"',
    "a text": TEXT,
    "a text without spaces": TEXT.replace(" ", ""),
    "a text with other marks": TEXT.replace(" ", "&nbsp;"),
    "the start of a text": TEXT[:20],
    "a name": "Quillfeather",
    "a number": "48151623",
    "a name in quotes": "cannot read 'Quillfeather' here",
}
HIDDEN = (SECRET, SECRET[:9], "planted", "Quillfeather", "48151623", "ferryman", "Wendle")


def clean(said):
    """True if a message holds nothing of what was sent."""
    flat = said.casefold()
    encoded = base64.b64encode(SECRET.encode()).decode().casefold()
    return not any(one.casefold() in flat for one in (*HIDDEN, encoded))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_an_error_message_repeats_nothing(form):
    """In no form that a server is known to answer in."""
    body = json.dumps({"message": f"bad request: {FORMS[form]}"}).encode()
    said = str(failure(HttpResponse(400, {}, body), SENT, url="https://host/rerank", now_s=0.0))
    assert clean(said)
    assert len(said) < 300


@given(st.text(max_size=60), st.text(max_size=60), st.integers(0, 2000))
def test_a_text_around_the_key_does_not_carry_it(before, after, padding):
    """Wherever in a message it stands."""
    said = SENT.show(f"{before}{'x ' * padding}{SECRET} {after}")
    assert SECRET[:9] not in said
    assert len(said) <= 200


def test_an_ordinary_message_is_still_shown():
    """What says what is wrong stays readable."""
    said = "invalid request: too many documents, maximum is 32"
    assert SENT.show(said) == said


WHERE = {
    "the model's name": lambda echo: {"model": echo, "results": []},
    "the keys": lambda echo: {echo: 1},
    "an index": lambda echo: {"results": [{"index": echo, "relevance_score": 0.5}]},
    "a score": lambda echo: {"results": [{"index": 0, "relevance_score": echo}]},
    "the error": lambda echo: {"error": {"message": echo}},
    "a page": lambda echo: {"results": [], "nextToken": echo * 999},
}


class Echo(FakeRerankServer):
    """Answers whatever it is told to, with a status of its own."""

    answer = FakeResponse(200, b"{}")

    def _respond(self, received, request, fault):
        return self.answer


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("where", sorted(WHERE))
@pytest.mark.parametrize("form", ["as it is", "masked", "a name", "a text"])
def test_an_echo_is_nowhere_to_be_seen(where, form, status, caplog, exporter_of):
    """Not in results, errors, their causes, spans or logs."""
    caplog.set_level(logging.DEBUG)
    headers = {"x-total-time": FORMS[form], "server-timing": f"{FORMS[form][:9]};dur=5"}
    with Echo("jina") as server:
        server.answer = FakeResponse(
            status, json.dumps(WHERE[where](FORMS[form])).encode(), headers
        )
        tracer, exporter = exporter_of
        stages = [Stage(RemoteScorer(options(server, "jina", retries=0)))]
        with Reranker(stages=stages, tracer_provider=tracer) as reranker:
            result = reranker.rerank("who owes", [TEXT])
            with pytest.raises(RemoteError) as caught:
                reranker.rerank("who owes", [TEXT], strict=True)
    raised = "".join(traceback.format_exception(caught.value, limit=0))
    shown = [
        raised,
        repr(result),
        caplog.text,
        *(s.to_json() for s in exporter.get_finished_spans()),
    ]
    assert all(clean(one) for one in shown)
    assert len(str(caught.value)) < 400


@pytest.fixture
def exporter_of():
    """Return a tracer provider and what it exported."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


@pytest.mark.parametrize(
    "body",
    [
        {"outputs": [{"name": "s", "datatype": "Quillfeather", "shape": ["Quillfeather"]}]},
        {"outputs": [{"name": "s", "datatype": "FP32", "shape": ["Quillfeather"], "data": [1.0]}]},
        {"outputs": [{"name": "Quillfeather", "shape": [1], "data": ["Quillfeather"]}]},
        {"outputs": [{"name": "s", "parameters": {"binary_data_size": "Quillfeather"}}]},
        {"outputs": [{"datatype": "Quillfeather", "parameters": {"binary_data_size": 0}}]},
    ],
)
def test_tensors_are_refused_without_their_words(body):
    """Names, types and shapes of the other side are not repeated."""
    with pytest.raises(RemoteError) as caught:
        KServeDialect().decode(json.dumps(body).encode(), {})
    assert "Quillfeather" not in str(caught.value)


@pytest.mark.parametrize("odd", ["Infinity", "NaN", "-1", "1" + "0" * 400, "1e999"])
def test_odd_numbers_of_what_a_call_cost_count_as_none(odd):
    """They neither fail the call nor stand in its result."""
    body = f'{{"results": [], "usage": {{"total_tokens": {odd}}}}}'.encode()
    timed = JsonDialect(header_ms={"remote": "x-time"})
    answer = timed.decode(body, {"x-time": odd})
    assert (answer.tokens, dict(answer.seconds)) == (0, {})


def test_an_index_and_a_content_type_are_not_repeated():
    """They are the other side's words."""
    for ask in (
        lambda: scores_of([("Quillfeather", 1.0)], 1),
        lambda: JsonDialect().decode(b"{}", {"content-type": "text/Quillfeather"}),
    ):
        with pytest.raises(RemoteError) as caught:
            ask()
        assert "Quillfeather" not in str(caught.value)


class Mirror(FakeRerankServer):
    """Refuses every request with a header of it."""

    header = ""

    def _respond(self, received, request, fault):
        body = json.dumps({"message": f"denied: {received.headers[self.header]}"}).encode()
        return FakeResponse(403, body)


@pytest.mark.parametrize("header", ["authorization", "x-amz-security-token", "x-amz-date"])
def test_what_signs_a_request_to_aws_is_a_key_as_well(header, caplog, monkeypatch):
    """Session tokens and signatures are in no error, and in no log of the library that signs."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"token+{SECRET}/of+a+session")
    with Mirror("bedrock") as server:
        server.header = header
        stages = [Stage(RemoteScorer(options(server, "bedrock", retries=0)))]
        with Reranker(stages=stages) as reranker, pytest.raises(RemoteError) as caught:
            reranker.rerank("who owes", [TEXT], strict=True)
        sent = server.requests[0].headers
    signature = sent["authorization"].rpartition("=")[2]
    for said in (str(caught.value), caplog.text):
        assert not any(one in said for one in (SECRET, signature, sent["x-amz-security-token"]))
