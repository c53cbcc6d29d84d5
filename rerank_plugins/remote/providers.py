"""All supported providers as one table: address, dialect, caps, and what their scores are.

Dialects, limits and traps were read from the providers' documentation, their SDKs and the servers'
sources; `docs/remote.md` lists what differs where.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from ..scoring import ScoreKind
from .dialects.bedrock import BedrockDialect
from .dialects.json_body import Dialect, JsonDialect
from .dialects.kserve import KServeDialect

Auth: TypeAlias = Literal["bearer", "api-key", "aws"]
_UNIT = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Caps:
    """What one call may hold; None means no limit.

    tokens: (query tokens x n + document tokens), which are estimated
    text_bytes: UTF-8 bytes of all documents, and once a document the query and `overhead_bytes`
    document_chars: longer documents are cut here, and counted
    """

    documents: int | None = 1000
    tokens: int | None = None
    text_bytes: int | None = None
    overhead_bytes: int = 0
    document_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of the table.

    path, base_url: may name {model}, {project} and {location}
    key_env: environment variable of the key, unless the operator names another source
    key_needed: False for servers that operators run themselves
    echoes_model: the answer names the model that was asked, so another name is another model
    listwise_limits: models (by the start of their name) that score candidates relative to each
        other, and how many at once; their calls are never split
    url_by_key: base URLs of keys, by the start of the key
    poll_url: where a 202 is followed up
    instruction: the body's field for an instruction; None: it goes in front of the query
    tensors: takes tensors, no text
    """

    path: str
    dialect: Dialect
    base_url: str | None = None
    key_env: str | None = None
    key_needed: bool = True
    auth: Auth = "bearer"
    headers: Mapping[str, str] = field(default_factory=dict)
    caps: Caps = field(default_factory=Caps)
    score_kind: ScoreKind = "vendor"
    score_range: tuple[float, float] | None = None
    echoes_model: bool = False
    listwise_limits: Mapping[str, int] = field(default_factory=dict)
    url_by_key: Mapping[str, str] = field(default_factory=dict)
    poll_url: str | None = None
    instruction: str | None = None
    tensors: bool = False


_COHERE_V2 = JsonDialect(
    tokens=("meta", "tokens", "input_tokens"), billed_units=("meta", "billed_units", "search_units")
)

_COHERE_V1 = replace(_COHERE_V2, fixed={"return_documents": False})

_COHERE = Provider(
    "/v2/rerank",
    _COHERE_V2,
    base_url="https://api.cohere.com",
    key_env="COHERE_API_KEY",
    score_kind="probability",
    score_range=_UNIT,
)

