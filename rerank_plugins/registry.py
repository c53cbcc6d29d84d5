"""Known models as data: what their files do not say, or say wrongly."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Facts about a published cross-encoder.

    `licence` is its SPDX identifier or the name the publisher gives it; `commercial` is False where
    that licence forbids commercial use.
    """

    max_tokens: int
    licence: str
    languages: str = "en"
    commercial: bool = True
    note: str = ""


KNOWN: Mapping[str, KnownModel] = {
    "cross-encoder/ms-marco-TinyBERT-L2-v2": KnownModel(512, "Apache-2.0"),
    "cross-encoder/ms-marco-MiniLM-L2-v2": KnownModel(512, "Apache-2.0"),
    "cross-encoder/ms-marco-MiniLM-L4-v2": KnownModel(512, "Apache-2.0"),
    "cross-encoder/ms-marco-MiniLM-L6-v2": KnownModel(512, "Apache-2.0"),
    "cross-encoder/ms-marco-MiniLM-L12-v2": KnownModel(512, "Apache-2.0"),
    "cross-encoder/ms-marco-electra-base": KnownModel(512, "Apache-2.0"),
    "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1": KnownModel(512, "Apache-2.0", "multilingual"),
    "BAAI/bge-reranker-base": KnownModel(512, "MIT", "en, zh"),
    "BAAI/bge-reranker-large": KnownModel(512, "MIT", "en, zh"),
    "BAAI/bge-reranker-v2-m3": KnownModel(
        8192, "Apache-2.0", "multilingual", note="publisher's default of 512 is for speed only"
    ),
    "mixedbread-ai/mxbai-rerank-xsmall-v1": KnownModel(512, "Apache-2.0"),
    "mixedbread-ai/mxbai-rerank-base-v1": KnownModel(512, "Apache-2.0"),
    "mixedbread-ai/mxbai-rerank-large-v1": KnownModel(512, "Apache-2.0"),
    "Alibaba-NLP/gte-reranker-modernbert-base": KnownModel(8192, "Apache-2.0"),
    "jinaai/jina-reranker-v2-base-multilingual": KnownModel(
        1024, "CC-BY-NC-4.0", "multilingual", commercial=False
    ),
    "jinaai/jina-reranker-v3": KnownModel(
        131072,
        "CC-BY-NC-4.0",
        "multilingual",
        commercial=False,
        note="listwise: scores compare within one call only; use it through its API",
    ),
}
