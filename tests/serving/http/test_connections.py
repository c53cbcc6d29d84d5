"""Connections are bounded: in number, in each of their phases, and after an answer."""

import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.serving.http.connecting import HEAD, connect, received
from tests.serving.http.serving import Server, running

BODY = b"content-length: 100\r\n\r\n{"
QUICK = {"head_s": 1.0, "write_s": 1.0, "body_timeout_s": 1.0}
DEAF_AFTER_S = 6.0
LARGE = json.dumps(
    {"query": "fox", "documents": ["fox " * 2000] * 900, "return_documents": True}
).encode()

UNREAD = {
    "401": (HEAD + BODY, b"401"),
    "404": (HEAD.replace(b"v1", b"v3") + BODY, b"404"),
    "405": (HEAD.replace(b"POST", b"PUT") + BODY, b"405"),
    "413": (HEAD + b"authorization: Bearer t\r\ncontent-length: 900000000\r\n\r\n{", b"413"),
    "408": (HEAD + b"authorization: Bearer t\r\n" + BODY, b"408"),
    "415": (HEAD + b"authorization: Bearer t\r\ncontent-type: text/plain\r\n" + BODY, b"415"),
    "get": (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + BODY, b"200"),
    "chunked": (
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"200",
    ),
    "expecting": (HEAD + b"expect: 100-continue\r\n" + BODY[:-1], b"401"),
}


@pytest.fixture(scope="module")
def guarded():
    """Serve with a token and short deadlines."""
    with running(environment={"RERANK_PLUGINS_TOKENS": "t"}, **QUICK) as server:
        yield server


@pytest.mark.parametrize("name", UNREAD)
def test_an_answer_to_an_unread_body_ends_the_connection(guarded: Server, name: str) -> None:
    """The answer says so, and bytes that trickle in afterwards change nothing."""
    sent, status = UNREAD[name]
    with connect(guarded) as line:
        line.sendall(sent)
        answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer
        started = time.monotonic()
        line.settimeout(0.2)
        ended = False
        while not ended and time.monotonic() - started < DEAF_AFTER_S:
            try:
                line.sendall(b" ")
                ended = line.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def test_a_large_unread_body_does_not_hide_the_answer(guarded: Server) -> None:
    """A client that sends all before it reads still sees why it was refused."""
    answer = httpx.post(f"{guarded.url}/v1/rerank", content=b" " * 12 * 2**20, timeout=20.0)
    assert answer.status_code == 401


PHASES = {
    "nothing": b"",
    "half a head": b"POST /v1/rerank HTTP/1.1\r\nhost:",
    "idle": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "idle, then half a head": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /",
    "body": HEAD + b"authorization: Bearer t\r\n" + BODY,
    "nonsense": b"\x00\x01\r\n\r\n",
}


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_ends(guarded: Server, phase: str) -> None:
    """Silence in any phase closes the connection within its deadline."""
    with connect(guarded) as line:
        line.sendall(PHASES[phase])
        started = time.monotonic()
        received(line)
        assert time.monotonic() - started < DEAF_AFTER_S + 2.0


def test_a_trickle_does_not_keep_a_connection() -> None:
    """A connection ends as a whole, even if each of its requests is in time."""
    with running(connection_s=2.0) as server, connect(server) as line:
        started = time.monotonic()
        line.settimeout(1.0)
        ended = False
        while not ended and time.monotonic() - started < 10.0:
            try:
                line.sendall(PHASES["idle"])
                ended = line.recv(65536) == b""
            except OSError:
                ended = True
            time.sleep(0.1)
        assert ended


def _unread_answer(server: Server) -> socket.socket:
    """Ask for a large answer and do not read it."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    line.sendall(HEAD + f"content-length: {len(LARGE)}\r\n\r\n".encode() + LARGE)
    return line


def test_an_answer_that_nobody_reads_ends() -> None:
    """The server gives up writing, and its memory and descriptors come back."""
    with running(write_s=1.0) as server:
        before = _descriptors(server)
        lines = [_unread_answer(server) for _ in range(3)]
        deadline = time.monotonic() + 20.0
        time.sleep(1.0)
        while _descriptors(server) > before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _descriptors(server) <= before
        for line in lines:
            line.close()


def test_nobody_holds_up_the_end() -> None:
    """Unread answers, half bodies and idle connections are cut a few seconds after SIGTERM."""
    with running() as server:
        lines = [_unread_answer(server) for _ in range(2)]
        lines += [connect(server) for _ in range(3)]
        lines[-1].sendall(HEAD + BODY)
        lines[-2].sendall(PHASES["half a head"])
        time.sleep(1.5)
        server.terminate()
        started = time.monotonic()
        server.process.wait(timeout=30)
        assert time.monotonic() - started < 5.0
        for line in lines:
            line.close()


def test_silent_connections_do_not_make_the_server_deaf() -> None:
    """Under a limit of 200 files, 400 silent connections leave room for everybody else."""
    with running(files=200) as server:
        silent = [connect(server, source=f"127.0.0.{2 + i % 40}") for i in range(400)]
        for _ in range(20):
            assert httpx.get(f"{server.url}/readyz", timeout=1.0).status_code == 200
        assert _descriptors(server) < 200
        for line in silent:
            line.close()


def test_an_address_has_a_bound_of_its_own() -> None:
    """One address is told to come back while others are served."""
    with running(per_address=3) as server:
        lines = [connect(server, source="127.0.0.9") for _ in range(3)]
        with connect(server, source="127.0.0.9") as line:
            assert received(line).startswith(b"HTTP/1.1 429")
        assert httpx.get(f"{server.url}/readyz", timeout=5.0).status_code == 200
        for line in lines:
            line.close()


def test_a_new_connection_is_worth_more_than_an_idle_one_of_a_crowd() -> None:
    """A full server lets go of an idle connection of the address that has the most."""
    with running(connections=4, per_address=4) as server:
        crowd = [connect(server, source="127.0.0.9") for _ in range(3)]
        with connect(server, source="127.0.0.8") as other:
            for _ in range(3):
                assert httpx.get(f"{server.url}/readyz", timeout=5.0).status_code == 200
            other.sendall(PHASES["idle"])
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        for line in crowd:
            line.close()


def test_there_are_no_redirections(guarded: Server) -> None:
    """A slash too many is another path; nothing repeats the caller's Host."""
    headers = {"host": "elsewhere.example", "authorization": "Bearer t"}
    for path in ("/v1/rerank/", "/rerank/", "/healthz/"):
        answer = httpx.post(f"{guarded.url}{path}", headers=headers, content=b"{}")
        assert answer.status_code == 404
        assert "location" not in answer.headers


def _descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
