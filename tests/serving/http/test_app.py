"""The server over real sockets: dialects, bounds, overload, and a graceful end."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from rerank_plugins import Reranker
from rerank_plugins.serving.http.app import Serving, build
from tests.serving.http.serving import Server, running

QUERY = "red fox"
TEXTS = ["a hen in the yard", "", "the red fox sleeps", "a red barn"]
LONG = ["the quick brown fox jumps over the lazy dog " * 40 + str(i) for i in range(60)]
NONSENSE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"query": "a"}',
    b'{"query": " ", "documents": ["a"]}',
    b'{"query": "a", "documents": []}',
    b'{"query": "a", "documents": [1]}',
    b'{"query": "a", "documents": ["a"], "top_n": -1}',
    b'{"query": "a", "documents": ["\xff\xfe"]}',
    b'{"query": "a", "documents": ["\\uzzzz"]}',
    b'{"query":' * 20_000,
    b"[" * 100_000,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve the lexical scorer for the whole module."""
    with running() as one:
        yield one


def post(server: Server, path: str, **body: object) -> httpx.Response:
    """Post a JSON body."""
    return httpx.post(f"{server.url}{path}", json=body, timeout=60.0)


def test_every_dialect_gives_the_engines_order(server: Server) -> None:
    """All routes order as the engine in process does."""
    with Reranker("lexical") as reranker:
        expected = [hit.index for hit in reranker.rerank(QUERY, TEXTS)]
    for path in ("/v2/rerank", "/v1/rerank", "/rerank"):
        answer = post(server, path, query=QUERY, documents=TEXTS).json()
        assert [one["index"] for one in answer["results"]] == expected
    listed = post(server, "/rerank", query=QUERY, texts=TEXTS).json()
    assert [one["index"] for one in listed] == expected


def test_scores_are_on_the_wires_scale_and_blank_texts_are_last(server: Server) -> None:
    """Relevance lies in [0, 1] and falls; what was not scored is 0 at the bottom."""
    results = post(server, "/v2/rerank", query=QUERY, documents=TEXTS).json()["results"]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert results[-1] == {"index": 1, "relevance_score": 0.0}


def test_top_n_and_echoes_follow_the_dialect(server: Server) -> None:
    """top_n cuts (0 is all), and texts come back only where asked for."""
    assert (
        len(post(server, "/v2/rerank", query=QUERY, documents=TEXTS, top_n=1).json()["results"])
        == 1
    )
    assert (
        len(post(server, "/v1/rerank", query=QUERY, documents=TEXTS, top_n=0).json()["results"])
        == 4
    )
    echoed = post(
        server, "/v1/rerank", query=QUERY, documents=[{"text": TEXTS[2]}], return_documents=True
    ).json()
    assert echoed["results"][0]["document"] == {"text": TEXTS[2]}
    assert (
        post(server, "/rerank", query=QUERY, texts=TEXTS, return_text=True).json()[0]["text"]
        == TEXTS[2]
    )


def test_timings_and_degradation_travel_in_headers(server: Server) -> None:
    """Every answer says how long it took and whether it is degraded; details on request."""
    response = post(server, "/v1/rerank", query=QUERY, documents=TEXTS, explain=True)
    assert response.headers["rerank-degraded"] == "false"
    assert int(response.headers["x-total-time"]) >= 0
    assert "total;dur=" in response.headers["server-timing"]
    explained = response.json()["explain"]
    assert {"step": "select", "code": "blank", "count": 1} in explained["decisions"]


@pytest.mark.parametrize(
    "body",
    NONSENSE,
)
def test_nonsense_is_the_clients_mistake(server: Server, body: bytes) -> None:
    """Bad bodies answer 422 with a message and never a 5xx."""
    response = httpx.post(f"{server.url}/v1/rerank", content=body, timeout=30.0)
    assert response.status_code == 422
    assert response.json()["message"].startswith("invalid request: ")


def test_unknown_fields_are_ignored_and_errors_hold_no_text(server: Server) -> None:
    """Fields of other servers do no harm, and an error never repeats a document."""
    assert post(server, "/v2/rerank", query=QUERY, documents=TEXTS, priority=3).status_code == 200
    refused = post(server, "/v2/rerank", query=QUERY, documents=["secret-text", 3])
    assert refused.status_code == 422
    assert "secret-text" not in refused.text


