"""TLS and HTTP/2 over real sockets: text leaves only for who proves to be the destination."""

import logging
import ssl
import sys

import pytest
import trustme

from rerank_plugins.errors import ConfigError
from rerank_plugins.records import Code
from rerank_plugins.remote.client import ClientOptions
from rerank_plugins.testing import FakeRerankServer, Fault
from tests.remote.h2_server import H2Server
from tests.remote.serving import BEST_FIRST, PASSAGES, QUERY, SECRET, remote_first


@pytest.fixture(scope="module")
def authority():
    """Make a certificate authority of our own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    """Write down whom to trust."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def identity(authority, name):
    """Return what a server needs to prove that it is `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(ca_file):
    """Return the options of a client that trusts one authority."""
    return {"client": ClientOptions(ca_file=ca_file)}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_destination_that_our_own_authority_vouches_for_is_asked(authority, ca_file, host):
    """`ca_file` is who is trusted, for addresses and for names."""
    with (
        FakeRerankServer("cohere", tls=identity(authority, host)) as server,
        remote_first(
            server, "cohere", base_url=server.url.replace("127.0.0.1", host), **trusting(ca_file)
        ) as reranker,
    ):
        result = reranker.rerank(QUERY, PASSAGES, strict=True)
        assert server.url.startswith("https://")
    assert result.order[0] == BEST_FIRST
    assert len(server.requests) == 1


@pytest.mark.parametrize("wrong", ["nobody vouches", "another vouches", "another name"])
def test_nothing_is_sent_to_who_cannot_prove_who_it_is(authority, ca_file, wrong):
    """An unknown authority, or a certificate for another name: not a byte, the fallback answers."""
    stranger = trustme.CA()
    tls = {
        "nobody vouches": identity(stranger, "127.0.0.1"),
        "another vouches": identity(authority, "127.0.0.1"),
        "another name": identity(authority, "rerank.example"),
    }[wrong]
    # Without a file the public authorities are trusted, who know neither of these.
    trust = {} if wrong == "another vouches" else trusting(ca_file)
    with (
        FakeRerankServer("cohere", tls=tls) as server,
        remote_first(server, "cohere", retries=1, **trust) as reranker,
    ):
        result = reranker.rerank(QUERY, PASSAGES)
        assert server.bytes_received == 0
        assert server.requests == []
    assert result.degraded
    assert any(decision.code is Code.FALLBACK for decision in result.decisions)


def test_the_environment_vouches_for_nobody(authority, ca_file, monkeypatch):
    """SSL_CERT_FILE and SSL_CERT_DIR do not widen who is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    with (
        FakeRerankServer("cohere", tls=identity(authority, "127.0.0.1")) as server,
        remote_first(server, "cohere", retries=0) as reranker,
    ):
        assert reranker.rerank(QUERY, PASSAGES).degraded
        assert server.bytes_received == 0


def test_a_server_without_tls_gets_nothing_where_https_was_said(ca_file):
    """There is no way back to plain HTTP."""
    with FakeRerankServer("cohere") as server:
        url = server.url.replace("http://", "https://")
        # It waits for the end of a head, and the client for its greeting.
        brief = ClientOptions(connect_s=0.5, ca_file=ca_file)
        with remote_first(server, "cohere", base_url=url, retries=0, client=brief) as reranker:
            assert reranker.rerank(QUERY, PASSAGES).degraded
        assert server.requests == []


def test_a_redirect_from_https_to_plain_http_is_refused(authority, ca_file):
    """Also to the same host: the text was for https alone."""
    with (
        FakeRerankServer("cohere") as plain,
        FakeRerankServer(
            "cohere", tls=identity(authority, "127.0.0.1"), faults=lambda _: Fault.REDIRECT
        ) as server,
        remote_first(server, "cohere", retries=0, **trusting(ca_file)) as reranker,
    ):
        for there in (plain.url, server.url.replace("https://", "http://")):
            server.redirect_to = f"{there}/v2/rerank"
            result = reranker.rerank(QUERY, PASSAGES)
            assert result.degraded
            assert any("another origin" in decision.detail for decision in result.decisions)
        assert plain.bytes_received == 0
        assert len(server.requests) == 2


