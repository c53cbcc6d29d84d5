"""A RAG loop that can be watched: retrieve, rerank, answer, each question one trace."""

import json
import sys
from pathlib import Path

import bm25s
import sdk
from opentelemetry import trace

from rerank_plugins import Candidate, load

QUESTIONS = sys.argv[1:] or ["share a variable between modules", "remove duplicates from a list"]
CORPUS = Path(__file__).parent.parent / "corpus" / "python-docs.jsonl"

tracers = sdk.start()
tracer = trace.get_tracer("rag")
rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
texts = [f"{row['title']}: {row['text']}" for row in rows]
index = bm25s.BM25()
index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
reranker = load({"telemetry": {"slow_ms": 500}})
reranker.warm_up()

for question in QUESTIONS:
    with tracer.start_as_current_span("answer") as span:
        span.set_attribute("openinference.span.kind", "CHAIN")
        with tracer.start_as_current_span("retrieve") as retrieve:
            retrieve.set_attribute("openinference.span.kind", "RETRIEVER")
            words = bm25s.tokenize(question, show_progress=False)
            ids, scores = index.retrieve(words, k=30, show_progress=False)
        found = [Candidate(texts[i], float(s)) for i, s in zip(ids[0], scores[0], strict=True)]
        best = reranker.rerank(question, found, top_k=3, budget_ms=10_000)
        print(f"{question}\n  {found[best[0].index].text[:70]}")
reranker.close()
tracers.shutdown()
# share a variable between modules
