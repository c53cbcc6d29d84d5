"""A name is looked up once a call, and the call goes to the address that was checked."""

import socket
import ssl
from contextlib import contextmanager

import pytest
import trustme

from rerank_plugins import Policy, Reranker, Stage
from rerank_plugins.remote.client import ClientOptions
from rerank_plugins.remote.scorer import RemoteScorer
from rerank_plugins.scoring.lexical import LexicalScorer
from rerank_plugins.testing import FakeRerankServer
from tests.remote.serving import BEST_FIRST, PASSAGES, QUERY, options

# Both lead to this machine: the second stands for a host far away that the resolver names later.
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


@contextmanager
def asking(server, host, **changes):
    """Return a reranker that asks `server` by another name."""
    there = {"base_url": server.url.replace(HERE, host), "retries": 0, **changes}
    stages = [Stage(RemoteScorer(options(server, "tei", **there)))]
    with Reranker(stages=[*stages, Stage(LexicalScorer(), when="fallback")]) as reranker:
        yield reranker


@pytest.fixture
def resolver(monkeypatch):
    """Answer look-ups of names from a script, and remember them; addresses are as they are."""
    real, asked, answers = socket.getaddrinfo, [], []

    def getaddrinfo(host, port, *rest, **named):
        if host in (HERE, ELSEWHERE, "::1"):
            return real(host, port, *rest, **named)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        kind = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET6, *kind, (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, *kind, (one, port))
            for one in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked, answers


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LocalHost", "tei", "tei.internal"])
def test_a_resolver_that_changes_its_answer_moves_nothing(resolver, host):
    """The second answer is never asked for: the text goes to the address that was checked."""
    asked, answers = resolver
    answers += [[HERE], [ELSEWHERE]]
    with FakeRerankServer("tei") as server:
        with asking(server, host) as reranker:
            assert reranker.rerank(QUERY, PASSAGES).order[0] == BEST_FIRST
        assert len(server.requests) == 1
        assert server.requests[0].headers["host"].startswith(host.lower().rstrip("."))
    assert asked == [host.lower().rstrip(".")]


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST"])
def test_a_localhost_that_is_elsewhere_gets_nothing(resolver, host):
    """However it is written."""
    asked, answers = resolver
    answers.append(["10.0.0.1"])
    with FakeRerankServer("tei") as server:
        with asking(server, host) as reranker:
            result = reranker.rerank(QUERY, PASSAGES)
        assert server.bytes_received == 0
    assert any("does not lead to this machine" in one.detail for one in result.decisions)
    assert len(asked) == 1


@pytest.mark.parametrize("found", [["93.184.216.34"], [HERE, "93.184.216.34"], ["::ffff:8.8.8.8"]])
def test_plain_http_goes_to_no_public_address(resolver, found):
    """A short name that leads out of the private network gets no text without TLS."""
    resolver[1].append(found)
    with FakeRerankServer("tei") as server:
        with asking(server, "tei") as reranker:
            result = reranker.rerank(QUERY, PASSAGES)
        assert server.bytes_received == 0
    assert any("insecure = true" in one.detail for one in result.decisions)


def test_an_address_that_does_not_answer_gives_way_to_the_next(resolver):
    """As for any client: localhost is often two addresses, and a server listens on one."""
    resolver[1].append(["::1", HERE])
    with FakeRerankServer("tei") as server:
        with asking(server, "localhost") as reranker:
            for _ in range(3):
                assert not reranker.rerank(QUERY, PASSAGES).degraded
        assert len(server.requests) == 3


def test_tls_still_asks_for_the_name(resolver, tmp_path):
    """The address is connected to, and the certificate is the name's."""
    resolver[1].append([HERE])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, fine in (("localhost", True), ("127.0.0.1", False)):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(tls)
        with FakeRerankServer("tei", tls=tls) as server:
            trust = ClientOptions(ca_file=tmp_path / "ca.pem")
            with asking(server, "localhost", client=trust) as reranker:
                assert reranker.rerank(QUERY, PASSAGES).degraded is not fine
            assert bool(server.bytes_received) is fine


def test_a_policy_of_on_prem_holds_against_rebinding(resolver):
    """The proof "on-prem" of localhost is of the address that got the text."""
    asked, answers = resolver
    answers += [[HERE], ["10.0.0.1"]]
    with FakeRerankServer("tei") as server:
        there = server.url.replace(HERE, "localhost.")
        stage = Stage(RemoteScorer(options(server, "tei", base_url=there, retries=0)))
        with Reranker(stages=[stage], policy=Policy(("on-prem",))) as reranker:
            assert not reranker.rerank(QUERY, PASSAGES).degraded
            assert reranker.rerank(QUERY, PASSAGES).degraded
        assert len(server.requests) == 1
    assert len(asked) == 2