_PLAIN = JsonDialect(fixed={"return_documents": False})

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "cohere": _COHERE,
        "cohere-v1": replace(_COHERE, path="/v1/rerank", dialect=_COHERE_V1),
        "azure": replace(
            _COHERE, path="/providers/cohere/v2/rerank", base_url=None, key_env="AZURE_API_KEY"
        ),
        "azure-v1": replace(
            _COHERE, path="/v1/rerank", dialect=_COHERE_V1, base_url=None, key_env="AZURE_API_KEY"
        ),
        "jina": Provider(
            "/v1/rerank",
            _PLAIN,
            base_url="https://api.jina.ai",
            key_env="JINA_API_KEY",
            echoes_model=True,
            listwise_limits={"jina-reranker-v3": 64},
        ),
        "voyage": Provider(
            "/rerank",
            JsonDialect(
                top_n="top_k",
                fixed={"return_documents": False, "truncation": True},
                results=("data",),
                header_ms={"remote": "voyage-processing-ms"},
            ),
            base_url="https://api.voyageai.com/v1",
            key_env="VOYAGE_API_KEY",
            url_by_key={"al-": "https://ai.mongodb.com/v1"},
            caps=Caps(documents=1000, tokens=600_000),
            score_range=_UNIT,
            echoes_model=True,
        ),
        "mixedbread": Provider(
            "/v1/reranking",
            JsonDialect(
                documents="input",
                top_n="top_k",
                fixed={"return_input": False},
                results=("data",),
                scores=("score",),
            ),
            base_url="https://api.mixedbread.com",
            key_env="MXBAI_API_KEY",
            echoes_model=True,
        ),
        "zeroentropy": Provider(
            "/models/rerank",
            JsonDialect(
                tokens=("total_tokens",),
                # Unset, a call over quota silently becomes one that takes ten seconds.
                with_deadline={"latency": "fast"},
                seconds={"remote": ("e2e_latency",), "remote_inference": ("inference_latency",)},
            ),
            base_url="https://api.zeroentropy.dev/v1",
            key_env="ZEROENTROPY_API_KEY",
            caps=Caps(documents=1000, text_bytes=5_000_000, overhead_bytes=150),
            score_kind="probability",
            score_range=_UNIT,
        ),
        "pinecone": Provider(
            "/rerank",
            JsonDialect(
                wrap_document="text",
                fixed={"return_documents": False, "rank_fields": ["text"]},
                results=("data",),
                scores=("score",),
                tokens=(),
                billed_units=("usage", "rerank_units"),
            ),
            base_url="https://api.pinecone.io",
            key_env="PINECONE_API_KEY",
            auth="api-key",
            headers={"x-pinecone-api-version": "2026-07"},
            caps=Caps(documents=100),
            echoes_model=True,
        ),
        "bedrock": Provider(
            "/rerank",
            BedrockDialect(),
            base_url="https://bedrock-agent-runtime.{location}.amazonaws.com",
            auth="aws",
            key_needed=False,
            caps=Caps(documents=1000, document_chars=32_000),
            score_kind="probability",
            score_range=_UNIT,
        ),
        "bedrock-invoke": Provider(
            "/model/{model}/invoke",
            JsonDialect(model=None, fixed={"api_version": 2}, tokens=()),
            base_url="https://bedrock-runtime.{location}.amazonaws.com",
            auth="aws",
            key_needed=False,
            score_kind="probability",
            score_range=_UNIT,
        ),
        "google": Provider(
            "/v1/projects/{project}/locations/{location}/rankingConfigs/default_ranking_config:rank",
            JsonDialect(
                documents="records",
                wrap_document="content",
                document_id="id",
                top_n="topN",
                fixed={"ignoreRecordDetailsInResponse": True},
                results=("records",),
                index="id",
                scores=("score",),
                tokens=(),
            ),
            base_url="https://discoveryengine.googleapis.com",
            key_env="GOOGLE_ACCESS_TOKEN",
            headers={"x-goog-user-project": "{project}"},
            caps=Caps(documents=200),
            score_kind="probability",
            score_range=_UNIT,
        ),
        "nvidia": Provider(
            "/v1/ranking",
            JsonDialect(
                wrap_query="text",
                documents="passages",
                wrap_document="text",
                # The field is rejected by self-hosted servers; all passages come back anyway.
                top_n=None,
                # The default, NONE, answers over-long passages with an error.
                fixed={"truncate": "END"},
                results=("rankings",),
                scores=("logit",),
            ),
            key_env="NVIDIA_API_KEY",
            key_needed=False,
            caps=Caps(documents=512),
            score_kind="logit",
            poll_url="https://api.nvcf.nvidia.com/v2/nvcf/pexec/status/",
        ),
        "tei": Provider(
            "/rerank",
            JsonDialect(
                documents="texts",
                top_n=None,
                model=None,
                fixed={"truncate": True, "raw_scores": False, "return_text": False},
                results=(),
                scores=("score",),
                tokens=(),
                header_ms={
                    "remote": "x-total-time",
                    "remote_queue": "x-queue-time",
                    "remote_tokenise": "x-tokenization-time",
                    "remote_inference": "x-inference-time",
                },
            ),
            key_env="TEI_API_KEY",
            key_needed=False,
            caps=Caps(documents=32, text_bytes=1_500_000),
            score_kind="probability",
            score_range=_UNIT,
        ),
        "vllm": Provider(
            "/v2/rerank",
            # -1: as many tokens as the model takes. Without it over-long passages are an error.
            JsonDialect(fixed={"truncate_prompt_tokens": -1}),
            key_env="VLLM_API_KEY",
            key_needed=False,
            echoes_model=True,
            instruction="instruction",
        ),
        "vllm-score": Provider(
            "/v1/score",
            JsonDialect(
                query="text_1",
                documents="text_2",
                top_n=None,
                fixed={"truncate_prompt_tokens": -1},
                results=("data",),
                scores=("score",),
            ),
            key_env="VLLM_API_KEY",
            key_needed=False,
            echoes_model=True,
        ),
        "infinity": Provider(
            "/rerank",
            replace(_PLAIN, fixed={"return_documents": False, "raw_scores": False}),
            key_env="INFINITY_API_KEY",
            key_needed=False,
            score_kind="probability",
            score_range=_UNIT,
            echoes_model=True,
        ),
        "llama.cpp": Provider(
            "/v1/rerank",
            JsonDialect(),
            key_env="LLAMA_API_KEY",
            key_needed=False,
            score_kind="logit",
        ),
        "triton": Provider(
            "/v2/models/{model}/infer",
            KServeDialect(),
            key_env="TRITON_API_KEY",
            key_needed=False,
            caps=Caps(documents=64),
            score_kind="logit",
            echoes_model=True,
            tensors=True,
        ),
        "compatible": Provider(
            "/v2/rerank",
            JsonDialect(results=("results", "data"), scores=("relevance_score", "score")),
            key_env="RERANK_API_KEY",
            key_needed=False,
        ),
    }
)
"""Providers by the name that settings give them; "compatible" is any URL with Cohere's API."""
