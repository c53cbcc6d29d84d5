"""The dialects that the fake server speaks, each written from the provider's own side.

A dialect reads the query and the documents off a request, and lays out the answer for scores. It
shares nothing with the client, so that one mistake cannot be made twice.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from . import kserve, requests, responses
from .messages import Asked, Layout


def dump(value: object) -> bytes:
    """Give JSON as servers do, NaN and Infinity included."""
    return json.dumps(value).encode()


def _parse(path: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:  # noqa: ARG001
    value = json.loads(body)
    return value if isinstance(value, dict) else {}


def _pack(value: object) -> tuple[bytes, Mapping[str, str]]:
    return dump(value), {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider: where it listens, how it reads and answers, how its errors look.

    `error` lays out a status and a message; `cap` is the most documents, `too_many` what is said of
    more; `key_header` is where the key is expected; `headers` go with every success. `decode` takes
    a body apart (path, headers, body) and `pack` puts an answer together, where that is not JSON
    alone. `health` are paths that say the server is up.
    """

    paths: tuple[str, ...]
    read: Callable[[Mapping[str, object]], Asked]
    answer: Callable[[Layout], object]
    error: Callable[[int, str], object]
    cap: int = 1000
    cap_status: int = 400
    key_header: str = "authorization"
    headers: Mapping[str, str] = field(default_factory=dict)
    logits: bool = False
    too_many: str = "batch size {n} > maximum allowed batch size {cap}"
    decode: Callable[[str, Mapping[str, str], bytes], Mapping[str, object]] = _parse
    pack: Callable[[object], tuple[bytes, Mapping[str, str]]] = _pack
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
    ("/v2/rerank", "/v1/rerank"), requests.reader(), responses.cohere, _message, cap=10_000
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
            ("/providers/cohere/v2/rerank",), requests.reader(), responses.cohere, _message
        ),
        "azure-v1": _COHERE,
        "compatible": _COHERE,
        "jina": Dialect(("/v1/rerank",), requests.reader(), responses.jina, _detail),
        "voyage": Dialect(
            ("/rerank", "/v1/rerank"),
            requests.reader(cut="top_k"),
            responses.voyage,
            _detail,
            headers={"voyage-processing-ms": "34"},
        ),
        "mixedbread": Dialect(
            ("/v1/reranking",), requests.reader("input", "top_k"), responses.mixedbread, _message
        ),
        "zeroentropy": Dialect(
            ("/models/rerank",), requests.reader(), responses.zeroentropy, _detail
        ),
        "pinecone": Dialect(
            ("/rerank",),
            requests.read_pinecone,
            responses.pinecone,
            _openai,
            cap=100,
            key_header="api-key",
        ),
        "bedrock": Dialect(("/rerank",), requests.read_bedrock, responses.bedrock, _message),
        "bedrock-invoke": Dialect(("/model/",), requests.reader(), responses.cohere, _message),
        "google": Dialect(
            ("/v1/projects/",), requests.read_google, responses.google, _openai, cap=200
        ),
        "nvidia": Dialect(
            ("/v1/ranking",), requests.read_nvidia, responses.nvidia, _openai, cap=512, logits=True
        ),
        "tei": Dialect(
            ("/rerank", "/", "/invocations"),
            requests.reader("texts", None),
            responses.tei,
            _tei_error,
            cap=32,
            cap_status=422,
            headers=_TEI_HEADERS,
        ),
        "vllm": Dialect(
            ("/rerank", "/v1/rerank", "/v2/rerank"),
            requests.reader(zero_means=None),
            responses.vllm,
            _openai,
        ),
        "vllm-score": Dialect(
            ("/score", "/v1/score"), requests.read_vllm_score, responses.vllm_score, _openai
        ),
        "infinity": Dialect(("/rerank",), requests.reader(), responses.infinity, _openai),
        "llama.cpp": Dialect(
            ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"),
            requests.reader(zero_means=0),
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
            decode=kserve.decode,
            pack=kserve.pack,
            health=("/v2/health/live", "/v2/health/ready"),
        ),
    }
)
"""Dialects by the name of the provider in settings."""
