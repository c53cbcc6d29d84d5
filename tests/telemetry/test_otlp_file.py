"""rerank_plugins.telemetry.otlp_file: a run's spans as a file."""

import json
import sys

import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import ConfigError
from rerank_plugins.telemetry import otlp_file


def spans(path):
    """Give the spans of an OTLP/JSON file."""
    (resource,) = json.loads(path.read_text(encoding="utf-8"))["resourceSpans"]
    return [span for scope in resource["scopeSpans"] for span in scope["spans"]]


def test_the_file_is_otlp_json_with_hexadecimal_ids(tmp_path):
    """Ids are hexadecimal as OTLP/JSON demands, times are strings of nanoseconds, kinds numbers."""
    path = tmp_path / "out.json"
    with (
        otlp_file.recording(path) as provider,
        Reranker("lexical", tracer_provider=provider) as reranker,
    ):
        reranker.rerank("red fox", ["a red fox", "a blue hen"])
    root = next(span for span in spans(path) if span["name"] == "rerank lexical")
    children = [span for span in spans(path) if span is not root and span != root]
    assert len(bytes.fromhex(root["traceId"])) == 16
    assert {span["parentSpanId"] for span in children} == {root["spanId"]}
    assert isinstance(root["kind"], int)
    assert int(root["startTimeUnixNano"]) <= int(root["endTimeUnixNano"])


def test_spans_are_kept_when_the_run_fails(tmp_path):
    """What was recorded before an error is in the file all the same."""
    path = tmp_path / "out.json"

    def fails():
        with (
            otlp_file.recording(path) as provider,
            Reranker("lexical", tracer_provider=provider) as reranker,
        ):
            reranker.rerank("red fox", ["a red fox"])
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert spans(path)


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    """The error names the path, and no request was made for nothing."""
    with pytest.raises(ConfigError, match="cannot be written"), otlp_file.recording(tmp_path):
        pytest.fail("the block must not run")


def test_without_the_sdk_the_error_says_what_to_install(tmp_path, monkeypatch):
    """The extra is named where its packages are missing."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    recording = otlp_file.recording(tmp_path / "out.json")
    with pytest.raises(ConfigError, match=r"rerank-plugins\[otel\]"), recording:
        pytest.fail("the block must not run")
