"""What LangChain demands of a document compressor and of a cross-encoder."""

import asyncio
import inspect
import json
import math
from typing import Any
from uuid import UUID

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import (
    CrossEncoderReranker,
    DocumentCompressorPipeline,
)
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import create_retriever_tool, tool
from langchain_rerank_plugins import RerankPluginsCompressor, RerankPluginsCrossEncoder

from rerank_plugins import RerankError

QUERY = "how do foxes hunt"
TEXTS = ["The market fell.", "Foxes hunt mice at night.", "A fox is small.", "How to bake bread."]


class _Fixed(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager, k=None):
        return self.documents[:k]


class _Upper(BaseDocumentTransformer):
    def transform_documents(self, documents, **_):
        return [
            one.model_copy(update={"page_content": one.page_content.upper()}) for one in documents
        ]


class _Runs(BaseCallbackHandler):
    """Record the runs of the compressor and who their parents are."""

    def __init__(self):
        self.names: dict[UUID, str] = {}
        self.seen: list[tuple[str, Any]] = []
        self.parents: list[str | None] = []

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, name=None, **_):
        self.names[run_id] = name
        if name == "RerankPluginsCompressor":
            self.seen.append(("start", inputs))
            self.parents.append(self.names.get(parent_run_id))

    def on_retriever_start(self, serialized, query, *, run_id, name=None, **_):
        self.names[run_id] = name

    def on_tool_start(self, serialized, input_str, *, run_id, name=None, **_):
        self.names[run_id] = name or serialized["name"]

    def on_chain_end(self, outputs, *, run_id, **_):
        if self.names.get(run_id) == "RerankPluginsCompressor":
            self.seen.append(("end", outputs))

    def on_chain_error(self, error, *, run_id, **_):
        if self.names.get(run_id) == "RerankPluginsCompressor":
            self.seen.append(("error", error))


class _AsyncRuns(AsyncCallbackHandler):
    def __init__(self):
        self.seen = []

    async def on_chain_start(self, serialized, inputs, **named):
        self.seen.append(named.get("name"))


@pytest.fixture
def documents():
    """Give retrieved documents with ids and nested metadata."""
    return [
        Document(text, id=str(i), metadata={"page": {"number": i}}) for i, text in enumerate(TEXTS)
    ]


@pytest.fixture
def compressor():
    """Give the adapter over the scorer that needs no model."""
    return RerankPluginsCompressor(model="lexical")


@pytest.fixture
def runs():
    """Give a handler that records the compressor's runs."""
    return _Runs()


def _call(compressor, documents, callbacks=None, *, asynchronous=False):
    if asynchronous:
        return asyncio.run(compressor.acompress_documents(documents, QUERY, callbacks=callbacks))
    return compressor.compress_documents(documents, QUERY, callbacks=callbacks)


def _ids(documents):
    return [one.id for one in documents]


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def test_it_is_a_document_compressor(compressor):
    """Retrievers and pipelines take it by its base class, and pass `callbacks` by that name."""
    assert isinstance(compressor, BaseDocumentCompressor)
    for method in (compressor.compress_documents, compressor.acompress_documents):
        assert list(inspect.signature(method).parameters) == ["documents", "query", "callbacks"]


def test_three_documents_come_back_by_default(compressor, documents):
    """The default top_n is the one LangChain users know."""
    assert _ids(_call(compressor, documents)) == ["1", "3", "0"]


def test_unknown_options_are_refused():
    """A misspelled option is an error, not silence."""
    with pytest.raises(ValueError, match="topn"):
        RerankPluginsCompressor(topn=3)


def test_options_may_change_between_calls(compressor, documents):
    """Assigning an option is checked and takes effect."""
    compressor.top_n = 1
    assert len(_call(compressor, documents)) == 1
    with pytest.raises(ValueError, match="top_n"):
        compressor.top_n = 0


@both
def test_ids_types_and_metadata_are_kept(compressor, documents, asynchronous):
    """Documents come back as what they were, on copies of their metadata."""

    class _Special(Document):
        extra: int = 7

    documents[1] = _Special(page_content=TEXTS[1], id="1", metadata=documents[1].metadata)
    first = _call(compressor, tuple(documents), asynchronous=asynchronous)[0]
    assert (type(first), first.extra, first.id, first.type) == (_Special, 7, "1", "Document")
    assert first.metadata["page"] == {"number": 1}
    assert first.metadata["page"] is not documents[1].metadata["page"]


def test_an_older_score_does_not_survive(compressor, documents):
    """A stale relevance_score of an earlier reranker is replaced, never kept."""
    documents[1].metadata["relevance_score"] = 99.0
    assert _call(compressor, documents)[0].metadata["relevance_score"] != 99.0
    assert documents[1].metadata["relevance_score"] == 99.0


