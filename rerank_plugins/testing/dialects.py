"""The dialects of the fake server, each written from the provider's own side.

They share no code with the client, so that a mistake in one is found by the other.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from . import kserve, requests, responses
from .messages import Content, ParsedRequest


def dump(value: object) -> bytes:
    """Return JSON as servers write it, NaN and Infinity included."""
    return json.dumps(value).encode()


def _parse(path: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:  # noqa: ARG001
    value = json.loads(body)
    return value if isinstance(value, dict) else {}


def _dump(value: object) -> tuple[bytes, Mapping[str, str]]:
    return dump(value), {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider: where it listens, how it reads requests, answers, and refuses.

    error: returns the body for a status and a message
    cap: documents of one call, at most; `too_many` is the message of a refusal
    key_header: where the key is expected
    headers: go with every success
    logits: scores are logits
    parse, dump: from and to bytes, where the body is not JSON alone; `parse` gets path, headers,
        body
    health: paths that answer that the server is up
    """

    paths: tuple[str, ...]
    read: Callable[[Mapping[str, object]], ParsedRequest]
    answer: Callable[[Content], object]
    error: Callable[[int, str], object]
    cap: int = 1000
    cap_status: int = 400
    key_header: str = "authorization"
    headers: Mapping[str, str] = field(default_factory=dict)
    logits: bool = False
    too_many: str = "batch size {n} > maximum allowed batch size {cap}"
    parse: Callable[[str, Mapping[str, str], bytes], Mapping[str, object]] = _parse
    dump: Callable[[object], tuple[bytes, Mapping[str, str]]] = _dump
    health: tuple[str, ...] = ()


def _message(status: int, message: str) -> object:  # noqa: ARG001 - Cohere's errors hold no status
    return {"id": "07734bd2", "message": message}


def _detail(status: int, message: str) -> object:
    if status == 422:  # noqa: PLR2004 - FastAPI's own form for it
        return {"detail": [{"loc": ["body", "documents"], "msg": message, "type": "value_error"}]}
    return {"detail": message}


def _openai(status: int, message: str) -> object:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}


def _tei_error(status: int, message: str) -> object:
    kinds = {429: "Overloaded", 424: "Backend", 503: "Unhealthy"}
    return {"error": message, "error_type": kinds.get(status, "Validation")}


_COHERE = Dialect(
    ("/v2/rerank", "/v1/rerank"), requests.common, responses.cohere, _message, cap=10_000
)

_TEI_HEADERS = {
    "x-total-time": "12",
    "x-queue-time": "1",
    "x-tokenization-time": "2",
    "x-inference-time": "8",
}

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "cohere": _COHERE,
        "cohere-v1": _COHERE,
        "azure": Dialect(
            ("/providers/cohere/v2/rerank",), requests.common, responses.cohere, _message
        ),
        "azure-v1": _COHERE,
        "compatible": _COHERE,
        "jina": Dialect(("/v1/rerank",), requests.common, responses.jina, _detail),
        "voyage": Dialect(
            ("/rerank", "/v1/rerank"),
            partial(requests.common, top_n="top_k"),
            responses.voyage,
            _detail,
            headers={"voyage-processing-ms": "34"},
        ),
        "mixedbread": Dialect(
            ("/v1/reranking",),
            partial(requests.common, documents="input", top_n="top_k"),
            responses.mixedbread,
            _message,
        ),
        "zeroentropy": Dialect(
            ("/models/rerank",), requests.common, responses.zeroentropy, _detail
        ),
        "pinecone": Dialect(
            ("/rerank",),
            requests.pinecone,
            responses.pinecone,
            _openai,
            cap=100,
            key_header="api-key",
        ),
        "bedrock": Dialect(("/rerank",), requests.bedrock, responses.bedrock, _message),
        "bedrock-invoke": Dialect(("/model/",), requests.common, responses.cohere, _message),
        "google": Dialect(("/v1/projects/",), requests.google, responses.google, _openai, cap=200),
        "nvidia": Dialect(
            ("/v1/ranking",), requests.nvidia, responses.nvidia, _openai, cap=512, logits=True
        ),
        "tei": Dialect(
            ("/rerank", "/", "/invocations"),
            partial(requests.common, documents="texts", top_n=None),
            responses.tei,
            _tei_error,
            cap=32,
            cap_status=422,
            headers=_TEI_HEADERS,
        ),
        "vllm": Dialect(
            ("/rerank", "/v1/rerank", "/v2/rerank"),
            partial(requests.common, zero_means=None),
            responses.vllm,
            _openai,
        ),
        "vllm-score": Dialect(
            ("/score", "/v1/score"), requests.vllm_score, responses.vllm_score, _openai
        ),
        "infinity": Dialect(("/rerank",), requests.common, responses.infinity, _openai),
        "llama.cpp": Dialect(
            ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"),
            partial(requests.common, zero_means=0),
            responses.jina,
            _openai,
            logits=True,
        ),
        "triton": Dialect(
            ("/v2/models/",),
            kserve.read,
            kserve.answer,
            kserve.error,
            cap=64,
            logits=True,
            too_many="inference request batch-size must be <= {cap} for 'model'",
            parse=kserve.parse,
            dump=kserve.dump,
            health=("/v2/health/live", "/v2/health/ready"),
        ),
    }
)
"""Dialects by the provider's name in settings."""