def test_a_bad_budget_is_refused_and_a_good_one_kept(server: Server) -> None:
    """The deadline header takes milliseconds above 0."""
    body = {"query": QUERY, "documents": TEXTS}
    for value, status in (("0", 400), ("soon", 400), ("nan", 400), ("5000", 200)):
        headers = {"rerank-budget-ms": value}
        got = httpx.post(f"{server.url}/v1/rerank", json=body, headers=headers, timeout=30.0)
        assert got.status_code == status


def test_bodies_and_candidates_are_bounded() -> None:
    """A body or a list over its bound is refused before any work."""
    with running(max_body_bytes=2000, max_candidates=3) as server:
        assert post(server, "/v1/rerank", query="a", documents=["x" * 3000]).status_code == 413
        chunks = iter([b'{"query": "', b"x" * 3000])
        assert (
            httpx.post(f"{server.url}/v1/rerank", content=chunks, timeout=30.0).status_code == 413
        )
        assert post(server, "/v1/rerank", query="a", documents=["x"] * 4).status_code == 422
        assert post(server, "/v1/rerank", query="a", documents=["x"] * 3).status_code == 200


def test_slow_bodies_end() -> None:
    """A body that does not arrive in time is answered with 408."""
    with running(body_timeout_s=0.5) as slow:
        address = urlsplit(slow.url)
        with socket.create_connection((address.hostname, address.port), timeout=20.0) as line:
            line.sendall(
                b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
            )
            assert line.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.slow