def test_http_2_is_spoken_where_the_destination_offers_it(authority, ca_file):
    """One connection in HTTP/2 carries request after request."""
    with (
        H2Server(identity(authority, "127.0.0.1")) as server,
        remote_first(server, "cohere", **trusting(ca_file)) as reranker,
    ):
        for _ in range(3):
            assert reranker.rerank(QUERY, PASSAGES, strict=True).order[0] == BEST_FIRST
    assert server.versions == ["2"]
    assert len(server.requests) == 3


def test_an_http_2_connection_that_the_server_ends_costs_no_request(authority, ca_file):
    """A goodbye in the middle of a request: it is asked again over a new connection."""
    with (
        H2Server(identity(authority, "127.0.0.1"), most=1) as server,
        remote_first(server, "cohere", **trusting(ca_file)) as reranker,
    ):
        for _ in range(3):
            assert reranker.rerank(QUERY, PASSAGES, strict=True).order[0] == BEST_FIRST
    assert server.versions == ["2"] * 3
    assert len(server.requests) == 3


def test_http_2_too_asks_nobody_who_cannot_prove_who_it_is(authority, ca_file):
    """The protocol is agreed on inside TLS, behind the certificate."""
    with (
        H2Server(identity(authority, "rerank.example")) as server,
        remote_first(server, "cohere", retries=0, **trusting(ca_file)) as reranker,
    ):
        assert reranker.rerank(QUERY, PASSAGES).degraded
    assert server.versions == []


def test_without_the_extra_http_1_1_is_spoken(authority, ca_file, monkeypatch):
    """HTTP/2 is an option: where h2 is not installed, all goes on in the older protocol."""
    monkeypatch.setitem(sys.modules, "h2", None)
    with (
        H2Server(identity(authority, "127.0.0.1")) as server,
        remote_first(server, "cohere", **trusting(ca_file)) as reranker,
    ):
        assert reranker.rerank(QUERY, PASSAGES, strict=True).order[0] == BEST_FIRST
    assert server.versions == ["1.1"]


def test_a_ca_file_that_is_none_is_refused_when_the_stage_is_made(tmp_path):
    """No certificate in it, or not there: no stage that trusts somebody else instead."""
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with FakeRerankServer("cohere") as server:
        for path in (empty, tmp_path / "missing.pem"):
            with (
                pytest.raises(ConfigError, match="CA file"),
                remote_first(server, "cohere", **trusting(path)),
            ):
                pass


def test_the_keys_of_connections_are_written_nowhere(authority, ca_file, monkeypatch, tmp_path):
    """SSLKEYLOGFILE of the environment, with which anybody can read along, is not honoured."""
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    with (
        FakeRerankServer("cohere", tls=identity(authority, "127.0.0.1")) as server,
        remote_first(server, "cohere", **trusting(ca_file)) as reranker,
    ):
        reranker.rerank(QUERY, PASSAGES, strict=True)
    proxied = ClientOptions(proxy="https://127.0.0.1:9", connect_s=0.5)
    there = {"base_url": "https://a.example", "region": "on-prem", "client": proxied}
    with remote_first(server, "cohere", retries=0, **there) as reranker:
        assert reranker.rerank(QUERY, PASSAGES).degraded
    assert not log.exists()


@pytest.mark.parametrize("provider", ["cohere", "pinecone"])
def test_a_key_is_never_indexed_and_never_logged(authority, ca_file, caplog, provider):
    """HTTP/2 compresses headers with a table of earlier ones: no key ever stands in it."""
    caplog.set_level(logging.DEBUG)
    with (
        H2Server(identity(authority, "127.0.0.1")) as server,
        remote_first(server, provider, path="/v2/rerank", **trusting(ca_file)) as reranker,
    ):
        reranker.rerank(QUERY, PASSAGES)
    assert SECRET in str(server.requests[0].headers)
    ours = [record for record in caplog.records if record.threadName == "rerank-remote"]
    assert not any(SECRET in record.getMessage() for record in ours)
    assert not any(record.name.startswith("hpack") for record in ours)
    assert server.indexed == []


def test_logs_of_other_connections_are_left_alone(authority, ca_file, caplog):
    """What the application's own HTTP/2 connections log is the application's."""
    caplog.set_level(logging.DEBUG)
    with H2Server(identity(authority, "127.0.0.1")) as server:
        with remote_first(server, "cohere", **trusting(ca_file)) as reranker:
            reranker.rerank(QUERY, PASSAGES)
        logging.getLogger("hpack.hpack").debug("of somebody else")
    assert "of somebody else" in caplog.text
