"""A LangChain retriever over a vector store, its hits reranked, in a chain."""

import re
import zlib

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_rerank_plugins import RerankPluginsCompressor

NOTES = [
    "Cats sleep twelve to sixteen hours a day, mostly while it is light.",
    "How long do you want to wait for a table? Do cats allow you to book?",
    "Do a long walk a day, how long is up to you, and do not sleep in.",
    "Bread dough rests for an hour before it is baked.",
]


class WordCounts(Embeddings):
    """A local embedding: words, hashed and counted."""

    def embed_query(self, text: str) -> list[float]:
        words = [zlib.crc32(word.encode()) % 512 for word in re.findall(r"\w+", text.lower())]
        return [float(words.count(place)) for place in range(512)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


store = InMemoryVectorStore.from_texts(NOTES, WordCounts()).as_retriever(search_kwargs={"k": 4})
compressor = RerankPluginsCompressor(top_n=1, facts_key="rerank")
retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=store)
best = retriever.invoke("how long do cats sleep")[0]
print("retrieved:", store.invoke("how long do cats sleep")[0].page_content)
print("reranked: ", best.page_content)
print("degraded?", best.metadata["rerank"]["degraded"])
# retrieved: Do a long walk a day, how long is up to you, and do not sleep in.
# reranked:  Cats sleep twelve to sixteen hours a day, mostly while it is light.
# degraded? False