def test_the_keys_are_the_users(documents):
    """Score, prior and facts live under the metadata keys that were asked for."""
    documents[3].metadata["bm25"] = 5.0
    compressor = RerankPluginsCompressor(
        model="lexical", score_key="s", prior_key="bm25", facts_key="f", top_n=None
    )
    found = {one.id: one.metadata for one in _call(compressor, documents)}
    assert set(found["1"]) == {"page", "s", "f"}
    assert (found["3"]["f"]["prior"], found["1"]["f"]["prior"]) == (5.0, None)
    assert found["1"]["f"]["degraded"] is False
    assert {one["step"] for one in found["1"]["f"]["timings_ms"]} >= {"queue", "total"}


def test_answers_serialise(documents):
    """Documents with scores and facts dump to JSON the framework's ways."""
    compressor = RerankPluginsCompressor(model="lexical", facts_key="rerank")
    for one in _call(compressor, documents):
        assert json.loads(one.model_dump_json())["metadata"] == one.metadata
        assert "not_implemented" not in dumps(one)


@both
def test_it_works_in_a_compression_retriever(compressor, documents, runs, asynchronous):
    """ContextualCompressionRetriever reranks, and keyword arguments reach its base retriever."""
    retriever = ContextualCompressionRetriever(
        base_compressor=compressor, base_retriever=_Fixed(documents=documents)
    )
    config = {"callbacks": [runs]}
    if asynchronous:
        found = asyncio.run(retriever.ainvoke(QUERY, config))
    else:
        found = retriever.invoke(QUERY, config)
    assert _ids(found) == ["1", "3", "0"]
    assert _ids(retriever.invoke(QUERY, k=1)) == ["0"]
    assert runs.parents == ["ContextualCompressionRetriever"]


@both
def test_it_works_in_a_compressor_pipeline(compressor, documents, runs, asynchronous):
    """DocumentCompressorPipeline chains it and hands it the callbacks."""
    pipeline = DocumentCompressorPipeline(transformers=[compressor, _Upper()])
    found = _call(pipeline, documents, [runs], asynchronous=asynchronous)
    assert [one.page_content for one in found][:1] == [TEXTS[1].upper()]
    assert [kind for kind, _ in runs.seen] == ["start", "end"]


@both
def test_it_works_in_a_chain(compressor, documents, runs, asynchronous):
    """as_runnable() goes into an LCEL chain, whose run is the parent of its own."""
    chain = (
        RunnableParallel(documents=_Fixed(documents=documents), query=RunnablePassthrough())
        | compressor.as_runnable()
        | (lambda found: found[0].page_content)
    )
    config = {"callbacks": [runs]}
    answer = (
        asyncio.run(chain.ainvoke(QUERY, config)) if asynchronous else chain.invoke(QUERY, config)
    )
    assert answer == TEXTS[1]
    assert runs.parents == ["rerank"]


@both
def test_it_works_behind_an_agents_tool(compressor, documents, runs, asynchronous):
    """A retriever tool, as agents call it, answers from the reranked documents."""
    retriever = ContextualCompressionRetriever(
        base_compressor=compressor, base_retriever=_Fixed(documents=documents)
    )
    search = create_retriever_tool(retriever, "search", "Search the notes.")
    call = {"name": "search", "args": {"query": QUERY}, "id": "1", "type": "tool_call"}
    config = {"callbacks": [runs]}
    answer = (
        asyncio.run(search.ainvoke(call, config)) if asynchronous else search.invoke(call, config)
    )
    assert answer.content.startswith(TEXTS[1])
    assert runs.parents == ["ContextualCompressionRetriever"]


def test_without_callbacks_the_enclosing_run_is_the_parent(compressor, documents, runs):
    """Inside a tool or a lambda that hands nothing on, the run still nests."""

    @tool
    def search(query: str) -> str:
        """Search."""
        return compressor.compress_documents(documents, query)[0].page_content

    assert search.invoke({"query": QUERY}, {"callbacks": [runs]}) == TEXTS[1]
    RunnableLambda(
        lambda query: compressor.compress_documents(documents, query), name="plain"
    ).invoke(QUERY, {"callbacks": [runs]})
    assert runs.parents == ["search", "plain"]


@both
@pytest.mark.parametrize("form", [list, CallbackManager, AsyncCallbackManager])
def test_callbacks_come_in_all_forms(compressor, documents, runs, asynchronous, form):
    """A list, a manager or an async manager is heard, on the sync and on the async path."""
    callbacks = [runs] if form is list else form(handlers=[runs])
    _call(compressor, documents, callbacks, asynchronous=asynchronous)
    assert [kind for kind, _ in runs.seen] == ["start", "end"]


