"""What an adapter costs over the bare engine: milliseconds a call at 100 candidates.

Run it from the repository: python benchmarks/adapters.py. The scorer is lexical, so that the
engine's own time is small and steady; calls of all sides are interleaved.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

from haystack import Document as HaystackDocument
from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker
from langchain_core.documents import Document
from langchain_rerank_plugins import RerankPluginsCompressor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

from rerank_plugins import Candidate, Reranker

CANDIDATES, ROUNDS = 100, 200
QUERY = "how does a fox hunt at night"
TEXTS = [
    f"Passage {i} tells how foxes and hens get through night {i}. " * 8 for i in range(CANDIDATES)
]
META = {"source": "notes.txt", "page": 3, "tags": ["fox", "hen"]}


def calls() -> dict[str, Callable[[], object]]:
    """Return one call of each side; every side returns all candidates, scored."""
    bare = Reranker("lexical")
    candidates = [Candidate(text, 0.5, META) for text in TEXTS]
    rerank = RerankPluginsRerank(model="lexical", top_n=None, metadata_mode="none")
    nodes = [NodeWithScore(node=TextNode(text=text, metadata=META), score=0.5) for text in TEXTS]
    compressor = RerankPluginsCompressor(model="lexical", top_n=None)
    documents = [Document(text, metadata={**META, "score": 0.5}) for text in TEXTS]
    ranker = RerankPluginsRanker("lexical", top_k=None)
    found = [HaystackDocument(content=text, meta=META, score=0.5) for text in TEXTS]
    return {
        "bare engine": lambda: bare.rerank(QUERY, candidates),
        "LlamaIndex": lambda: rerank.postprocess_nodes(nodes, query_str=QUERY),
        "LangChain": lambda: compressor.compress_documents(documents, QUERY),
        "Haystack": lambda: ranker.run(query=QUERY, documents=found),
    }


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Return each side's median milliseconds a call, and the adapters' over the bare engine's."""
    sides = calls()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(one) * 1e3 for name, one in seconds.items()}


if __name__ == "__main__":
    medians = measure()
    bare = medians["bare engine"]
    over = {f"{name}, over the engine": ms - bare for name, ms in medians.items() if ms != bare}
    print(json.dumps({name: round(ms, 2) for name, ms in {**medians, **over}.items()}, indent=1))
