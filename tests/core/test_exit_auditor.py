"""Requests scored in full besides, after they were answered."""

import threading

import numpy as np
import pytest

from rerank_plugins import Candidate, Reranker, Stage, load
from rerank_plugins.adaptive.exit_audit import ExitAudit
from rerank_plugins.core.setup import Setup
from rerank_plugins.errors import ConfigError, ModelError
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.rules.keep import MarginKeep
from rerank_plugins.scoring import Scored
from tests import layered

PASSAGES = [Candidate("x" * (i + 1)) for i in range(12)]


class Numbered:
    """Scores a passage by its length, up or down; tells when it was asked."""

    score_kind = "logit"

    def __init__(self, name, sign):
        self.name = name
        self._sign = sign
        self.asked = []
        self.broken = False

    async def score(self, query, passages, *, state=None, deadline_s=None):
        """Note how many were asked for."""
        if self.broken:
            raise ModelError("broken")
        self.asked.append(len(passages))
        n = len(passages)
        scores = np.float32([self._sign * len(one) for one in passages])
        return Scored(scores, np.ones(n, bool), np.zeros(n, int))

    def warm_up(self):
        """Do nothing."""

    def close(self):
        """Do nothing."""


def reranker(audit, *, on_audit=None):
    """Make a cascade whose first stage prefers what the last one likes least."""
    first, last = Numbered("first", 1.0), Numbered("last", -1.0)
    stages = (Stage(first, MarginKeep(0.5, top_k=2), enter=9), Stage(last))
    made = Reranker(Setup(stages, workers=1, exit_audit=audit))
    if on_audit is not None:
        made._auditor._on_audit = on_audit
    return made, first, last


def test_an_audit_scores_everybody_and_reports_what_was_lost():
    """After the answer all candidates run through all stages; loss and factor are reported."""
    heard, event = [], threading.Event()

    def on_audit(loss, factor):
        heard.append((loss, factor))
        event.set()

    audit = ExitAudit(1.0, 0.01, 2, "top-k miss", Calibration(1.0, 0.0))
    made, first, last = reranker(audit, on_audit=on_audit)
    with made:
        result = made.rerank("query", PASSAGES)
        assert event.wait(timeout=60)
        assert sorted(result.order) == list(range(12))
    assert first.asked == [9, 12]
    assert last.asked == [2, 12]
    ((loss, factor),) = heard
    assert loss == 1.0
    assert factor > 1.0


def test_margins_widen_where_too_much_is_lost():
    """What an audit found is in force for the next request."""
    event = threading.Event()
    audit = ExitAudit(1.0, 0.01, 2, "top-k miss", Calibration(1.0, 0.0))
    made, _, last = reranker(audit, on_audit=lambda *_: event.set())
    with made:
        made.rerank("query", PASSAGES)
        assert event.wait(timeout=60)
        made.rerank("query", PASSAGES)
        assert last.asked[2] > 2


def test_requests_that_were_not_answered_as_promised_are_not_audited():
    """Where a stage failed, or there was nothing to score, nothing is compared."""
    audit = ExitAudit(1.0, 0.01, 2, "top-k miss", Calibration(1.0, 0.0))
    heard = []
    made, _, last = reranker(audit, on_audit=lambda *found: heard.append(found))
    with made:
        last.broken = True
        assert made.rerank("query", PASSAGES).degraded
        made.rerank("query", ["   "])
    assert heard == []


def test_an_audit_comes_with_calibrated_exits_alone(tmp_path):
    """Without exits that promise something there is nothing to check, and the error says so."""
    folder = layered.build(tmp_path, 4, (2,))
    for exits in ({}, {"exits": [2], "exit_keep": 3}):
        with pytest.raises(ConfigError, match="exit_audit needs exits = DIR"):
            load({"stages": [{"scorer": str(folder), **exits}], "exit_audit": {"share": 0.01}})
    two = [{"scorer": str(folder)}, {"scorer": "lexical"}]
    with pytest.raises(ConfigError, match="2 regular stages"):
        load({"stages": two, "exit_audit": {"share": 0.01}})
