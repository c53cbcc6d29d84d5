"""A LlamaIndex node postprocessor over a shared engine."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
)

from rerank_plugins import Candidate, Hit, Result
from rerank_plugins.serving.adapter_support import (
    counted,
    facts,
    hit_facts,
    merged,
    metadata_of,
    prior,
)
from rerank_plugins.serving.shared_engine import (
    ComponentOptions,
    SharedReranker,
    shared_reranker,
)

dispatcher = get_dispatcher(__name__)

_RETRIEVAL_SCORE = "retrieval_score"


class RerankEndEvent(ReRankEndEvent):
    """The end of a reranking, and what the engine says about it.

    `facts` holds request_id, model, degraded, decisions, timings_ms and usage; it is empty where
    reranking raised.
    """

    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(slots=True)
class _Outcome:
    nodes: list[NodeWithScore] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class RerankPluginsRerank(BaseNodePostprocessor):
    """Orders nodes by how well they answer the query.

    The engine is loaded at first use and shared by every postprocessor with the same settings;
    nodes of the input are never changed. Where the engine fails, the retriever's order is kept
    with scores of None, unless `strict`.

    >>> rerank = RerankPluginsRerank(top_n=3)                       # the embedded model
    >>> rerank = RerankPluginsRerank(model="cross-encoder/ms-marco-MiniLM-L6-v2")
    >>> engine = index.as_query_engine(node_postprocessors=[rerank])    # doctest: +SKIP
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
        default=2, ge=1, description="nodes returned; None: all, or what config says"
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="which metadata the model reads with the text"
    )
    keep_retrieval_score: bool = Field(
        default=False, description="copy the retriever's score to metadata['retrieval_score']"
    )
    facts_key: str | None = Field(
        default=None, description="metadata key for what the engine says about node and request"
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
    depth: int | None = Field(default=None, ge=1, description="nodes scored, at most; None: all")
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
    def _accept_own_dump(cls, data: Any) -> Any:
        """Accept the output of `to_dict`, and let a config decide how many nodes are returned."""
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if name != "class_name"}
        if data.get("config") is not None:
            data.setdefault("top_n", None)
        return data

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class in serialised data."""
        return "RerankPluginsRerank"

    def warm_up(self) -> None:
        """Load the model and run real shapes, so that the first request is as fast as the next."""
        self._engine().warm_up()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        if not nodes:
            return []
        query = _text_of(query_bundle)
        with self._reported(nodes, query_bundle) as outcome, counted(self.class_name()):
            result = self._engine().rerank(
                query,
                self._candidates(nodes),
                top_k=self.top_n,
                budget_ms=self.budget_ms,
                strict=self.strict,
            )
            self._answer(outcome, nodes, result)
        return outcome.nodes

    # The base class's mixin decorates implementations of abstract methods; this is not one.
    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        if not nodes:
            return []
        query = _text_of(query_bundle)
        with self._reported(nodes, query_bundle) as outcome, counted(self.class_name()):
            result = await self._engine().arerank(
                query,
                self._candidates(nodes),
                top_k=self.top_n,
                budget_ms=self.budget_ms,
                strict=self.strict,
            )
            self._answer(outcome, nodes, result)
        return outcome.nodes

    def _engine(self) -> SharedReranker:
        self._shared = shared_reranker(ComponentOptions.of(self), self._shared)
        return self._shared

    def _candidates(self, nodes: Sequence[NodeWithScore]) -> list[Candidate]:
        """Return nodes as candidates; what one says of its content holds for all that share it."""
        twins: defaultdict[str, list[Mapping[str, object] | None]] = defaultdict(list)
        contents = [_content(found.node) for found in nodes]
        for content, found in zip(contents, nodes, strict=True):
            twins[content].append(_metadata(found.node))
        return [
            Candidate(
                found.node.get_content(metadata_mode=self.metadata_mode),
                prior(found.score),
                merged(twins[content]),
            )
            for content, found in zip(contents, nodes, strict=True)
        ]

    @contextmanager
    def _reported(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[_Outcome]:
        """Emit a start and an end, of both kinds of event, whatever happens in between."""
        top_n = self.top_n or len(nodes)
        model_name = self._engine().model
        outcome = _Outcome()
        dispatcher.event(
            ReRankStartEvent(
                query=query_bundle, nodes=list(nodes), top_n=top_n, model_name=model_name
            )
        )
        try:
            with self.callback_manager.event(
                CBEventType.RERANKING,
                payload={
                    EventPayload.NODES: list(nodes),
                    EventPayload.MODEL_NAME: model_name,
                    EventPayload.QUERY_STR: _text_of(query_bundle),
                    EventPayload.TOP_K: top_n,
                },
            ) as event:
                yield outcome
                event.on_end(payload={EventPayload.NODES: outcome.nodes})
        finally:
            dispatcher.event(RerankEndEvent(nodes=outcome.nodes, facts=outcome.facts))

    def _answer(self, outcome: _Outcome, nodes: Sequence[NodeWithScore], result: Result) -> None:
        outcome.facts = facts(result)
        for hit in result:
            found = nodes[hit.index]
            node = self._annotated(found, hit, outcome.facts)
            outcome.nodes.append(NodeWithScore(node=node, score=hit.relevance))

    def _annotated(self, found: NodeWithScore, hit: Hit, request: dict[str, Any]) -> BaseNode:
        """Return a copy with the wanted metadata, which embedding models and LLMs do not see."""
        added: dict[str, Any] = {}
        if self.keep_retrieval_score:
            added[_RETRIEVAL_SCORE] = found.score
        if self.facts_key is not None:
            added[self.facts_key] = {**hit_facts(hit), **request}
        node = found.node
        if not added:
            return node
        return node.model_copy(
            update={
                "metadata": {**node.metadata, **added},
                "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *added],
                "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *added],
            }
        )


def _text_of(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        message = "there is no query; expected one: pass query_str or query_bundle with the nodes"
        raise ValueError(message)
    return query_bundle.query_str


def _content(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE) or node.node_id


def _metadata(node: BaseNode) -> Mapping[str, object] | None:
    """Return a node's metadata, with those of the document it was cut from."""
    source = node.relationships.get(NodeRelationship.SOURCE)
    if not isinstance(source, RelatedNodeInfo):
        return node.metadata
    return metadata_of({"metadata": node.metadata, "meta": source.metadata})
