"""What a request may cost before it is refused, and what a single client may hold."""

import json
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_plugins.rules.residency import Policy
from rerank_plugins.serving.http.admission import Limits, Queue, Refused
from rerank_plugins.serving.http.bodies import Bodies
from tests.serving.http.connecting import HEAD, connect, received
from tests.serving.http.serving import Server, running

MIB = 2**20
# Of a single large request: text is kept once as it came and once decoded, at 4 bytes a character.
MOST_TIMES = 8
LIMITS = Limits(max_body_bytes=4000, max_candidates=4, max_text_chars=30)


def listed(item: str, size: int) -> bytes:
    """Return a body of about `size` bytes whose documents are all `item`."""
    items = ",".join([item] * (size // (len(item) + 1)))
    return f'{{"query": "a", "documents": [{items}]}}'.encode()


HOSTILE = {
    "numbers": listed("0", 15 * MIB),
    "letters": listed('"a"', 15 * MIB),
    "objects": listed('{"text": "a", "meta": {"a": []}}', 15 * MIB),
    "lists": listed("[]", 15 * MIB),
    "ignored": b'{"x": [' + b"[]," * (5 * MIB) + b'1], "query": "a", "documents": [1]}',
    "ignored of a document": (
        b'{"query": "a", "documents": [{"text": "a", "x": [' + b"{}," * (5 * MIB) + b"0]}, 1]}"
    ),
    "metadata": (
        b'{"query": "a", "documents": [{"text": "a", "meta": [' + b"{}," * (5 * MIB) + b"0]}, 1]}"
    ),
    "deep": b'{"query": "a", "documents": ' + b"[" * 15 * MIB,
    "deep in what is ignored": b'{"x": ' + b"[" * 15 * MIB,
    "deep objects": b'{"x":' * 3 * MIB,
    "wide text": b'{"query": "a", "documents": ["'
    + b"a" * 15 * MIB
    + "\U0001f98a".encode()
    + b'"]}',
    "not json": b"\xff" * 15 * MIB,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_costs_a_small_multiple_of_the_body(name: str) -> None:
    """Whatever is wrong with 16 MiB, the server's memory grows by at most eight times that."""
    with running() as server:
        refused = httpx.post(f"{server.url}/v1/rerank", content=b"{}")
        assert refused.status_code == 422
        before = _resident_bytes(server, "VmRSS")
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        started = time.monotonic()
        answer = httpx.post(f"{server.url}/v1/rerank", content=HOSTILE[name], timeout=60.0)
        took_s = time.monotonic() - started
        assert answer.status_code == 422
        assert len(answer.content) < 1000
        assert _resident_bytes(server, "VmHWM") - before <= MOST_TIMES * len(HOSTILE[name])
        assert took_s < 5.0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
DOCUMENTS = st.lists(
    st.text(max_size=40)
    | st.fixed_dictionaries({"text": st.text(max_size=40)}, optional={"meta": JSON}),
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(query=st.text(max_size=5), documents=DOCUMENTS | JSON, ignored=JSON)
def test_a_body_is_taken_exactly_if_it_is_within_all_bounds(query, documents, ignored) -> None:
    """Bodies times bounds: nothing over a bound comes through, nothing within is refused."""
    body = {"query": query, "documents": documents, "ignored": ignored}
    data = bytearray(json.dumps(body).encode())
    texts = [
        document.get("text") if isinstance(document, dict) else document
        for document in (documents if isinstance(documents, list) else [])
    ]
    within = (
        bool(query.strip())
        and 1 <= len(texts) <= LIMITS.max_candidates
        and all(isinstance(text, str) and len(text) <= LIMITS.max_text_chars for text in texts)
    )
    decode = Bodies(LIMITS, "residency").rerank
    if not within:
        with pytest.raises(Refused, match="invalid request"):
            decode(data)
        return
    read, candidates = decode(data)
    assert read.query == query
    assert [candidate.text for candidate in candidates] == texts


FIRST_ERRORS = {
    "documents.1: expected str | object, got int": b'{"query": "a", "documents": ["a", 1, 2]}',
    "documents.1: object missing required field text": b'{"query": "a", "documents": ["a", {}]}',
    "documents.0: expected at most 30 characters": listed('"' + "x" * 31 + '"', 40),
    "documents: expected array of at most length 4": listed('"x"', 20),
    "documents: expected at least one": b'{"query": "a", "documents": []}',
    "query: expected str, got int": b'{"query": 1, "documents": [2]}',
    "query: expected text that is not blank": b'{"query": " ", "documents": ["a"]}',
    "body: object missing required field documents": b'{"query": "a"}',
}


@pytest.mark.parametrize("message", FIRST_ERRORS)
def test_the_first_error_is_named_with_its_place(message: str) -> None:
    """One error ends it, and says where and what, never the text."""
    with pytest.raises(Refused) as refused:
        Bodies(LIMITS, "residency").rerank(bytearray(FIRST_ERRORS[message]))
    assert refused.value.message == f"invalid request: {message}"


LABELS = {
    "own field": {"residency": "de"},
    "list": {"metadata": {"residency": ["de", "eu"]}},
    "meta": {"meta": {"residency": "de"}, "metadata": {"a": [1]}},
    "nested": {"metadata": {"meta": {"metadata": {"residency": "de"}}}},
    "null": {"residency": None},
    "number": {"metadata": {"residency": 3}},
    "text for metadata": {"metadata": "de"},
    "list for meta": {"meta": []},
    "deep": {"meta": {"meta": {"meta": {"meta": {"meta": {"meta": {"residency": "de"}}}}}}},
    "long": {"residency": "de" * 1000},
    "none": {"meta": None, "x": {"residency": "de"}},
    "no label": {"meta": {"a": {"residency": "de"}}},
}


@pytest.mark.parametrize("name", LABELS)
def test_a_documents_labels_reach_the_policy(name: str) -> None:
    """What may stand in a document object is read as it would be in process, or more strictly."""
    document = {"text": "a", **LABELS[name]}
    body = bytearray(json.dumps({"query": "a", "documents": [document]}).encode())
    _, (candidate,) = Bodies(Limits(), "residency").rerank(body)
    label = Policy().label(candidate.metadata)
    if name in {"none", "no label"}:
        assert label is None
    elif name in {"own field", "list", "meta", "nested"}:
        assert label is not None
        assert "de" in label.regions
    else:
        assert label is not None
        assert not label.regions


@pytest.mark.parametrize("key", ["region", "data-residency", "text", "meta"])
def test_a_label_key_of_ones_own_is_read(key: str) -> None:
    """The policy may call the label anything."""
    body = {"query": "a", "documents": [{"text": "de", "metadata": {key: "de"}}]}
    _, (candidate,) = Bodies(Limits(), key).rerank(bytearray(msgspec.json.encode(body)))
    label = Policy(residency_key=key).label(candidate.metadata)
    assert label is not None
    assert set(label.regions) <= {"de"}


def test_a_client_holds_at_most_its_share() -> None:
    """The queue keeps places for others, and gives all of them back."""
    queue = Queue(Limits(client_share=0.5), 4)
    with queue.place("a"), queue.place("a"):
        with pytest.raises(Refused, match="of this client"), queue.place("a"):
            pass
        queue.places = 2
        with pytest.raises(Refused, match="queue is full"), queue.place("b"):
            pass
        queue.places = 4
    with queue.place("a"), queue.place("a"), queue.place("b"):
        pass


def test_bodies_are_read_only_by_requests_that_have_a_place() -> None:
    """Before a body has arrived its place is taken, and the next client is told to come back."""
    with running(max_requests=2, client_share=1.0) as server:
        waiting = [connect(server) for _ in range(2)]
        for line in waiting:
            line.sendall(HEAD + b"content-length: 9000000\r\n\r\n{")
        time.sleep(0.3)
        with connect(server) as line:
            line.sendall(HEAD + b"content-length: 9000000\r\n\r\n{")
            assert received(line).startswith(b"HTTP/1.1 429")
        for line in waiting:
            line.close()
        assert _eventually_served(server)


def test_bodies_in_memory_are_bounded_together() -> None:
    """A body that does not fit beside those of others gets 429, and room comes back."""
    with running(max_held_bytes=MIB, client_share=1.0) as server:
        with connect(server) as line:
            line.sendall(HEAD + b"content-length: 900000\r\n\r\n" + b" " * 800_000)
            time.sleep(0.5)
            full = httpx.post(f"{server.url}/v1/rerank", content=b" " * 400_000, timeout=10.0)
            assert full.status_code == 429
        assert _eventually_served(server)


def test_a_request_without_a_deadline_gets_one() -> None:
    """Work that would take long is answered in time, and says that it was cut short."""
    texts = [f"the quick brown fox {i} " * 400 for i in range(400)]
    body = {"query": "fox", "documents": texts}
    with running(model="embedded", threads=1, default_budget_ms=300.0) as server:
        started = time.monotonic()
        answer = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=60.0)
        assert answer.status_code == 200
        assert answer.headers["rerank-degraded"] == "true"
        assert time.monotonic() - started < 5.0


def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    """Places of departed clients are free at once, however long their work would have taken."""
    texts = [f"the quick brown fox {i} " * 400 for i in range(400)]
    body = json.dumps({"query": "fox", "documents": texts}).encode()
    with running(model="embedded", threads=1, max_requests=4, client_share=1.0) as server:
        for _ in range(4):
            with connect(server) as line:
                line.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
                time.sleep(0.2)
        started = time.monotonic()
        assert _eventually_served(server)
        assert time.monotonic() - started < 5.0


def _eventually_served(server: Server) -> bool:
    body = {"query": "a", "documents": ["a"]}
    for _ in range(50):
        answer = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=30.0)
        if answer.status_code == 200:
            return True
        assert answer.status_code == 429
        time.sleep(0.1)
    return False


def _resident_bytes(server: Server, name: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"\ude00 fox", "\ufffd fox"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\u00e9\n", "\u00e9\n"),
    ],
)
def test_half_an_emoji_costs_itself_and_nothing_else(escaped, read):
    """What a client cut in two is one replaced character, in a query, a document or elsewhere."""
    body = b'{"query":"a' + escaped + b'","documents":["b' + escaped + b'"],"x":"\\ud83d"}'
    parsed, candidates = Bodies(Limits(), "residency").rerank(bytearray(body))
    assert parsed.query == "a" + read
    assert [candidate.text for candidate in candidates] == ["b" + read]
