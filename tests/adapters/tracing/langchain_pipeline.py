"""A compression retriever of LangChain over our compressor."""

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_rerank_plugins import RerankPluginsCompressor
from openinference.instrumentation.langchain import LangChainInstrumentor

from tests.adapters.tracing.recorder import QUESTION, TEXTS, record


class Fixed(BaseRetriever):
    """Finds the same documents always."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text) for text in TEXTS]


if __name__ == "__main__":
    retriever = ContextualCompressionRetriever(
        base_compressor=RerankPluginsCompressor(model="lexical", top_n=2), base_retriever=Fixed()
    )
    record(
        lambda: retriever.invoke(QUESTION),
        lambda: retriever.ainvoke(QUESTION),
        LangChainInstrumentor(),
    )
