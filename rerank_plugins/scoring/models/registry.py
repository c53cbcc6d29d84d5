"""Known models as data: what their files do not say, or say wrongly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Family: TypeAlias = Literal["encoder", "decoder", "listwise"]
"""Reads a pair and scores it; is asked about a pair; or reads all candidates at once."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a decoder is asked about a pair: what stands around it, and the two answers it weighs.

    Each part is tokenised on its own, as the publisher's code does. `asked` and `told` (with an
    instruction) go in front of the passage, and name {query} and {instruction}; `answers` are the
    irrelevant and the relevant one. `instruction` is the publisher's, "" where there is none.
    """

    before: tuple[str, ...]
    asked: tuple[str, ...]
    told: tuple[str, ...]
    after: tuple[str, ...]
    answers: tuple[str, str]
    instruction: str = ""

    def ask(self, query: str) -> list[str]:
        """Lay out what stands between `before` and the passage, which follows a space."""
        parts = self.told if self.instruction else self.asked
        return [part.format(query=query, instruction=self.instruction) for part in parts]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Facts about a published reranker.

    `licence` is its SPDX identifier or the name the publisher gives it; `commercial` is False where
    that licence forbids commercial use. `millions` counts the parameters of its checkpoint,
    `layer_millions` those that every token passes through, which decide its time; the rest is
    looked up (the tables of embeddings) or unused (a decoder's other words). Both are counted from
    the published configurations and agree with the sizes of the published files.
    `template` names the prompt of a decoder.
    """

    max_tokens: int
    licence: str
    millions: int
    layer_millions: float
    languages: str = "en"
    commercial: bool = True
    note: str = ""
    family: Family = "encoder"
    template: str | None = None


PROMPTS: Mapping[str, Prompt] = {
    "qwen3-reranker": Prompt(
        before=(
            (
                "<|im_start|>system\nJudge whether the Document meets the requirements based on "
                "the Query and the Instruct provided. Note that the answer can only be "
                '"yes" or "no".<|im_end|>\n<|im_start|>user\n'
            ),
        ),
        asked=("<Query>: {query}\n<Document>:",),
        told=("<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",),
        after=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
        answers=("no", "yes"),
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
    "mxbai-rerank-v2": Prompt(
        before=(
            (
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
                "assistant.<|im_end|>\n<|im_start|>user\n"
            ),
        ),
        asked=("query: {query}", "\n", "document:"),
        told=("instruction: {instruction}\nquery: {query}", "\n", "document:"),
        after=(
            "\n",
            (
                "You are a search relevance expert who evaluates how well documents match search "
                "queries. For each query-document pair, carefully analyze the semantic "
                "relationship between them, then provide your binary relevance judgment (0 for not "
                "relevant, 1 for relevant).\nRelevance:"
            ),
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        answers=("0", "1"),
    ),
}


def _qwen3(millions: int, layer_millions: float) -> KnownModel:
    return KnownModel(
        32768,
        "Apache-2.0",
        millions,
        layer_millions,
        "over 100",
        note="takes an instruction; the publisher's own code cuts at 8192",
        family="decoder",
        template="qwen3-reranker",
    )


def _mxbai2(millions: int, layer_millions: float) -> KnownModel:
    return KnownModel(
        32768,
        "Apache-2.0",
        millions,
        layer_millions,
        "over 100",
        note="takes an instruction; the publisher recommends up to 8192 and cuts there",
        family="decoder",
        template="mxbai-rerank-v2",
    )


KNOWN: Mapping[str, KnownModel] = {
    "cross-encoder/ms-marco-TinyBERT-L2-v2": KnownModel(512, "Apache-2.0", 4, 0.4),
    "cross-encoder/ms-marco-MiniLM-L2-v2": KnownModel(512, "Apache-2.0", 16, 3.5),
    "cross-encoder/ms-marco-MiniLM-L4-v2": KnownModel(512, "Apache-2.0", 19, 7.1),
    "cross-encoder/ms-marco-MiniLM-L6-v2": KnownModel(512, "Apache-2.0", 23, 10.6),
    "cross-encoder/ms-marco-MiniLM-L12-v2": KnownModel(512, "Apache-2.0", 33, 21.3),
    "cross-encoder/ms-marco-electra-base": KnownModel(512, "Apache-2.0", 109, 85),
    "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1": KnownModel(512, "Apache-2.0", 118, 21.3, "15"),
    "BAAI/bge-reranker-base": KnownModel(512, "MIT", 278, 85, "en, zh"),
    "BAAI/bge-reranker-large": KnownModel(512, "MIT", 560, 302, "en, zh"),
    "BAAI/bge-reranker-v2-m3": KnownModel(
        8192,
        "Apache-2.0",
        568,
        302,
        "multilingual",
        note="the publisher's default of 512 is for speed only",
    ),
    "mixedbread-ai/mxbai-rerank-xsmall-v1": KnownModel(512, "Apache-2.0", 71, 21.3),
    "mixedbread-ai/mxbai-rerank-base-v1": KnownModel(512, "Apache-2.0", 184, 85),
    "mixedbread-ai/mxbai-rerank-large-v1": KnownModel(512, "Apache-2.0", 435, 302),
    "Alibaba-NLP/gte-reranker-modernbert-base": KnownModel(8192, "Apache-2.0", 150, 110),
    "jinaai/jina-reranker-v2-base-multilingual": KnownModel(
        1024, "CC-BY-NC-4.0", 278, 85, "multilingual", commercial=False
    ),
    "Qwen/Qwen3-Reranker-0.6B": _qwen3(596, 440),
    "Qwen/Qwen3-Reranker-4B": _qwen3(4022, 3633),
    "Qwen/Qwen3-Reranker-8B": _qwen3(8190, 6946),
    "mixedbread-ai/mxbai-rerank-base-v2": _mxbai2(494, 358),
    "mixedbread-ai/mxbai-rerank-large-v2": _mxbai2(1544, 1310),
    "jinaai/jina-reranker-v3": KnownModel(
        131072,
        "CC-BY-NC-4.0",
        597,
        441,
        "multilingual",
        commercial=False,
        note="listwise, at most 64 candidates a call: scores compare within it only; use its API",
        family="listwise",
    ),
}
