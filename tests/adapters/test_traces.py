"""One connected trace per question in each framework, with and without its instrumentor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FRAMEWORKS = ("haystack", "langchain", "llama_index")


@pytest.fixture(scope="module", params=FRAMEWORKS)
def recorded(request):
    """Run one framework's pipeline in a process of its own and give its spans by case."""
    paths = [str(ROOT), *(str(path) for path in (ROOT / "adapters").iterdir())]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.adapters.tracing.{request.param}_pipeline"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "HAYSTACK_TELEMETRY_ENABLED": "false",
        },
    )
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout[done.stdout.index('{"plain sync"') :])


@pytest.mark.parametrize("case", ["plain sync", "plain async"])
def test_without_instrumentors_our_spans_hang_under_the_callers(recorded, case):
    """The request is the caller's child, its steps are its children, and nothing else is a root."""
    _, cases = recorded
    spans = {one["id"]: one for one in cases[case]}
    (root,) = [one for one in spans.values() if one["parent"] is None]
    (request,) = [one for one in spans.values() if one["name"] == "rerank lexical"]
    assert root["name"] == "app"
    assert request["parent"] == root["id"]
    assert {one["trace"] for one in spans.values()} == {root["trace"]}
    steps = {one["name"] for one in spans.values() if one["parent"] == request["id"]}
    assert steps == {"rerank.select", "rerank.score", "rerank.fuse"}


@pytest.mark.parametrize("case", ["instrumented sync", "instrumented async"])
def test_with_openinference_there_is_one_trace_and_our_spans_are_in_it(recorded, case):
    """One root, the framework's own; our request hangs below it; no parent is missing."""
    _, cases = recorded
    spans = {one["id"]: one for one in cases[case]}
    (root,) = [one for one in spans.values() if one["parent"] is None]
    assert root["name"] != "rerank lexical"
    assert "rerank lexical" in {one["name"] for one in spans.values()}
    assert root["kind"] is not None
    assert {one["trace"] for one in spans.values()} == {root["trace"]}
    assert all(one["parent"] in spans for one in spans.values() if one is not root)


@pytest.mark.parametrize("case", ["instrumented sync", "instrumented async"])
def test_with_openinference_one_span_is_the_reranking(recorded, case):
    """The instrumentor's span around the adapter, or ours where it gives none that counts."""
    framework, cases = recorded
    spans = {one["id"]: one for one in cases[case]}
    (reranker,) = [one for one in spans.values() if one["kind"] == "RERANKER"]
    (request,) = [one for one in spans.values() if one["name"] == "rerank lexical"]
    assert reranker["name"].startswith(
        {
            "haystack": "RerankPluginsRanker.run",
            "langchain": "rerank lexical",
            "llama_index": "RerankPluginsRerank._",
        }[framework]
    )
    around = "RerankPluginsCompressor" if framework == "langchain" else reranker["name"]
    assert spans[request["parent"]]["name"] == around
