"""Text on spans: off unless asked for, capped, redacted, hidden."""

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from rerank_plugins import Candidate, Reranker, load, semconv

QUERY = "where does the secret fox live"
CANDIDATES = [Candidate(f"secret den number {i} " * 40, prior=1.0 / (i + 1)) for i in range(30)]
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@pytest.fixture
def rerank(observed):
    """Rerank with telemetry settings and give the request span's attributes."""

    def run(settings, *, redact=None, query=QUERY, candidates=CANDIDATES, top_k=12):
        providers = {"tracer_provider": observed.tracer_provider}
        source = {"stages": [{"scorer": "lexical"}], "telemetry": settings}
        with load(source, redact=redact, **providers) as reranker:
            reranker.rerank(query, candidates, top_k=top_k)
        return observed.attributes()

    return run


def everything(observed):
    """Give all that was exported, as text."""
    return "".join(span.to_json() for span in observed.spans())


def test_by_default_no_text_is_on_any_span(rerank, observed):
    """Neither the query nor a passage, nor an attribute for them, without opting in."""
    attributes = rerank({})
    assert "secret" not in everything(observed)
    assert not any(name.startswith(("reranker.query", "input.")) for name in attributes)


def test_content_carries_query_and_documents_in_openinference_form(rerank):
    """Inputs in first-stage order with priors, outputs in the answer's order with scores."""
    attributes = rerank({"content": True, "max_chars": 100})
    assert attributes["reranker.query"] == attributes["input.value"] == QUERY
    assert attributes["reranker.input_documents.0.document.content"] == CANDIDATES[0].text[:100]
    assert attributes["reranker.input_documents.3.document.score"] == 0.25
    assert attributes["reranker.input_documents.3.document.id"] == "3"
    first = int(attributes["reranker.output_documents.0.document.id"])
    assert (
        attributes["reranker.output_documents.0.document.content"] == CANDIDATES[first].text[:100]
    )
    assert isinstance(attributes["reranker.output_documents.0.document.score"], float)


def test_documents_are_capped_and_the_rest_counted(rerank):
    """Ten in and ten out by default; how many were left out is said; the SDK's limit holds."""
    attributes = rerank({"content": True})
    assert "reranker.input_documents.9.document.id" in attributes
    assert "reranker.input_documents.10.document.id" not in attributes
    assert "reranker.output_documents.10.document.id" not in attributes
    assert attributes[semconv.DOCUMENTS_LEFT_OUT] == 20
    assert len(attributes) <= 128
    assert attributes["openinference.span.kind"] == "RERANKER"


def test_content_attributes_are_in_the_table(rerank):
    """Every attribute content adds is documented, indexed ones by their prefix."""
    plain, told = rerank_names(rerank, {}), rerank_names(rerank, {"content": True})
    documented = {one.name for one in semconv.ATTRIBUTES if one.when == "content"}
    assert {
        name.split("_documents.")[0] + "_documents" if "_documents." in name else name
        for name in told - plain
    } == documented


def rerank_names(rerank, settings):
    """Give the attribute names of one request in a provider of its own."""
    exporter_names = set()

    class Names(SimpleSpanProcessor):
        def __init__(self):
            pass

        def on_end(self, span):
            if span.name.startswith("rerank "):
                exporter_names.update(span.attributes)

        def shutdown(self):
            pass

    provider = TracerProvider(span_limits=SpanLimits())
    provider.add_span_processor(Names())
    source = {"stages": [{"scorer": "lexical"}], "telemetry": settings}
    with load(source, tracer_provider=provider) as reranker:
        reranker.rerank(QUERY, CANDIDATES)
    return exporter_names


@pytest.mark.parametrize("value", ["SPAN_ONLY", "span_and_event", "true"])
def test_the_genai_variable_turns_content_on(rerank, monkeypatch, value):
    """The conventions' own switch is honoured where the option says nothing."""
    monkeypatch.setenv(VARIABLE, value)
    assert rerank({})["reranker.query"] == QUERY


@pytest.mark.parametrize("value", ["NO_CONTENT", "EVENT_ONLY", "false", ""])
def test_other_values_leave_content_off(rerank, monkeypatch, value):
    """Values that do not name spans turn nothing on."""
    monkeypatch.setenv(VARIABLE, value)
    assert "reranker.query" not in rerank({})


def test_the_option_wins_over_the_variable(rerank, monkeypatch):
    """`content = false` holds whatever the environment says."""
    monkeypatch.setenv(VARIABLE, "SPAN_ONLY")
    assert "reranker.query" not in rerank({"content": False})


def test_redaction_sees_every_text_before_it_is_cut(rerank, observed):
    """Nothing the hook removed is exported, also where the cut would have split it."""
    attributes = rerank(
        {"content": True, "max_chars": 10}, redact=lambda text: text.replace("secret", "***")
    )
    assert "secre" not in everything(observed)
    assert attributes["reranker.query"] == "where does"


def test_a_redaction_that_fails_withholds_the_text(rerank, observed):
    """An error in the hook leaks nothing and breaks nothing."""

    def fails(text):
        raise ValueError(text)

    attributes = rerank({"content": True}, redact=fails)
    assert attributes["reranker.query"] == "__REDACTED__"
    assert "secret" not in everything(observed)


def test_openinference_switches_hide_inputs_and_outputs(rerank, monkeypatch, observed):
    """OPENINFERENCE_HIDE_INPUTS and _OUTPUTS hold although no OpenInference tracer is there."""
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    attributes = rerank({"content": True})
    assert attributes["reranker.query"] == "__REDACTED__"
    assert attributes["reranker.input_documents.0.document.content"] == "__REDACTED__"
    assert "secret" in attributes["reranker.output_documents.0.document.content"]
    observed.exporter.clear()
    monkeypatch.setenv("OPENINFERENCE_HIDE_OUTPUTS", "true")
    rerank({"content": True})
    assert "secret" not in everything(observed)


def test_strange_text_is_written_as_something_that_can_be_exported(rerank):
    """Lone surrogates, NULs and missing texts neither raise nor reach the exporter as they are."""
    candidates = [Candidate("\ud800 broken"), Candidate(None), Candidate("a\x00b")]
    attributes = rerank({"content": True}, candidates=candidates)
    assert attributes["reranker.input_documents.0.document.content"] == "? broken"
    assert attributes["reranker.input_documents.1.document.content"] == ""


def test_content_is_not_computed_for_spans_nobody_records():
    """Without an SDK the redaction hook is never called."""
    calls = []
    source = {"stages": [{"scorer": "lexical"}], "telemetry": {"content": True}}
    with load(source, redact=lambda text: calls.append(text) or text) as reranker:
        reranker.rerank(QUERY, CANDIDATES)
    assert calls == []
    assert isinstance(reranker, Reranker)
