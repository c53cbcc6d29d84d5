"""Retrieve from the Python documentation with BM25, rerank, and show what changed and why."""

import json
import sys
from pathlib import Path

import bm25s
from rich import print as show
from rich.markup import escape
from rich.table import Table

from rerank_plugins import Candidate, Reranker

QUERIES = sys.argv[1:] or ["remove repeated items from a list", "share a variable between modules"]
CORPUS = Path(__file__).parent / "corpus" / "python-docs.jsonl"

rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
texts = [f"{row['title']}: {row['text']}" for row in rows]
first_stage = bm25s.BM25()
first_stage.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
reranker = Reranker()  # the embedded model: no network
reranker.warm_up()

for query in QUERIES:
    words = bm25s.tokenize(query, show_progress=False)
    ids, scores = first_stage.retrieve(words, k=30, show_progress=False)
    candidates = [Candidate(texts[i], float(s)) for i, s in zip(ids[0], scores[0], strict=True)]
    result = reranker.rerank(query, candidates, top_k=5, budget_ms=10_000)

    table = Table("", "before: BM25", "after: reranked", "was", title=f"[bold]{escape(query)}[/]")
    for rank, hit in enumerate(result):
        before, after = (escape(candidates[at].text[:30]) for at in (rank, hit.index))
        table.add_row(str(rank + 1), before, after, str(hit.index + 1))
    show(table)
    for decision in result.decisions:
        show(f"{decision.count} x {decision.code.code}: {decision.code.meaning}")
    milliseconds = [f"{one.step} {one.seconds * 1e3:.1f} ms" for one in result.timings]
    show(f"{result.usage.pairs} pairs, {result.usage.tokens} tokens:", ", ".join(milliseconds))
# share a variable between modules
# │ 1 │ 9.2. Python Scopes and Namespa │ How do I share global variable │ 2   │
