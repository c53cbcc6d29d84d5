"""A query engine of LlamaIndex over our postprocessor."""

from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

from tests.adapters.tracing.recorder import QUESTION, TEXTS, record


class Fixed(BaseRetriever):
    """Finds the same nodes always."""

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


if __name__ == "__main__":
    Settings.llm = MockLLM()
    engine = RetrieverQueryEngine(
        retriever=Fixed(),
        response_synthesizer=get_response_synthesizer(response_mode=ResponseMode.NO_TEXT),
        node_postprocessors=[RerankPluginsRerank(model="lexical", top_n=2)],
    )
    record(
        lambda: engine.query(QUESTION),
        lambda: engine.aquery(QUESTION),
        LlamaIndexInstrumentor(),
    )
