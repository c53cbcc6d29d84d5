"""A Haystack ranker over a shared engine."""

import asyncio
import inspect
from pathlib import PurePath
from typing import Any, Literal

from haystack import Document, component, default_from_dict, default_to_dict, logging
from haystack.utils import Secret

from rerank_plugins import Candidate
from rerank_plugins.serving.adapter_support import counted, facts
from rerank_plugins.serving.shared_engine import (
    ComponentOptions,
    ModelUnavailable,
    SharedReranker,
    shared_reranker,
)

from .mapping import OutputOptions, candidates, checked, distinct, documents_of, variable

logger = logging.getLogger(__name__)

_HUB_TOKEN = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)


@component
class RerankPluginsRanker:
    """
    Orders documents by how well they answer the query.

    The engine is loaded by `warm_up` and shared by every ranker with the same settings, so that
    pipelines need not load a model each. Documents of the input are never changed. Where the engine
    fails, the retriever's order is kept with scores of None, unless `strict`; the output `meta`
    says so.

    Usage example:

    ```python
    from haystack import Document
    from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker

    ranker = RerankPluginsRanker(model="lexical", top_k=1)
    docs = [Document(content="Paris"), Document(content="Berlin is in Germany")]
    print(ranker.run(query="berlin germany", documents=docs)["documents"][0].content)
    # Berlin is in Germany
    ```
    """

    def __init__(  # noqa: PLR0913 - a component's options are its parameters
        self,
        model: str | PurePath = "embedded",
        *,
        config: str | PurePath | dict[str, Any] | None = None,
        top_k: int | None = 10,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        score_threshold: float | None = None,
        budget_ms: float | None = None,
        strict: bool | None = None,
        prior_weight: float | None = None,
        depth: int | None = None,
        max_tokens: int | None = None,
        precision: Literal["auto", "fp32", "int8"] | None = None,
        provider: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: Secret | None = _HUB_TOKEN,
    ) -> None:
        """
        Create a ranker; nothing is loaded before `warm_up`, and wrong options are refused now.

        :param model:
            "embedded", "lexical", a hub id, a folder, or an .onnx file.
        :param config:
            Path of a settings file, or settings; instead of a model.
        :param top_k:
            Documents returned. None: all, or what `config` says.
        :param meta_fields_to_embed:
            Metadata that the model reads before the content.
        :param embedding_separator:
            What joins metadata and content.
        :param score_threshold:
            Leave out documents with a lower score.
        :param budget_ms:
            Milliseconds a request may take. None: no limit.
        :param strict:
            Raise where the result would be degraded. None: what `config` says.
        :param prior_weight:
            Weight of the retriever's scores, 0 to 1. None: the model card's.
        :param depth:
            Documents scored, at most. None: all.
        :param max_tokens:
            Tokens a pair. None: what the model takes.
        :param precision:
            Which of a model's graphs to prefer.
        :param provider:
            ONNX Runtime execution provider.
        :param revision:
            Hub revision; pin a commit.
        :param local_files_only:
            Never ask the hub.
        :param token:
            Environment variables with a hub token; the first that is set is used.

        :raises ValueError:
            If `top_k` is not positive, `config` is wrong or given together with a model's options.
        :raises RerankError:
            If `model` is neither a file, nor a folder, nor a hub id.
        """
        self.model = str(model)
        self.config = str(config) if isinstance(config, PurePath) else config
        self.top_k = checked(top_k)
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.score_threshold = score_threshold
        self.budget_ms = budget_ms
        self.strict = strict
        self.prior_weight = prior_weight
        self.depth = depth
        self.max_tokens = max_tokens
        self.precision = precision
        self.provider = provider
        self.revision = revision
        self.local_files_only = local_files_only
        self.token = token
        self._shared: SharedReranker | None = None
        # Without the token, which may be missing where a pipeline is only put together.
        shared_reranker(ComponentOptions.of(self)).check()

    def to_dict(self) -> dict[str, Any]:
        """
        Serialize the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        _, *names = inspect.signature(RerankPluginsRanker.__init__).parameters
        return default_to_dict(self, **{name: getattr(self, name) for name in names})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RerankPluginsRanker":
        """
        Deserialize the component from a dictionary.

        :param data:
            Dictionary to deserialize from.
        :returns:
            Deserialized component.
        """
        return default_from_dict(cls, data)

    def warm_up(self) -> None:
        """
        Load the model and run real shapes; idempotent.

        A model that cannot be had now, but may be later, is logged, and raised if `strict`. Any
        other error is raised.
        """
        try:
            self._engine().warm_up()
        except ModelUnavailable as error:
            if self.strict:
                raise
            logger.warning("the model cannot be loaded: {error}", error=error)

    async def warm_up_async(self) -> None:
        """Load the model without blocking the event loop."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Release the engine, which ends with its last holder."""
        if self._shared is not None:
            self._shared.close()
        self._shared = None

    async def close_async(self) -> None:
        """Release the engine, which ends with its last holder."""
        await asyncio.to_thread(self.close)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(
        self,
        query: str,
        documents: list[Document],
        *,
        top_k: int | None = None,
        score_threshold: float | None = None,
        budget_ms: float | None = None,
    ) -> dict[str, Any]:
        """
        Order documents by how well they answer the query.

        :param query:
            The query.
        :param documents:
            Documents in the retriever's order; of duplicates the one with the best score is kept.
        :param top_k:
            Overrides the component's own.
        :param score_threshold:
            Overrides the component's own.
        :param budget_ms:
            Overrides the component's own.
        :returns:
            `documents`, best first, and `meta`: degraded, decisions, timings_ms, usage.
        :raises ValueError:
            If `top_k` is not positive or the query is blank.
        """
        output = self._output(top_k=top_k, score_threshold=score_threshold)
        documents = list(documents)
        found = distinct(documents)
        with counted(type(self).__name__):
            result = self._engine().rerank(
                query,
                self._candidates(documents, found),
                top_k=output.engine_top_k,
                budget_ms=self.budget_ms if budget_ms is None else budget_ms,
                strict=self.strict,
            )
        return {"documents": documents_of(found, result, output), "meta": facts(result)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        *,
        top_k: int | None = None,
        score_threshold: float | None = None,
        budget_ms: float | None = None,
    ) -> dict[str, Any]:
        """Do what `run` does, with its parameters, without blocking the event loop."""
        # Tracers wrap both methods: calling run from here would count one reranking twice.
        output = self._output(top_k=top_k, score_threshold=score_threshold)
        documents = list(documents)
        found = distinct(documents)
        with counted(type(self).__name__):
            result = await self._engine().arerank(
                query,
                self._candidates(documents, found),
                top_k=output.engine_top_k,
                budget_ms=self.budget_ms if budget_ms is None else budget_ms,
                strict=self.strict,
            )
        return {"documents": documents_of(found, result, output), "meta": facts(result)}

    def _output(self, *, top_k: int | None, score_threshold: float | None) -> OutputOptions:
        return OutputOptions(
            self.top_k if top_k is None else checked(top_k),
            self.score_threshold if score_threshold is None else score_threshold,
        )

    def _candidates(self, documents: list[Document], kept: list[Document]) -> list[Candidate]:
        return candidates(documents, kept, self.meta_fields_to_embed, self.embedding_separator)

    def _engine(self) -> SharedReranker:
        if self._shared is None:
            token_env = variable(self.token) if self.config is None else None
            self._shared = shared_reranker(ComponentOptions.of(self, token_env=token_env))
        return self._shared
