"""Residency by candidate: what has to stay is scored here, the rest there, in one order."""

import json

import pytest

from rerank_plugins import Candidate, Policy, Reranker, Stage, load
from rerank_plugins.errors import PolicyError
from rerank_plugins.records import Code
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.rules.calibration import Calibration
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.serving import QUERY, options

HERE = {"residency": "nowhere-else"}
REMOTE = Calibration(6.0, -3.0)
LOCAL = Calibration(2.0, -1.5)
CANDIDATES = [
    Candidate("the blue hen sleeps"),
    Candidate("a red fox hunts at night", metadata=HERE),
    Candidate("a red fox rests"),
    Candidate("night falls on the quiet town", metadata=HERE),
    Candidate("red fox hunts at night in winter"),
]
STAYS = [1, 3]


def open_pair(server, provider="cohere", **changes):
    """Ask a server first and word overlap for what has to stay, both calibrated."""
    stages = [
        Stage(RemoteScorer(options(server, provider, **changes)), calibration=REMOTE),
        Stage(LexicalScorer(), when="fallback", calibration=LOCAL),
    ]
    return Reranker(stages=stages, policy=Policy(("on-prem",), per="candidate"))


def test_candidates_that_stay_are_scored_here_and_ordered_with_the_others():
    """One order by calibrated probability; only what may leave has left."""
    with FakeRerankServer("cohere") as server, open_pair(server) as reranker:
        result = reranker.rerank(QUERY, CANDIDATES, strict=True)
        sent = server.requests[0].json()["documents"]
    assert sent == [CANDIDATES[i].text for i in range(5) if i not in STAYS]
    by_probability = sorted(result, key=lambda hit: -hit.probability)
    assert [hit.index for hit in by_probability] == list(result.order)
    assert set(result.order[:2]) == {1, 4}
    assert not result.degraded
    assert {one.code: one.count for one in result.decisions}[Code.POLICY] == len(STAYS)
    # Scores of two models do not compare, so those of the fallback are not shown.
    assert [hit.index for hit in result if hit.score is None] == [
        i for i in result.order if i in STAYS
    ]


def test_the_same_text_stays_if_one_of_its_candidates_has_to():
    """Candidates of one text are scored once, and where all of them may be."""
    twins = [Candidate("a red fox", metadata=HERE), Candidate("a red fox"), Candidate("a hen")]
    with FakeRerankServer("cohere") as server, open_pair(server) as reranker:
        reranker.rerank(QUERY, twins, strict=True)
        assert [one.json()["documents"] for one in server.requests] == [["a hen"]]


def test_behind_a_local_stage_what_stays_keeps_its_place_by_probability():
    """Candidates kept from the second stage rank with those it scored, not below them."""
    with FakeRerankServer("cohere") as server:
        stages = [
            Stage(LexicalScorer(), keep=4, calibration=LOCAL),
            Stage(RemoteScorer(options(server, "cohere")), calibration=REMOTE),
        ]
        policy = Policy(("on-prem",), per="candidate")
        with Reranker(stages=stages, policy=policy) as reranker:
            result = reranker.rerank(QUERY, CANDIDATES, strict=True)
    head = result.hits[:4]
    assert [hit.probability for hit in head] == sorted(
        (hit.probability for hit in head), reverse=True
    )
    assert set(STAYS) & {hit.index for hit in head}
    assert result.hits[4].depth == 1


def test_a_failed_destination_leaves_all_candidates_to_the_local_stage():
    """Nobody is lost, and the result says that it is degraded."""
    broken = FakeRerankServer("cohere", faults=lambda _: Fault.FORBIDDEN)
    with broken as server, open_pair(server) as reranker:
        result = reranker.rerank(QUERY, CANDIDATES)
    assert all(hit.probability is not None and hit.score is None for hit in result)
    assert {Code.POLICY, Code.FALLBACK, Code.STAGE_FAILED} <= {one.code for one in result.decisions}
    assert result.degraded


def test_where_nothing_may_leave_nothing_does():
    """All candidates have to stay: the server is not even connected to."""
    with FakeRerankServer("cohere") as server, open_pair(server) as reranker:
        stay = [Candidate(one.text, metadata=HERE) for one in CANDIDATES]
        result = reranker.rerank(QUERY, stay)
        assert server.bytes_received == 0
    assert all(hit.probability is not None for hit in result)


def test_texts_that_are_cut_on_the_way_are_still_known():
    """Bedrock takes 32,000 characters: the policy is asked about the whole text, not its head."""
    long = [Candidate("red fox " * 5000), Candidate("a hen", metadata=HERE)]
    with FakeRerankServer("bedrock") as server, open_pair(server, "bedrock") as reranker:
        result = reranker.rerank(QUERY, long, strict=True)
        assert len(server.requests) == 1
    assert result.order[0] == 0


def test_settings_say_it_and_the_audit_tells_who_went_where(tmp_path, monkeypatch):
    """A record of what stayed and one of what was sent, each with its own hashes."""
    monkeypatch.setenv("COHERE_API_KEY", "k")
    audit = tmp_path / "audit.jsonl"
    with FakeRerankServer("cohere") as server:
        remote = {"provider": "cohere", "model": "m", "base_url": server.url}
        settings = {
            "stages": [
                {"scorer": remote, "calibration": [6.0, -3.0]},
                {"scorer": "lexical", "when": "fallback", "calibration": [2.0, -1.5]},
            ],
            "policy": {"regions": ["on-prem"], "per": "candidate", "audit": str(audit)},
        }
        with load(settings) as reranker:
            reranker.rerank(QUERY, CANDIDATES, strict=True)
    refused, allowed = map(json.loads, audit.read_text().splitlines())
    assert (refused["allowed"], refused["texts"]) == (False, len(STAYS))
    assert (allowed["allowed"], allowed["texts"]) == (True, len(CANDIDATES) - len(STAYS))
    assert not set(refused["texts_sha256"]) & set(allowed["texts_sha256"])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("bare", "not calibrated"),
        ("alone", "no local stage"),
        ("followed", "comes behind a remote one"),
    ],
)
def test_stages_that_cannot_share_an_order_are_refused_at_start_up(shape, said):
    """Each says why candidates could not be split between these models."""
    from rerank_plugins.core.setup import Setup

    with FakeRerankServer("cohere") as server:
        remote = RemoteScorer(options(server, "cohere"))
        there = Stage(remote, calibration=REMOTE)
        here = Stage(LexicalScorer(), when="fallback", calibration=LOCAL)
        stages = {
            "bare": (Stage(remote), here),
            "alone": (there,),
            "followed": (there, Stage(LexicalScorer(), calibration=LOCAL)),
        }[shape]
        with pytest.raises(PolicyError, match=said):
            Setup(stages, policy=Policy(("on-prem",), per="candidate"))
        remote.close()