@both
def test_async_handlers_are_heard(compressor, documents, asynchronous):
    """A handler with coroutines is awaited on either path."""
    handler = _AsyncRuns()
    _call(compressor, documents, [handler], asynchronous=asynchronous)
    assert handler.seen == ["RerankPluginsCompressor"]


@both
def test_a_run_shows_what_went_in_and_came_out(compressor, documents, runs, asynchronous):
    """The run carries query, documents, answer, and what the engine says about the request."""
    found = _call(compressor, documents, [runs], asynchronous=asynchronous)
    (_, inputs), (_, outputs) = runs.seen
    assert inputs == {"query": QUERY, "documents": documents}
    assert outputs["documents"] == found
    assert outputs["facts"]["degraded"] is False


@both
def test_a_failed_run_ends_in_error(documents, runs, asynchronous):
    """Where reranking raises, its run has ended with the error."""
    compressor = RerankPluginsCompressor(model="no/such-model", local_files_only=True, strict=True)
    with pytest.raises(RerankError) as raised:
        _call(compressor, documents, [runs], asynchronous=asynchronous)
    assert runs.seen[1:] == [("error", raised.value)]


@both
def test_degradation_shows_in_the_run(documents, runs, asynchronous):
    """A lost model is told to the tracer: degraded, and the decisions that say why."""
    compressor = RerankPluginsCompressor(model="no/such-model", local_files_only=True)
    _call(compressor, documents, [runs], asynchronous=asynchronous)
    facts = runs.seen[1][1]["facts"]
    assert facts["degraded"] is True
    assert "pass_through" in {one["code"] for one in facts["decisions"]}


@both
def test_a_generator_is_a_list_of_documents(compressor, documents, runs, asynchronous):
    """What can be read once only is read once: nothing of it is lost."""
    given = (one for one in documents)
    assert _ids(_call(compressor, given, [runs], asynchronous=asynchronous)) == _ids(
        _call(compressor, documents)
    )
    assert _call(compressor, iter(()), asynchronous=asynchronous) == []
    assert len(compressor.rerank(iter(TEXTS), QUERY)) == 3
    assert len(RerankPluginsCrossEncoder("lexical").score((QUERY, text) for text in TEXTS)) == 4


def test_rerank_takes_texts_documents_and_dicts(compressor):
    """The helper that Cohere users know gives positions and scores, best first."""
    mixed = ["The market fell.", Document(TEXTS[1]), {"title": "Bread", "body": "bake it"}]
    found = compressor.rerank(mixed, QUERY)
    assert [one["index"] for one in found] == [1, 0, 2]
    assert all(type(one["relevance_score"]) is float for one in found)
    assert [one["index"] for one in compressor.rerank(mixed, QUERY, top_n=1)] == [1]
    assert compressor.rerank([], QUERY) == []


def test_it_survives_json(documents):
    """A round trip through JSON gives an equal compressor."""
    compressor = RerankPluginsCompressor(config={"stages": [{"scorer": "lexical"}]})
    again = RerankPluginsCompressor.model_validate_json(compressor.model_dump_json())
    assert again == compressor
    assert again.top_n is None
    assert _call(again, documents) == _call(compressor, documents)


def test_the_cross_encoder_scores_pairs():
    """Pairs with several queries, twice the same and blank ones keep their places."""
    encoder = RerankPluginsCrossEncoder("lexical")
    assert isinstance(encoder, BaseCrossEncoder)
    scores = encoder.score(
        [("red fox", "a red fox"), ("hen", "a hen"), ("red fox", ""), ("red fox", "a cat")]
    )
    assert scores[0] > scores[3] == 0.0
    assert scores[2] == -math.inf
    assert all(type(one) is float for one in scores)
    assert encoder.score([]) == []


def test_the_cross_encoder_works_in_a_reranker(documents):
    """CrossEncoderReranker orders by its scores."""
    reranker = CrossEncoderReranker(model=RerankPluginsCrossEncoder("lexical"), top_n=2)
    assert _ids(reranker.compress_documents(documents, QUERY)) == ["1", "3"]


def test_the_cross_encoder_raises_what_it_cannot_score():
    """Scores have no order to fall back on: a failure raises."""
    lost = {"scorer": "no/such-model", "local_files_only": True}
    encoder = RerankPluginsCrossEncoder(config={"stages": [lost]})
    with pytest.raises(RerankError):
        encoder.score([("a", "b")])
