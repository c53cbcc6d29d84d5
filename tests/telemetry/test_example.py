"""The RAG loop of examples/observability: traces and metrics arrive by OTLP."""

import os
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def collector():
    """Give the URL of an OTLP endpoint on loopback, and what was posted to it by path."""
    posted = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted[self.path].append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_question_is_one_trace_and_metrics_follow(collector):
    """Answer, retrieve and rerank share a trace; metrics arrive; no text without opting in."""
    url, posted = collector
    subprocess.run(
        [sys.executable, "rag.py", "share a variable", "remove duplicates"],
        cwd=ROOT / "examples" / "observability",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        },
        check=True,
        capture_output=True,
        timeout=180,
    )
    spans = [
        span
        for body in posted["/v1/traces"]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_trace = defaultdict(set)
    for span in spans:
        by_trace[span.trace_id].add(span.name)
    assert len(by_trace) == 2
    assert all(names >= {"answer", "retrieve", "rerank embedded"} for names in by_trace.values())
    assert [span.name for span in spans if not span.parent_span_id] == ["answer"] * 2
    assert b"share a variable" not in b"".join(posted["/v1/traces"])
    names = {
        metric.name
        for body in posted["/v1/metrics"]
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"rerank.request.duration", "rerank.step.duration", "rerank.pairs"} <= names
