"""Known models as data: facts that their files lack, and how decoders are asked.

`KNOWN` fills the documentation and the doctor, and gives a decoder its prompt and its limit.
`PROMPTS` is read at run time: a decoder's chat template is part of its scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

Family: TypeAlias = Literal["encoder", "decoder", "listwise"]
"""A cross-encoder; a language model asked about each pair; or one that reads all candidates."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a decoder is asked about a pair: its chat template, in parts.

    Each part is tokenised alone, as the publisher's code does.

    before, after: what surrounds query and passage.
    query_parts: what precedes the passage, with {query}.
    instruction_parts: the same for an instruction, with {query} and {instruction}.
    answers: the token for "irrelevant" and the token for "relevant".
    instruction: the publisher's default, "" where there is none.
    """

    before: tuple[str, ...]
    query_parts: tuple[str, ...]
    instruction_parts: tuple[str, ...]
    after: tuple[str, ...]
    answers: tuple[str, str]
    instruction: str = ""

    def ask(self, query: str) -> list[str]:
        """Return what stands between `before` and the passage, which follows a space."""
        parts = self.instruction_parts if self.instruction else self.query_parts
        return [part.format(query=query, instruction=self.instruction) for part in parts]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Facts about a published reranker.

    licence: its SPDX identifier or the publisher's name for it.
    commercial: False where the licence forbids commercial use.
    millions: parameters of the checkpoint.
    layer_millions: parameters that every token passes through, which decide the time; embedding
        tables and a decoder's unused vocabulary are not among them.
    template: the decoder's prompt in `PROMPTS`.

    Parameters are counted from the published configurations and agree with the file sizes.
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
        query_parts=("<Query>: {query}\n<Document>:",),
        instruction_parts=("<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",),
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
        query_parts=("query: {query}", "\n", "document:"),
        instruction_parts=("instruction: {instruction}\nquery: {query}", "\n", "document:"),
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


_DECODER = partial(KnownModel, 32768, "Apache-2.0", languages="over 100", family="decoder")
_QWEN3 = partial(
    _DECODER,
    note="takes an instruction; the publisher's own code cuts at 8192",
    template="qwen3-reranker",
)
_MXBAI2 = partial(
    _DECODER,
    note="takes an instruction; the publisher recommends up to 8192 and cuts there",
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
    "Qwen/Qwen3-Reranker-0.6B": _QWEN3(596, 440),
    "Qwen/Qwen3-Reranker-4B": _QWEN3(4022, 3633),
    "Qwen/Qwen3-Reranker-8B": _QWEN3(8190, 6946),
    "mixedbread-ai/mxbai-rerank-base-v2": _MXBAI2(494, 358),
    "mixedbread-ai/mxbai-rerank-large-v2": _MXBAI2(1544, 1310),
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
