"""A LangChain document compressor over a shared engine."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from rerank_plugins import Candidate, Result
from rerank_plugins.serving.adapter_support import copied, facts, hit_facts, metadata_of, prior
from rerank_plugins.serving.shared_engine import (
    ComponentOptions,
    SharedReranker,
    shared_reranker,
)

from .runs import arun, run


class RerankPluginsCompressor(BaseDocumentCompressor):
    """Orders documents by how well they answer the query.

    The engine is loaded at first use and shared by every compressor with the same settings;
    documents of the input are never changed. Where the engine fails, the retriever's order is kept
    with scores of None, unless `strict`.

    >>> compressor = RerankPluginsCompressor(top_n=3)               # the embedded model
    >>> compressor = RerankPluginsCompressor(model="cross-encoder/ms-marco-MiniLM-L6-v2")
    >>> retriever = ContextualCompressionRetriever(                 # doctest: +SKIP
    ...     base_compressor=compressor, base_retriever=base
    ... )
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        protected_namespaces=(),
        validate_assignment=True,
    )

    model: str = Field(
        default="embedded", description='"embedded", "lexical", a hub id, a folder, an .onnx file'
    )
    config: str | dict[str, Any] | None = Field(
        default=None, description="path of a settings file, or settings; instead of a model"
    )
    top_n: int | None = Field(
        default=3, ge=1, description="documents returned; None: all, or what config says"
    )
    score_key: str = Field(default="relevance_score", description="metadata key for the score")
    prior_key: str | None = Field(
        default=None,
        description="metadata key of the retriever's score, higher is better; None: there is none",
    )
    facts_key: str | None = Field(
        default=None,
        description="metadata key for what the engine says about document and request",
    )
    budget_ms: float | None = Field(
        default=None, gt=0.0, description="milliseconds a request may take; None: no limit"
    )
    strict: bool | None = Field(
        default=None, description="raise where the result would be degraded; None: config's"
    )
    prior_weight: float | None = Field(
        default=None, ge=0.0, le=1.0, description="weight of the retriever's scores; None: card's"
    )
    depth: int | None = Field(
        default=None, ge=1, description="documents scored, at most; None: all"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="tokens a pair; None: what the model takes"
    )
    precision: Literal["auto", "fp32", "int8"] | None = Field(
        default=None, description="which of a model's graphs to prefer"
    )
    provider: str | None = Field(default=None, description="ONNX Runtime execution provider")
    revision: str | None = Field(default=None, description="hub revision; pin a commit")
    local_files_only: bool = Field(default=False, description="never ask the hub")

    _shared: SharedReranker | None = PrivateAttr(default=None)

    @field_validator("model", "config", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, PurePath) else value

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what no request could be answered with: wrong settings, a path to nothing."""
        super().model_post_init(context)
        shared_reranker(ComponentOptions.of(self)).check()

    @model_validator(mode="before")
    @classmethod
    def _let_config_decide(cls, data: Any) -> Any:
        """Let a config decide how many documents are returned."""
        if isinstance(data, dict) and data.get("config") is not None:
            return {"top_n": None, **data}
        return data

    def warm_up(self) -> None:
        """Load the model and run real shapes, so that the first request is as fast as the next."""
        self._engine().warm_up()

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best `top_n` documents, best first, with their scores in the metadata."""
        documents = list(documents)
        if not documents:
            return []
        with run(callbacks, query, documents) as outcome:
            result = self._engine().rerank(
                query,
                self._candidates(documents),
                top_k=self.top_n,
                budget_ms=self.budget_ms,
                strict=self.strict,
            )
            outcome.documents, outcome.facts = self._answer(documents, result)
        return outcome.documents

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Do what `compress_documents` does without blocking the event loop."""
        documents = list(documents)
        if not documents:
            return []
        async with arun(callbacks, query, documents) as outcome:
            result = await self._engine().arerank(
                query,
                self._candidates(documents),
                top_k=self.top_n,
                budget_ms=self.budget_ms,
                strict=self.strict,
            )
            outcome.documents, outcome.facts = self._answer(documents, result)
        return outcome.documents

    def rerank(
        self,
        documents: Sequence[str | Document | dict[str, Any]],
        query: str,
        *,
        top_n: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return positions and scores, best first, as the Cohere integration's `rerank` does.

        A dict's text is its values, joined by newlines. `top_n` None is the compressor's own.
        """
        documents = list(documents)
        if not documents:
            return []
        result = self._engine().rerank(
            query,
            [self._candidate(document) for document in documents],
            top_k=top_n if top_n is not None else self.top_n,
            budget_ms=self.budget_ms,
            strict=self.strict,
        )
        return [{"index": hit.index, "relevance_score": hit.relevance} for hit in result]

    def as_runnable(self) -> Runnable[dict[str, Any], list[Document]]:
        """Return a runnable from {"documents": ..., "query": ...} to documents, for chains."""

        def compress(data: dict[str, Any], config: RunnableConfig) -> list[Document]:
            callbacks = config.get("callbacks")
            return list(self.compress_documents(data["documents"], data["query"], callbacks))

        async def acompress(data: dict[str, Any], config: RunnableConfig) -> list[Document]:
            callbacks = config.get("callbacks")
            return list(await self.acompress_documents(data["documents"], data["query"], callbacks))

        return RunnableLambda(compress, afunc=acompress, name="rerank")

    def _engine(self) -> SharedReranker:
        self._shared = shared_reranker(ComponentOptions.of(self), self._shared)
        return self._shared

    def _candidates(self, documents: Sequence[Document]) -> list[Candidate]:
        return [self._candidate(document) for document in documents]

    def _candidate(self, document: str | Document | dict[str, Any]) -> Candidate:
        if isinstance(document, Document):
            score = document.metadata.get(self.prior_key) if self.prior_key is not None else None
            return Candidate(document.page_content, prior(score), document.metadata)
        if isinstance(document, dict):
            text = "\n".join(str(value) for value in document.values())
            return Candidate(text, metadata=metadata_of(document))
        return Candidate(document)

    def _answer(
        self, documents: Sequence[Document], result: Result
    ) -> tuple[list[Document], dict[str, Any]]:
        request = facts(result)
        answer = []
        for hit in result:
            found = documents[hit.index]
            added: dict[str, Any] = {self.score_key: hit.relevance}
            if self.facts_key is not None:
                added[self.facts_key] = {**hit_facts(hit), **request}
            metadata = {**{key: copied(value) for key, value in found.metadata.items()}, **added}
            answer.append(found.model_copy(update={"metadata": metadata}))
        return answer, request
