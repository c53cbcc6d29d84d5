"""A LlamaIndex query engine that retrieves by embedding and reads what the reranker put first."""

import re
import zlib

from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode
from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

NOTES = [
    "Cats sleep twelve to sixteen hours a day, mostly while it is light.",
    "How long do you want to wait for a table? Do cats allow you to book?",
    "Do a long walk a day, how long is up to you, and do not sleep in.",
    "Bread dough rests for an hour before it is baked.",
]


class WordCounts(BaseEmbedding):
    """A local embedding: words, hashed and counted."""

    def _get_text_embedding(self, text: str) -> list[float]:
        words = [zlib.crc32(word.encode()) % 512 for word in re.findall(r"\w+", text.lower())]
        return [float(words.count(place)) for place in range(512)]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


index = VectorStoreIndex([TextNode(text=note) for note in NOTES], embed_model=WordCounts())
rerank = RerankPluginsRerank(top_n=1, prior_weight=0.0)
engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=[rerank])
query = "how long do cats sleep"
print("retrieved:", index.as_retriever(similarity_top_k=1).retrieve(query)[0].text)
print("reranked: ", engine.query(query).source_nodes[0].text)
# retrieved: Do a long walk a day, how long is up to you, and do not sleep in.
# reranked:  Cats sleep twelve to sixteen hours a day, mostly while it is light.