def test_slow_heads_end(server: Server) -> None:
    """A connection that never finishes its head is closed, and others are served meanwhile."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30.0) as line:
        line.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost:")
        assert post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code == 200
        started = time.monotonic()
        assert line.recv(100) == b""
        assert time.monotonic() - started < 20.0


def test_strangers_are_refused(tmp_path: Path) -> None:
    """With tokens, a request needs one of them; the health routes stay open."""
    file = tmp_path / "tokens"
    file.write_text("# operators\nalpha\nbeta\n")
    body = {"query": QUERY, "documents": TEXTS}
    with running(tokens_file=str(file), environment={"RERANK_PLUGINS_TOKENS": "gamma"}) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for token, status in (("alpha", 200), ("beta", 200), ("gamma", 200), ("delta", 401)):
            headers = {"authorization": f"Bearer {token}"}
            got = httpx.post(f"{server.url}/v2/rerank", json=body, headers=headers)
            assert got.status_code == status
        assert httpx.post(f"{server.url}/v2/rerank", json=body).status_code == 401


def test_a_full_queue_says_when_to_come_back() -> None:
    """Requests over the bound get 429 with Retry-After, the others are answered."""
    with running(model="embedded", max_requests=1, threads=1) as server:
        with ThreadPoolExecutor(6) as pool:
            answers = list(
                pool.map(
                    lambda _: post(server, "/v1/rerank", query=QUERY, documents=LONG[:30]), range(6)
                )
            )
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code == 200


def insist(server: Server, texts: list[str]) -> httpx.Response:
    """Post until the queue has room."""
    while (answer := post(server, "/v1/rerank", query=QUERY, documents=texts)).status_code == 429:
        pass
    return answer


def fill(server: Server) -> None:
    """Wait until a request is refused, which says that all the others are under way."""
    while post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code != 429:
        pass


def test_termination_finishes_what_is_under_way() -> None:
    """SIGTERM under load: every request in flight is answered and the process ends cleanly."""
    with running(model="embedded", threads=1, max_requests=4, client_share=1.0) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(insist, server, LONG[:10]) for _ in range(4)]
            fill(server)
            server.terminate()
            assert [answer.result().status_code for answer in answers] == [200] * 4
        assert server.process.wait(timeout=20) in (0, -15)


def test_what_cannot_be_finished_is_told_to_ask_elsewhere() -> None:
    """A request still under way when the time to drain is over gets 503, not a broken answer."""
    with (
        running(model="embedded", threads=1, max_requests=1, drain_s=1) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(insist, server, LONG * 4)
        fill(server)
        server.terminate()
        assert answer.result().status_code == 503


@pytest.mark.slow
def test_hostile_bodies_leave_memory_flat() -> None:
    """Two thousand bad bodies, some of a megabyte, leave the server's memory where it was."""
    hostile = [body for body in NONSENSE if body] + [
        b'{"query": "a", "documents": [' + b'"x",' * 250_000 + b"1]}",
        b'{"query": "a", "documents": ["' + b"\\uzzzz" * 150_000 + b'"]}',
    ]

    def attack(client: httpx.Client, rounds: int) -> None:
        for _ in range(rounds):
            for body in hostile:
                answer = client.post("/v1/rerank", content=body, timeout=60.0)
                assert answer.status_code == 422

    with running() as server, httpx.Client(base_url=server.url) as client:
        attack(client, 30)
        before = _resident_kb(server.process.pid)
        attack(client, 2000 // len(hostile))
        assert _resident_kb(server.process.pid) <= before * 1.05
        assert post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code == 200


@pytest.mark.slow
def test_a_killed_worker_is_replaced() -> None:
    """After kill -9 of one worker of two the other serves on, and a new one takes its place."""
    with running(workers=2) as server:
        before = _children(server.process.pid)
        assert len(before) == 2
        _kill(before[0])
        for _ in range(20):
            assert _persistent(server) == 200
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            now = set(_children(server.process.pid)) - {before[0]}
            if len(now) == 2:
                break
            time.sleep(0.2)
        assert len(now) == 2
        assert _persistent(server) == 200


def test_the_page_loads_nothing_from_anywhere(server: Server) -> None:
    """The description page is whole in itself, and the description names every route."""
    page = httpx.get(f"{server.url}/").text
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    asked = {"/v1/rerank", "/v2/rerank", "/rerank", "/healthz", "/readyz", "/health", "/info"}
    assert asked | {"/metrics"} == set(paths)


def test_tei_clients_learn_first_what_runs_here(server: Server) -> None:
    """They take a server for a reranker only if it says so, and split calls by its batch size."""
    health = httpx.get(f"{server.url}/health")
    assert (health.status_code, health.content) == (200, b"")
    info = httpx.get(f"{server.url}/info").json()
    assert list(info["model_type"]) == ["reranker"]
    assert info["model_id"] == "lexical"
    assert info["max_client_batch_size"] >= 1000
    with running(environment={"RERANK_PLUGINS_TOKENS": "alpha"}) as closed:
        assert httpx.get(f"{closed.url}/health").status_code == 200
        assert httpx.get(f"{closed.url}/info").status_code == 401


def _persistent(server: Server) -> int:
    """Ask until a connection was not one that the dead worker had accepted."""
    for _ in range(5):
        try:
            return post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code
        except httpx.TransportError:
            time.sleep(0.05)
    return 0


def _resident_kb(pid: int) -> int:
    """Read a process's resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {int(c): Path(f"/proc/{c}/cmdline").read_text() for c in children}
    return [child for child, name in names.items() if "resource_tracker" not in name]


def _kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)


def test_metrics_count_what_was_served(server: Server) -> None:
    """After a request, /metrics tells of it in Prometheus' text format."""
    assert post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code == 200
    text = httpx.get(f"{server.url}/metrics").text
    counts = [line for line in text.splitlines() if line.startswith("rerank") and "_count" in line]
    assert any(float(line.rsplit(" ", 1)[1]) >= 1 for line in counts)


def test_a_callers_trace_goes_on_in_the_server() -> None:
    """The rerank span is a child of the span that `traceparent` names."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    serving = Serving(open_reranker=lambda: Reranker("lexical", tracer_provider=provider))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with TestClient(build(serving)) as client:
        answer = client.post(
            "/v1/rerank",
            json={"query": QUERY, "documents": TEXTS},
            headers={"traceparent": parent},
        )
    assert answer.status_code == 200
    root = next(span for span in exporter.get_finished_spans() if span.name.startswith("rerank "))
    assert f"{root.context.trace_id:032x}" == parent.split("-")[1]
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == parent.split("-")[2]


@pytest.mark.slow
def test_generated_requests_never_break_the_server(server: Server, tmp_path: Path) -> None:
    """Whatever schemathesis makes of our description, valid or not, no answer is a 5xx."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run"]
    options = ["--max-examples", "60", "--checks", "not_a_server_error", "--seed", "1"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options, "--phases", "examples,coverage,fuzzing"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert post(server, "/v1/rerank", query=QUERY, documents=TEXTS).status_code == 200
