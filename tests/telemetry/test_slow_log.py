"""rerank_plugins.telemetry.slow_log: the log that says why a request was slow."""

import json
import logging

import pytest

from rerank_plugins import Candidate, Reranker, load

SECRET = "the secret of the red fox"


@pytest.fixture
def slow(caplog):
    """Collect the slow-request log."""
    caplog.set_level(logging.INFO, logger="rerank_plugins.slow")
    return caplog


def test_a_slow_request_is_logged_with_its_reasons(slow):
    """Over the threshold: one record with the slowest step, its share, and the decisions."""
    settings = {"telemetry": {"slow_ms": 0.0}}
    with load(settings) as reranker:
        result = reranker.rerank(SECRET, [SECRET, "a blue hen", ""], top_k=1)
    (record,) = slow.records
    facts = record.rerank
    assert record.levelno == logging.WARNING
    assert facts["request_id"] == result.request_id
    # Which step is the slowest is the machine's to say.
    assert facts["slowest"].split()[0] in {"select", "queue", "tokenise", "score", "fold", "fuse"}
    assert 0.0 < facts["slowest_share"] <= 1.0
    assert "select:blank:1" in facts["decisions"]
    assert facts["candidates"] == 3
    assert result.request_id in record.getMessage()


def test_the_record_is_plain_data_without_text(slow):
    """The record serialises to JSON, and neither query nor passages are anywhere in it."""
    with load({"telemetry": {"slow_ms": 0.0, "content": True}}) as reranker:
        reranker.rerank(SECRET, [Candidate(SECRET, prior=1.0), "blue"])
    (record,) = slow.records
    assert "secret" not in json.dumps(record.rerank) + record.getMessage()


def test_fast_requests_and_rerankers_without_a_threshold_log_nothing(slow):
    """No record under the threshold, and none at all by default."""
    with load({"telemetry": {"slow_ms": 600_000}}) as reranker:
        reranker.rerank("red fox", ["a red fox"])
    with Reranker("lexical") as reranker:
        reranker.rerank("red fox", ["a red fox"])
    assert slow.records == []
