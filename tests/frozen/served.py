"""The frozen requests of the HTTP server, asked of a real process on loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from .frameworks import Asking
from .material import QUERIES, Row, bare, found, number, said

_TOKEN = "frozen-token"
# What differs from call to call.
_DROPPED = frozenset({"id", "created", "timings"})


def lexical(asked: Asking) -> None:
    """Ask every route of a server that counts words, in every dialect."""
    texts = [one or "" for one in bare(found(QUERIES[0], 6))]
    texts.insert(2, " ")
    documents: dict[str, Any] = {"query": QUERIES[0], "documents": texts}
    listed: dict[str, Any] = {"query": QUERIES[0], "texts": texts}
    objects: dict[str, Any] = {"query": QUERIES[0], "documents": [{"text": one} for one in texts]}
    bodies: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "cohere v2": ("/v2/rerank", {**documents, "top_n": 3, "model": "m"}),
        "cohere v2 raw": ("/v2/rerank", {**documents, "raw_scores": True}),
        "cohere v1": ("/v1/rerank", {**documents, "return_documents": True}),
        "jina": ("/v1/rerank", {**objects, "return_documents": True, "top_n": 0}),
        "jina explained": ("/rerank", {**documents, "explain": True}),
        "voyage": ("/v1/rerank", {**documents, "top_k": 2}),
        "vllm": ("/rerank", {**documents, "truncate_prompt_tokens": 9}),
        "infinity": ("/rerank", {**documents, "raw_scores": True, "return_documents": True}),
        "tei": ("/rerank", listed),
        "tei raw": ("/rerank", {**listed, "raw_scores": True, "return_text": True}),
        "no query": ("/v1/rerank", {"documents": texts}),
        "blank query": ("/v1/rerank", {**documents, "query": " "}),
        "no documents": ("/v2/rerank", {**documents, "documents": []}),
        "numbers": ("/v2/rerank", {**documents, "documents": [1]}),
        "negative": ("/v2/rerank", {**documents, "top_n": -1}),
        "neither": ("/rerank", {"query": "a"}),
        "no route": ("/v3/rerank", documents),
    }
    with running(environment={"RERANK_PLUGINS_TOKENS": _TOKEN}) as url:
        headers = {"authorization": f"Bearer {_TOKEN}"}
        for name, (path, body) in bodies.items():
            answer = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60.0)
            asked.put(f"server/{name}", read(answer))
        for name, token in (("nobody", ""), ("somebody else", "Bearer other")):
            given = {"authorization": token} if token else {}
            answer = httpx.post(f"{url}/v1/rerank", json=documents, headers=given, timeout=60.0)
            asked.put(f"server/{name}", read(answer))
        for path in ("/healthz", "/readyz", "/openapi.json"):
            answer = httpx.get(f"{url}{path}", headers=headers, timeout=60.0)
            asked.put(f"server{path}", read(answer))


def embedded(asked: Asking) -> None:
    """Ask a server of a cascade of words and the embedded model."""
    laid = (
        '[[stages]]\nscorer = "lexical"\nkeep = 5\n'
        '[[stages]]\nscorer = "embedded"\nmax_batch_tokens = 512\n[service]\nworkers = 2\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rerank.toml"
        path.write_text(laid)
        with running("--config", str(path)) as url:
            for place, query in enumerate(QUERIES[:3]):
                texts = [one or "" for one in bare(found(query, 8))]
                body: dict[str, Any] = {"query": query, "documents": texts, "explain": True}
                answer = httpx.post(f"{url}/v2/rerank", json=body, timeout=60.0)
                asked.put(f"server/cascade {place}", read(answer))
                raw = {**body, "raw_scores": True, "top_n": 4}
                slow = {"rerank-budget-ms": "60000"}
                answer = httpx.post(f"{url}/v1/rerank", json=raw, headers=slow, timeout=60.0)
                asked.put(f"server/cascade raw {place}", read(answer))
                texts_only = {"query": query, "texts": texts}
                answer = httpx.post(f"{url}/rerank", json=texts_only, timeout=60.0)
                asked.put(f"server/cascade tei {place}", read(answer))


def read(answer: httpx.Response) -> Row:
    """Give an answer without times and ids."""
    kind = answer.headers.get("content-type", "")
    body: Any = answer.json() if kind.startswith("application/json") else answer.text
    names = ("rerank-degraded", "x-compute-tokens", "retry-after", "www-authenticate")
    return {
        "status": answer.status_code,
        "headers": {name: answer.headers[name] for name in names if name in answer.headers},
        "names": sorted(one for one in answer.headers if one.startswith(("x-", "rerank"))),
        "body": lasting(body),
    }


def lasting(value: Any) -> Any:
    """Leave out what differs from call to call."""
    if isinstance(value, dict):
        return {key: lasting(one) for key, one in value.items() if key not in _DROPPED}
    if isinstance(value, list):
        return [lasting(one) for one in value]
    return said(value) if isinstance(value, str) else number(value)


@contextlib.contextmanager
def running(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve on a free port until the block ends; give the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "rerank_plugins.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *(options or ("--model", "lexical"))],
        env=os.environ | dict(environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 90.0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5.0).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} was not ready in time")
