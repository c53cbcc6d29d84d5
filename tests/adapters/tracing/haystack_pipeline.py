"""A pipeline of Haystack with our ranker."""

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker
from openinference.instrumentation.haystack import HaystackInstrumentor

from tests.adapters.tracing.recorder import QUESTION, TEXTS, record

if __name__ == "__main__":
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=text) for text in TEXTS])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", RerankPluginsRanker(model="lexical", top_k=2))
    pipeline.connect("retriever.documents", "ranker.documents")
    data = {"retriever": {"query": QUESTION}, "ranker": {"query": QUESTION}}
    record(
        lambda: pipeline.run(data),
        lambda: pipeline.run_async(data),
        HaystackInstrumentor(),
    )
