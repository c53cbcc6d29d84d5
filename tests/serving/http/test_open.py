"""The server is open to others only where somebody said so."""

import json

import httpx
import pytest

from rerank_plugins.errors import ConfigError
from rerank_plugins.serving.http.run import ServeOptions, is_loopback, open_tokens, serve
from tests.serving.http.serving import running

BODY = {"query": "fox", "documents": ["a fox", "a hen"]}
NO_TOKEN = ["", " ", ",", " , ", "\n", "\t\n ,\r\n"]


@pytest.mark.parametrize("value", NO_TOKEN)
def test_a_variable_without_a_token_is_a_mistake(monkeypatch, value) -> None:
    """Somebody meant to close the server."""
    monkeypatch.setenv("RERANK_PLUGINS_TOKENS", value)
    with pytest.raises(ConfigError, match="holds no token"):
        open_tokens()
    with pytest.raises(ConfigError, match="holds no token"):
        serve(ServeOptions())


@pytest.mark.parametrize("content", ["", "\n", "# a comment\n", "  \n\n"])
def test_a_file_without_a_token_is_a_mistake(monkeypatch, tmp_path, content) -> None:
    """Even where the variable has one: the file's reader believes that it holds."""
    file = tmp_path / "tokens"
    file.write_text(content)
    monkeypatch.setenv("RERANK_PLUGINS_TOKENS", "a")
    with pytest.raises(ConfigError, match="holds no token"):
        open_tokens(str(file))


@pytest.mark.parametrize(
    ("value", "tokens"), [("a", ("a",)), ("a,b", ("a", "b")), (" a \nb,", ("a", "b"))]
)
def test_tokens_are_separated_by_commas_or_lines(monkeypatch, value, tokens) -> None:
    """A mounted secret often ends with a newline."""
    monkeypatch.setenv("RERANK_PLUGINS_TOKENS", value)
    assert open_tokens() == tokens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "rerank.example", ""])
def test_other_machines_need_a_token_or_an_open_server(monkeypatch, host) -> None:
    """Listening beyond this machine without tokens is refused unless `open` is said."""
    monkeypatch.delenv("RERANK_PLUGINS_TOKENS", raising=False)
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--open"):
        serve(ServeOptions(host=host))


def test_an_open_server_serves() -> None:
    """With `open`, and from an address, anybody may call."""
    with running(host="0.0.0.0", open=True) as server:
        assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200


def test_only_probes_are_public() -> None:
    """Metrics and descriptions name models and destinations: they need the token, too."""
    with running(environment={"RERANK_PLUGINS_TOKENS": "t"}) as server:
        for path in ("/metrics", "/openapi.json", "/"):
            assert httpx.get(f"{server.url}{path}").status_code == 401
            headers = {"authorization": "Bearer t"}
            assert httpx.get(f"{server.url}{path}", headers=headers).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert httpx.get(f"{server.url}{path}").status_code == 200


@pytest.fixture(scope="module")
def server():
    """Serve without tokens, known as rerank.internal, too."""
    with running(allow_hosts=["rerank.internal"]) as one:
        yield one


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("rerank.internal", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
def test_an_unknown_host_is_refused(server, host, status) -> None:
    """A page that makes its own name lead to this machine gets nothing."""
    headers = {"host": host}
    for path in ("/metrics", "/openapi.json"):
        assert httpx.get(f"{server.url}{path}", headers=headers).status_code == status
    answer = httpx.post(f"{server.url}/v1/rerank", headers=headers, json=BODY)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "TEXT/PLAIN;charset=UTF-8"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=a"}, 415),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost", "host": "localhost"}, 200),
    ],
)
def test_posts_of_other_sites_are_refused(server, headers, status) -> None:
    """What a browser sends for a page unasked is refused; clients need no content type."""
    content = json.dumps(BODY).encode()
    answer = httpx.post(f"{server.url}/v1/rerank", headers=headers, content=content)
    assert answer.status_code == status
